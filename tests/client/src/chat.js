// Two people writing to each other from two terminals, with the real client, while `make run` runs:
//
//     make chat ME=ann@alpha.test WITH=ben@beta.test
//     make chat ME=ben@beta.test WITH=ann@alpha.test
//
// An account that is not there yet is registered, with the code from the backend's mail folder. Keys live as long as the
// process: every start is a new device.

import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { setTimeout as pause } from 'node:timers/promises';

import { Federation } from './federation.js';

const POLL = 1000;

const { values: options } = parseArgs({
  options: { ready: { type: 'string' }, me: { type: 'string' }, with: { type: 'string' } },
});
if (!options.ready || !options.me || !options.with) {
  fail('usage: chat.js --ready FILE --me handle@domain --with handle@domain');
}

function fail(text) {
  process.stderr.write(`${text}\n`);
  process.exit(1);
}

function tell(text) {
  process.stdout.write(`${text}\n`);
}

function address(text) {
  const [handle, domain] = text.split('@');
  return handle && domain ? { handle, domain } : fail(`${text} is not of the form handle@domain`);
}

// The libraries log a lot, and a terminal is for people.
for (const level of ['log', 'info', 'debug', 'warn', 'error']) {
  console[level] = () => {};
}

const me = address(options.me);
const other = address(options.with);
const email = `${me.handle}@example.com`;
const password = `${me.handle} likes lamps`;

const text = await readFile(options.ready, 'utf8').catch(() => fail(`${options.ready} is not there: is \`make run\` running?`));
const federation = new Federation();
for (const backend of JSON.parse(text).backends) {
  federation.backends.set(backend.domain, backend);
}
const home = federation.backends.get(me.domain) ?? fail(`no backend ${me.domain} runs`);

const { Person } = await import('./person.js');
let connected;
let conversation;
const waiting = [];

const person = new Person(event => {
  if (event.type === 'user.connection' && event.data.qualified_to.id === connected?.id) {
    waiting.splice(0).forEach(resolve => resolve());
  }
  if (event.event === 'message' && event.text && event.conversation.id === conversation?.id) {
    tell(`${other.handle}: ${event.text}`);
  }
  if (event.event === 'undecryptable') {
    tell('(a message for an earlier device of yours cannot be read here)');
  }
});

const status = error => error?.response?.status ?? error?.code;

async function logIn() {
  try {
    await person.login({ email, password });
  } catch (error) {
    if (status(error) !== 403) {
      throw error;
    }
    tell(`registering ${me.handle}; the activation code lies in ${home.mail_dir}`);
    await person.askForCode({ email });
    const code = await federation.activationCode(me.domain, email);
    const name = me.handle[0].toUpperCase() + me.handle.slice(1);
    await person.register({ email, code, name, password });
    await person.setHandle({ handle: me.handle });
  }
}

/** A new device; the oldest makes room when there are too many. */
async function addDevice() {
  try {
    await person.createClient({ password });
  } catch (error) {
    const [oldest] = await person.clients();
    if (!oldest) {
      throw error;
    }
    await person.removeClient({ client: oldest.id, password });
    await person.createClient({ password });
  }
}

async function findOther() {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await person.userByHandle({ domain: other.domain, handle: other.handle });
    } catch (error) {
      if (attempt === 0) {
        tell(`waiting for ${other.handle} to be there (${status(error) ?? error.message})`);
      }
      await pause(POLL);
    }
  }
}

/** Asks, accepts or waits, until the two are connected; gives their conversation. */
async function connect(user) {
  for (;;) {
    const known = (await person.connections()).find(({ to }) => to.id === user.id);
    if (known?.status === 'accepted') {
      return known.conversation;
    }
    if (known?.status === 'pending') {
      return (await person.accept({ user })).conversation;
    }
    if (!known || known.status === 'cancelled') {
      await person.connect({ user });
    }
    tell(`waiting for ${other.handle} to accept`);
    await Promise.race([new Promise(resolve => waiting.push(resolve)), pause(10 * POLL)]);
  }
}

await person.open({ api: home.api, websocket: home.websocket });
await logIn();
await addDevice();
await person.listen();
connected = (await findOther()).id;
conversation = await connect(connected);
tell(`${me.handle} and ${other.handle} are connected: what you type is encrypted here and read there. Ctrl-D ends.`);
for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim()) {
    const { failedToSend } = await person.sendText({ conversation, text: line });
    if (failedToSend) {
      tell(`(${other.domain} cannot be reached now)`);
    }
  }
}
process.exit(0);
