// Workers answer, also when there is nothing to talk to.

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import test from 'node:test';

import { CommandError, WorkerProcess } from '../src/worker-process.js';

/** A port on which nothing listens. */
async function deadPort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise(resolve => server.close(resolve));
  return port;
}

test('a worker loads the client and reports what fails', async t => {
  const worker = await WorkerProcess.start();
  t.after(() => worker.stop());
  await assert.rejects(worker.call('fly'), error => error instanceof CommandError && /unknown command/.test(error.message));
  const port = await deadPort();
  const backend = { api: `http://127.0.0.1:${port}`, websocket: `ws://127.0.0.1:${port}`, localAddress: '127.9.9.9' };
  await assert.rejects(worker.call('open', backend), /ECONNREFUSED/);
});

test('a worker that is stopped fails what waits', async () => {
  const worker = await WorkerProcess.start();
  const waiting = assert.rejects(worker.event(({ event }) => event === 'never'), /ended with/);
  await worker.stop();
  await waiting;
});
