// Unmodified Wire clients on two backends.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Federation } from '../src/federation.js';
import { isEvent, people } from '../src/people.js';

const ALPHA = 'alpha.test';
const BETA = 'beta.test';
const OPTIONS = { timeout: 240_000 };
const SENT = 'OUTGOING_SENT';

let federation;

before(async () => {
  federation = await Federation.start();
}, OPTIONS);

after(() => federation?.stop(), OPTIONS);

const numbered = (count, text) => Array.from({ length: count }, (_, index) => `${text} ${index + 1}`);

test('a person registers with the mailed code, gets a client and logs in again', OPTIONS, async t => {
  const [ann] = await people(t, federation, [['Ann', ALPHA]]);
  assert.equal(ann.id.domain, ALPHA);
  const { email, handle, password } = ann;
  assert.deepEqual(await ann.worker.call('self'), { id: ann.id, email, name: 'Ann', handle });
  assert.deepEqual((await ann.worker.call('clients')).map(({ id }) => id), [ann.client.id]);

  await ann.worker.call('logout');
  await assert.rejects(ann.worker.call('login', { email, password: `${password}x` }), /Authentication failed|credentials/i);
  assert.deepEqual((await ann.worker.call('login', { email, password })).id, ann.id);
  assert.deepEqual(await ann.worker.call('loadClient'), ann.client);
  await ann.listen();
});

test('people find each other by handle across backends', OPTIONS, async t => {
  const [ann, bob] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA]], { online: false });
  const found = await ann.worker.call('search', { query: bob.handle, domain: BETA });
  assert.deepEqual(found, [{ id: bob.id, name: 'Bob', handle: bob.handle }]);
  const { domain, handle } = ann;
  assert.deepEqual(await bob.worker.call('userByHandle', { domain, handle }), { id: ann.id, name: 'Ann', handle });
  assert.deepEqual(await ann.worker.call('search', { query: `${bob.handle}x`, domain: BETA }), []);
});

test('two people of one backend connect and write to each other', OPTIONS, async t => {
  const [ann, cem] = await people(t, federation, [['Ann', ALPHA], ['Cem', ALPHA]]);
  const { conversation } = await ann.connectWith(cem);
  await ann.send(conversation, 'hello Cem');
  assert.deepEqual(await cem.texts(conversation, 1), ['hello Cem']);
  await cem.send(conversation, 'hello Ann');
  assert.deepEqual(await ann.texts(conversation, 1), ['hello Ann']);
});

test('two people of two backends connect and write to each other', OPTIONS, async t => {
  const [ann, bob] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA]]);
  const { sent, accepted, conversation } = await ann.connectWith(bob);
  assert.deepEqual([sent.status, accepted.status], ['sent', 'accepted']);
  assert.deepEqual(sent.conversation, conversation, 'both sides must derive the same conversation');

  const { state, failedToSend } = await ann.send(conversation, 'hello beta');
  assert.deepEqual([state, failedToSend], [SENT, null]);
  assert.deepEqual(await bob.texts(conversation, 1), ['hello beta']);
  await bob.send(conversation, 'hello alpha');
  await bob.send(conversation, 'and again');
  assert.deepEqual(await ann.texts(conversation, 2), ['hello alpha', 'and again']);
  await ann.send(conversation, 'good bye');
  assert.deepEqual(await bob.texts(conversation, 2), ['hello beta', 'good bye']);
  assert.deepEqual([...ann.undecryptable(), ...bob.undecryptable()], []);
});

test('a message reaches devices that its sender did not know', OPTIONS, async t => {
  const [ann, bob] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA]]);
  const { conversation } = await ann.connectWith(bob);
  const known = { [BETA]: { [bob.id.id]: [bob.client.id] } };
  assert.deepEqual((await ann.send(conversation, 'one device', known)).mismatches, []);
  const phone = await bob.secondDevice(t);
  const desk = await ann.secondDevice(t);

  const { state, mismatches } = await ann.send(conversation, 'all devices', known);
  assert.equal(state, SENT);
  assert.deepEqual(mismatches[0].missing, {
    [ALPHA]: { [ann.id.id]: [desk.client.id] },
    [BETA]: { [bob.id.id]: [phone.client.id] },
  });
  assert.deepEqual(await bob.texts(conversation, 2), ['one device', 'all devices']);
  assert.deepEqual(await phone.texts(conversation, 1), ['all devices']);
  assert.deepEqual(await desk.texts(conversation, 1), ['all devices']);

  await bob.worker.call('removeClient', { client: phone.client.id, password: bob.password });
  const stale = { [ALPHA]: { [ann.id.id]: [desk.client.id] }, [BETA]: { [bob.id.id]: [bob.client.id, phone.client.id] } };
  const later = await ann.send(conversation, 'without the phone', stale);
  assert.deepEqual(later.mismatches[0].deleted, { [BETA]: { [bob.id.id]: [phone.client.id] } });
  assert.equal((await bob.texts(conversation, 3)).at(-1), 'without the phone');
});

