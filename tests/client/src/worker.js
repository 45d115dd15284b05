// A process that is one person. It reads `{"id", "command", "args"}` lines from standard input and answers each with
// `{"id", "result"}` or `{"id", "error"}`; what happens in between it tells as `{"event", …}` lines. Standard output holds
// nothing else. It ends with its standard input.

import { createInterface } from 'node:readline';

const write = message => process.stdout.write(`${JSON.stringify(message)}\n`);

// Whatever the libraries log must not mix with the answers.
for (const level of ['log', 'info', 'debug', 'warn', 'error']) {
  console[level] = (...args) => process.stderr.write(`${args.map(String).join(' ')}\n`);
}
process.on('unhandledRejection', error => console.error('unhandled rejection:', error?.stack ?? error));

const { Person } = await import('./person.js');
const person = new Person(write);
const commands = new Set(
  Object.getOwnPropertyNames(Person.prototype).filter(name => name !== 'constructor'),
);

const describe = error => ({
  name: error?.name ?? 'Error',
  message: String(error?.message ?? error),
  status: error?.response?.status ?? error?.code ?? null,
  label: error?.response?.data?.label ?? error?.label ?? null,
  data: error?.response?.data ?? null,
});

async function run({ id, command, args = {} }) {
  try {
    if (!commands.has(command)) {
      throw new Error(`unknown command ${command}`);
    }
    write({ id, result: (await person[command](args)) ?? null });
  } catch (error) {
    write({ id, error: describe(error) });
  }
}

write({ event: 'ready' });
for await (const line of createInterface({ input: process.stdin })) {
  // Not awaited: the test decides what runs at once.
  void run(JSON.parse(line));
}
process.exit(0);
