// Makes people for a test: each a worker process with an account and a client of its own.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';

import { WorkerProcess } from './worker-process.js';

const PASSWORD = 'a long password for tests 1!';

let made = 0;

/** Every worker has an address of its own, as backends count requests per address. */
function nextAddress() {
  made += 1;
  return `127.20.${Math.floor(made / 250)}.${1 + (made % 250)}`;
}

export class TestPerson {
  constructor(worker, federation, domain, name, legacy = true) {
    const unique = randomBytes(4).toString('hex');
    Object.assign(this, { worker, federation, domain, name, legacy, password: PASSWORD });
    this.handle = `${name.toLowerCase()}_${unique}`;
    this.email = `${this.handle}@mail.test`;
  }

  async open() {
    const { api, websocket } = this.federation.backends.get(this.domain);
    await this.worker.call('open', { api, websocket, localAddress: nextAddress(), legacy: this.legacy });
  }

  /** Registers with the code from the mail and takes a handle. */
  async register() {
    await this.open();
    await this.worker.call('askForCode', { email: this.email });
    const code = await this.federation.activationCode(this.domain, this.email);
    const { email, name, password } = this;
    const self = await this.worker.call('register', { email, code, name, password });
    this.id = self.id;
    await this.worker.call('setHandle', { handle: this.handle });
  }

  async createClient() {
    this.client = await this.worker.call('createClient', { password: this.password });
  }

  /** Goes online and waits for what was missed. */
  listen() {
    return this.worker.call('listen');
  }

  stopListening() {
    return this.worker.call('stopListening');
  }

  /** Invites the other, who accepts; settles when both can write. */
  async connectWith(other) {
    const sent = await this.worker.call('connect', { user: other.id });
    await other.worker.event(isConnection('pending', this.id));
    const accepted = await other.worker.call('accept', { user: this.id });
    await this.worker.event(isConnection('accepted', other.id));
    return { sent, accepted, conversation: accepted.conversation };
  }

  /** The same account in a process of its own, with a second client, online. */
  async secondDevice(t) {
    const worker = await WorkerProcess.start();
    t.after(() => worker.stop());
    const device = Object.assign(Object.create(TestPerson.prototype), this, { worker });
    await device.open();
    const { email, password } = this;
    await worker.call('login', { email, password });
    await device.createClient();
    await device.listen();
    return device;
  }

  send(conversation, text, recipients) {
    return this.worker.call('sendText', { conversation, text, recipients });
  }

  /** Sends a payload of any kind (`payloads.js`); settles with its id. */
  async tell(conversation, payload) {
    const { messageId, state } = await this.worker.call('sendPayload', { conversation, payload });
    assert.equal(state, 'OUTGOING_SENT');
    return messageId;
  }

  /** Waits for a message by its id, and gives its payload. */
  async payload(conversation, messageId) {
    const is = isMessage(conversation);
    const { content } = await this.worker.event(event => is(event) && event.messageId === messageId);
    return content;
  }

  /** The texts that came in a conversation since the start, when there are `count` of them. */
  async texts(conversation, count) {
    const messages = await this.worker.eventsThat(isMessage(conversation), count);
    return messages.map(({ text }) => text);
  }

  /** What came that could not be decrypted. */
  undecryptable() {
    return this.worker.events.filter(({ event }) => event === 'undecryptable');
  }
}

const same = (one, other) => one?.id === other.id && one?.domain === other.domain;

/** Events about the connection with a user. */
export const isConnection = (status, user) => event =>
  event.type === 'user.connection' && event.data.status === status && same(event.data.qualified_to, user);

/** Decrypted messages of a conversation. */
export const isMessage = conversation => event => event.event === 'message' && same(event.conversation, conversation);

/** Events of one type in a conversation. */
export const isEvent = (type, conversation) => event => event.type === type && same(event.conversation, conversation);

/** Starts a worker for each `[name, domain]` and registers them; the test stops them when it ends. */
export async function people(t, federation, wanted, { online = true, legacy = true } = {}) {
  return Promise.all(
    wanted.map(async ([name, domain]) => {
      const worker = await WorkerProcess.start();
      t.after(() => worker.stop());
      const person = new TestPerson(worker, federation, domain, name, legacy);
      await person.register();
      if (online) {
        await person.createClient();
        await person.listen();
      }
      return person;
    }),
  );
}
