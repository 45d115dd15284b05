// What rides on messages: sent by unmodified clients, in both directions between two backends, one to one and in groups,
// to receivers that are online and to those that are not.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Federation } from '../src/federation.js';
import { isEvent, people } from '../src/people.js';

const ALPHA = 'alpha.test';
const BETA = 'beta.test';
const OPTIONS = { timeout: 240_000 };

let federation;

before(async () => {
  federation = await Federation.start();
}, OPTIONS);

after(() => federation?.stop(), OPTIONS);

/**
 * What one person tells about a message of theirs and one of the other's: `[payload, what the other must read]` by name.
 * `mine` and `theirs` are ids of messages.
 */
function payloads({ me, other, mine, theirs, conversation }) {
  const mention = { start: 0, length: 4, qualifiedUserId: { id: other.id.id, domain: other.id.domain }, userId: other.id.id };
  const sha256 = Buffer.alloc(32, 7).toString('base64');
  const key = Buffer.alloc(32, 9).toString('base64');
  const call = JSON.stringify({ version: '3.0', type: 'SETUP', sessid: 'abcd', resp: false, props: { videosend: 'false' } });
  return {
    'a reaction': [
      { kind: 'reaction', messageId: theirs, emoji: '👍' },
      ({ reaction }) => assert.deepEqual([reaction.messageId, reaction.emoji], [theirs, '👍']),
    ],
    'a mention': [
      { kind: 'text', text: `@you look`, mentions: [mention] },
      ({ text }) => {
        assert.equal(text.content, '@you look');
        assert.deepEqual(text.mentions[0].qualifiedUserId, { id: other.id.id, domain: other.id.domain });
      },
    ],
    'a reply': [
      { kind: 'text', text: 'to that', quote: { quotedMessageId: theirs, quotedMessageSha256: new Array(32).fill(1) } },
      ({ text }) => assert.deepEqual([text.content, text.quote.quotedMessageId], ['to that', theirs]),
    ],
    'a delivery receipt': [
      { kind: 'confirmation', messageId: theirs, more: [], type: 0 },
      ({ confirmation }) => assert.deepEqual([confirmation.firstMessageId, confirmation.type], [theirs, 'DELIVERED']),
    ],
    'a read receipt': [
      { kind: 'confirmation', messageId: theirs, more: [], type: 1 },
      ({ confirmation }) => assert.deepEqual([confirmation.firstMessageId, confirmation.type], [theirs, 'READ']),
    ],
    'a ping': [{ kind: 'ping' }, ({ knock }) => assert.deepEqual(knock.hotKnock, false)],
    'an edit': [
      { kind: 'edit', messageId: mine, text: 'better said' },
      ({ edited }) => assert.deepEqual([edited.replacingMessageId, edited.text.content], [mine, 'better said']),
    ],
    'a delete': [{ kind: 'delete', messageId: mine }, ({ deleted }) => assert.equal(deleted.messageId, mine)],
    'an ephemeral text': [
      { kind: 'ephemeral', expireAfterMillis: 10_000, inner: 'text', text: 'soon gone' },
      ({ ephemeral }) => assert.deepEqual([ephemeral.text.content, ephemeral.expireAfterMillis], ['soon gone', 10_000]),
    ],
    'an asset': [
      {
        kind: 'asset',
        asset: { key: '3-1-00000000-0000-4000-8000-000000000000', token: 'dG9rZW4=', domain: me.id.domain, keyBytes: key, sha256 },
        metaData: { type: 'image/png', name: 'picture.png', length: 1234 },
      },
      ({ asset }) => {
        assert.deepEqual([asset.uploaded.assetDomain, asset.uploaded.otrKey], [me.id.domain, key]);
        assert.deepEqual([asset.original.name, asset.original.size], ['picture.png', 1234]);
      },
    ],
    'a location': [
      { kind: 'location', latitude: 52.5, longitude: 13.25, name: 'here' },
      ({ location }) => assert.deepEqual([location.latitude, location.longitude], [52.5, 13.25]),
    ],
    'a call': [
      { kind: 'calling', content: call, conversation: { id: conversation.id, domain: conversation.domain } },
      ({ calling }) => assert.equal(calling.content, call),
    ],
  };
}

