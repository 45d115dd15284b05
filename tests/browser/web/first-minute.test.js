// What somebody does who never saw this before: starts the federation as it is, and opens the two addresses that it prints
// in two windows of one browser.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { World } from './world.js';

const GROUP = 'Hello across domains';

let world;

before(async () => {
  world = await World.start({ people: true });
});

after(() => world?.stop());

test('two people who were made write to each other at once', async () => {
  const context = await world.context();
  const [alice, bob] = world.federation.people;
  assert.deepEqual([alice.handle, bob.handle], ['alice', 'bob']);
  const [a, b] = [await world.window(alice.domain, { context }), await world.window(bob.domain, { context })];
  await Promise.all([a.logIn(alice), b.logIn(bob)]);

  await Promise.all([a.openConversation(GROUP), b.openConversation(GROUP)]);
  await a.page.bringToFront();
  const greeting = await a.write('Hello from the other side');
  await b.reads('Hello from the other side');
  await a.delivered(greeting, bob.domain, ['delivered', 'read']);
  await b.page.bringToFront();
  await b.act(b.message('Hello from the other side'), 'react', { emoji: '🎉' });
  await a.sees('reaction', { emoji: '🎉', count: 1 }, greeting);
  await a.delivered(greeting, bob.domain, 'read');

  await b.sendFile('us.png', 'image/png', await b.page.screenshot());
  await a.sees('message', { kind: 'file', own: false });
  await a.id('message-image').waitFor();
  await b.write('So this is federation');
  await a.reads('So this is federation');

  // Each window still has its own session: the two share the cookies of the browser.
  await Promise.all([a.page.reload(), b.page.reload()]);
  await Promise.all([a.online(), b.online()]);
  await a.reads('So this is federation');
  await b.reads('Hello from the other side');
  await a.assertCalm();
  await b.close();
});
