// The acknowledged socket: unmodified clients that confirm each event.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Federation } from '../src/federation.js';
import { people } from '../src/people.js';

const OPTIONS = { timeout: 240_000 };

let federation;

before(async () => {
  federation = await Federation.start();
}, OPTIONS);

after(() => federation?.stop(), OPTIONS);

const numbered = (count, text) => Array.from({ length: count }, (_, index) => `${text} ${index + 1}`);

test('clients that acknowledge write to each other across backends, and catch up in order', OPTIONS, async t => {
  const wanted = [['Ann', 'alpha.test'], ['Bob', 'beta.test']];
  const [ann, bob] = await people(t, federation, wanted, { legacy: false });
  const { conversation } = await ann.connectWith(bob);
  await ann.send(conversation, 'hello beta');
  assert.deepEqual(await bob.texts(conversation, 1), ['hello beta']);
  await bob.send(conversation, 'hello alpha');
  assert.deepEqual(await ann.texts(conversation, 1), ['hello alpha']);

  await bob.stopListening();
  const missed = numbered(30, 'while you were away');
  for (const text of missed) {
    await ann.send(conversation, text);
  }
  await bob.listen();
  assert.deepEqual(await bob.texts(conversation, 31), ['hello beta', ...missed]);
  await bob.stopListening();
  await bob.listen();
  await ann.send(conversation, 'only new');
  const texts = await bob.texts(conversation, 32);
  assert.deepEqual(texts, ['hello beta', ...missed, 'only new'], 'nothing acknowledged comes again');
  assert.deepEqual([...ann.undecryptable(), ...bob.undecryptable()], []);
});

test('a client that acknowledges and one that does not write to each other', OPTIONS, async t => {
  const [ann] = await people(t, federation, [['Ann', 'alpha.test']], { legacy: false });
  const [bob] = await people(t, federation, [['Bob', 'beta.test']]);
  const { conversation } = await bob.connectWith(ann);
  await bob.send(conversation, 'to the new');
  assert.deepEqual(await ann.texts(conversation, 1), ['to the new']);
  await ann.send(conversation, 'to the old');
  assert.deepEqual(await bob.texts(conversation, 1), ['to the old']);
});
