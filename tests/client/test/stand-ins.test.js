// The stand-ins do what the client library expects of the packages in whose place they are.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import test from 'node:test';

const require = createRequire(import.meta.url);
const { PromiseQueue } = require('@wireapp/promise-queue');
const { PriorityQueue } = require('@wireapp/priority-queue');
const { Converter, Decoder, Encoder } = require('bazinga64');

test('a promise queue runs tasks one after the other while it is not paused', async () => {
  const queue = new PromiseQueue({ paused: true });
  const order = [];
  const task = number => async () => {
    order.push(`begin ${number}`);
    await null;
    order.push(`end ${number}`);
    return number;
  };
  const results = Promise.all([queue.push(task(1)), queue.push(task(2))]);
  assert.equal(queue.getLength(), 2);
  assert.deepEqual(order, []);
  queue.resume();
  assert.ok(queue.hasRunningTasks());
  assert.deepEqual(await results, [1, 2]);
  assert.deepEqual(order, ['begin 1', 'end 1', 'begin 2', 'end 2']);
  await assert.rejects(queue.push(async () => assert.fail('on purpose')), /on purpose/);
});

test('a promise queue rejects what it flushes and what takes too long', async () => {
  const queue = new PromiseQueue({ paused: true, timeout: 1 });
  const flushed = queue.push(async () => {});
  queue.flush();
  await assert.rejects(flushed, error => error.cause === PromiseQueue.ERROR_CAUSES.FLUSHED);
  queue.resume();
  const late = queue.push(() => new Promise(() => {}));
  await assert.rejects(late, error => error.cause === PromiseQueue.ERROR_CAUSES.TIMEOUT);
  assert.equal(await queue.push(async () => 'next'), 'next');
});

test('a priority queue retries what may be retried, and prefers the urgent', async () => {
  const queue = new PriorityQueue({ maxRetries: 2, retryDelay: 1, shouldRetry: error => error.message === 'again' });
  let tries = 0;
  const failing = text => async () => {
    tries += 1;
    throw new Error(text);
  };
  await assert.rejects(queue.add(failing('again')), /again/);
  assert.equal(tries, 3);
  await assert.rejects(queue.add(failing('never')), /never/);
  assert.equal(tries, 4);
  const order = [];
  await Promise.all([
    queue.add(async () => order.push('first')),
    queue.add(async () => order.push('later'), 1),
    queue.add(async () => order.push('urgent'), 9),
  ]);
  assert.deepEqual(order, ['first', 'urgent', 'later']);
});

test('Base64 and texts go there and back', () => {
  const bytes = new Uint8Array([0, 1, 254, 255]);
  assert.equal(Encoder.toBase64(bytes).asString, 'AAH+/w==');
  assert.deepEqual(Decoder.fromBase64('AAH+/w==').asBytes, bytes);
  assert.equal(Encoder.toBase64('é').asString, 'w6k=');
  assert.equal(Converter.arrayBufferViewToStringUTF8(Converter.stringToArrayBufferViewUTF8('é')), 'é');
  assert.equal(btoa(Converter.arrayBufferViewToBaselineString(bytes)), 'AAH+/w==');
});