/** One tells the others everything there is, about a text of theirs and one of the first other; all must read it. */
async function tellEverything(me, others, conversation) {
  const mine = await me.tell(conversation, { kind: 'text', text: `from ${me.name}`, expectsReadConfirmation: true });
  const theirs = await others[0].tell(conversation, { kind: 'text', text: `from ${others[0].name}` });
  await me.payload(conversation, theirs);
  const told = [];
  for (const [name, [payload, check]] of Object.entries(payloads({ me, other: others[0], mine, theirs, conversation }))) {
    told.push([name, await me.tell(conversation, payload), check]);
  }
  return { mine, told };
}

async function readEverything(others, conversation, { mine, told }) {
  for (const other of others) {
    const { text } = await other.payload(conversation, mine);
    assert.equal(text.expectsReadConfirmation, true);
    for (const [name, messageId, check] of told) {
      const content = await other.payload(conversation, messageId);
      assert.doesNotThrow(() => check(content), `${name} for ${other.name}: ${JSON.stringify(content)}`);
    }
    assert.deepEqual(other.undecryptable(), []);
  }
}

/** The ids of a conversation's messages in the order in which they came. */
const order = (person, ids) =>
  person.worker.events.filter(({ event, messageId }) => event === 'message' && ids.includes(messageId)).map(({ messageId }) => messageId);

test('everything rides on messages between two people of two backends', OPTIONS, async t => {
  const [ann, bob] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA]]);
  const { conversation } = await ann.connectWith(bob);
  for (const [me, other] of [[ann, bob], [bob, ann]]) {
    const all = await tellEverything(me, [other], conversation);
    await readEverything([other], conversation, all);
    const ids = all.told.map(([, id]) => id);
    assert.deepEqual(order(other, ids), ids, 'in the order in which they were sent');
  }
});

test('everything rides on messages in a group over two backends, whoever owns it', OPTIONS, async t => {
  const [ann, bob, bea] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA], ['Bea', BETA]]);
  await ann.connectWith(bob);
  await ann.connectWith(bea);
  const { id: conversation } = await ann.worker.call('createGroup', { name: 'All of it', users: [bob.id, bea.id] });
  await Promise.all([bob, bea].map(person => person.worker.event(isEvent('conversation.create', conversation))));
  await readEverything([bob, bea], conversation, await tellEverything(ann, [bob, bea], conversation));
  await bea.stopListening();
  const told = await tellEverything(bob, [ann, bea], conversation);
  await readEverything([ann], conversation, told);
  await bea.listen();
  await readEverything([bea], conversation, told);
});

test('everything waits for those who are offline', OPTIONS, async t => {
  const [ann, bob] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA]]);
  const { conversation } = await ann.connectWith(bob);
  const theirs = await bob.tell(conversation, { kind: 'text', text: 'before' });
  const mine = await ann.tell(conversation, { kind: 'text', text: 'mine', expectsReadConfirmation: true });
  await bob.payload(conversation, mine);
  await bob.stopListening();
  const told = [];
  for (const [name, [payload, check]] of Object.entries(payloads({ me: ann, other: bob, mine, theirs, conversation }))) {
    told.push([name, await ann.tell(conversation, payload), check]);
  }
  await bob.listen();
  await readEverything([bob], conversation, { mine, told });
  const ids = told.map(([, id]) => id);
  assert.deepEqual(order(bob, ids), ids);
});

test('the receipt mode of a group reaches members of both backends', OPTIONS, async t => {
  const [ann, bob] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA]]);
  await ann.connectWith(bob);
  const { id: conversation } = await ann.worker.call('createGroup', { name: 'Receipts', users: [bob.id] });
  await bob.worker.event(isEvent('conversation.create', conversation));
  await ann.worker.call('setReceiptMode', { conversation, receiptMode: 1 });
  const { data } = await bob.worker.event(isEvent('conversation.receipt-mode-update', conversation));
  assert.equal(data.receipt_mode, 1);
});

test('call signalling arrives in order at once, and does not mix with texts', OPTIONS, async t => {
  const [ann, bob] = await people(t, federation, [['Ann', ALPHA], ['Bob', BETA]]);
  const { conversation } = await ann.connectWith(bob);
  const sent = [];
  for (let step = 0; step < 20; step += 1) {
    const content = JSON.stringify({ version: '3.0', type: step === 0 ? 'SETUP' : 'UPDATE', sessid: 'ffee', resp: false, props: { step: `${step}` } });
    sent.push(await ann.tell(conversation, { kind: 'calling', content, conversation }));
  }
  for (const [step, messageId] of sent.entries()) {
    const { calling } = await bob.payload(conversation, messageId);
    assert.equal(JSON.parse(calling.content).props.step, `${step}`);
  }
  assert.deepEqual(order(bob, sent), sent);
});