test('three people of two backends write in a group', OPTIONS, async t => {
  const [ann, bob, cem] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA], ['Cem', ALPHA]]);
  await ann.connectWith(bob);
  await ann.connectWith(cem);
  const { id: group, failedToAdd } = await ann.worker.call('createGroup', { name: 'Signals', users: [bob.id, cem.id] });
  assert.deepEqual(failedToAdd, []);
  assert.equal(group.domain, ALPHA);
  for (const person of [bob, cem]) {
    await person.worker.event(isEvent('conversation.create', group));
    const { name, others } = await person.worker.call('conversation', { conversation: group });
    assert.equal(name, 'Signals');
    assert.equal(others.length, 2);
  }
  const everyone = [ann, bob, cem];
  for (const [index, person] of everyone.entries()) {
    await person.send(group, `from ${person.name}`);
    for (const other of everyone.filter(other => other !== person)) {
      const before = everyone.slice(0, index + 1).filter(earlier => earlier !== other).length;
      assert.equal((await other.texts(group, before)).at(-1), `from ${person.name}`);
    }
  }
  assert.deepEqual(everyone.flatMap(person => person.undecryptable()), []);
});

test('a group changes on all backends', OPTIONS, async t => {
  const [ann, bob, dot] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA], ['Dot', BETA]]);
  await ann.connectWith(bob);
  await ann.connectWith(dot);
  const { id: group } = await ann.worker.call('createGroup', { name: 'Before', users: [bob.id] });
  await bob.worker.event(isEvent('conversation.create', group));

  await ann.worker.call('rename', { conversation: group, name: 'After' });
  const renamed = await bob.worker.event(isEvent('conversation.rename', group));
  assert.equal(renamed.data.name, 'After');

  await ann.worker.call('addToGroup', { conversation: group, users: [dot.id] });
  await bob.worker.event(isEvent('conversation.member-join', group));
  await dot.worker.event(isEvent('conversation.member-join', group));
  await dot.send(group, 'here I am');
  assert.deepEqual(await bob.texts(group, 1), ['here I am']);

  await bob.worker.call('leave', { conversation: group });
  await ann.worker.event(isEvent('conversation.member-leave', group));
  await dot.worker.event(isEvent('conversation.member-leave', group));
  const { others } = await ann.worker.call('conversation', { conversation: group });
  assert.deepEqual(others, [dot.id]);
});

test('fifty messages wait for a person who is offline, in order', OPTIONS, async t => {
  const [ann, bob] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA]]);
  const { conversation } = await ann.connectWith(bob);
  await ann.send(conversation, 'while online');
  await bob.texts(conversation, 1);
  await bob.stopListening();

  const texts = numbered(50, 'while offline');
  for (const text of texts) {
    await ann.send(conversation, text);
  }
  assert.equal((await bob.texts(conversation, 1)).length, 1, 'nothing comes without a socket');
  await bob.listen();
  assert.deepEqual(await bob.texts(conversation, 51), ['while online', ...texts]);

  await ann.send(conversation, 'online again');
  assert.equal((await bob.texts(conversation, 52)).at(-1), 'online again');
  assert.deepEqual(bob.undecryptable(), []);
  assert.equal(bob.worker.events.some(({ event }) => event === 'missed'), false);
});

test('a person who was logged out gets what came in between', OPTIONS, async t => {
  const [ann, bob] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA]]);
  const { conversation } = await ann.connectWith(bob);
  await bob.worker.call('logout');
  const texts = numbered(3, 'while logged out');
  for (const text of texts) {
    await ann.send(conversation, text);
  }
  const { email, password } = bob;
  await bob.worker.call('login', { email, password });
  assert.deepEqual(await bob.worker.call('loadClient'), bob.client);
  await bob.listen();
  assert.deepEqual(await bob.texts(conversation, 3), texts);
  await bob.send(conversation, 'back');
  assert.deepEqual(await ann.texts(conversation, 1), ['back']);
});
