// Messages of every kind, in both directions, between two backends.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';

import { World } from './world.js';

const FILE_BYTES = 20 * 1024 * 1024;
const digest = bytes => createHash('sha256').update(bytes).digest('hex');

let world;

before(async () => {
  world = await World.start();
});

after(() => world?.stop());

/** Ann and Ben, each with a window in which their group is open. */
async function twoWindows(name, options) {
  const { ann, ben } = await world.pair(name);
  const [a, b] = await Promise.all([world.at(ann, options), world.at(ben, options)]);
  await Promise.all([a.openConversation(name), b.openConversation(name)]);
  return { ann, ben, a, b };
}

/** Everything that one can do with messages, seen by the other. */
async function talk(from, sender, to, receiver) {
  await from.id('composer-text').pressSequentially(`From ${sender.name}`);
  await to.sees('typing');
  await from.id('composer-send').click();
  const text = from.message(`From ${sender.name}`);
  const arrived = await to.reads(`From ${sender.name}`);
  assert.equal(await arrived.getAttribute('data-from'), sender.key);
  await to.sees('domain-badge', { domain: sender.domain }, arrived);
  await from.delivered(text, receiver.domain, 'read');

  await to.act(arrived, 'action-reply');
  await to.write(`Answer of ${receiver.name}`);
  const answer = await from.reads(`Answer of ${receiver.name}`);
  assert.match(await from.find('message-quote', {}, answer).textContent(), new RegExp(`From ${sender.name}`));

  await from.id('composer-text').pressSequentially(`Look, @${receiver.name.slice(0, 2)}`);
  await from.sees('mention-option', { key: receiver.key });
  await from.id('composer-text').press('Enter');
  await from.id('composer-text').pressSequentially(`at this of ${sender.handle}`);
  await from.id('composer-text').press('Enter');
  const mention = await to.reads(`at this of ${sender.handle}`);
  assert.equal(await to.find('message-mention', {}, mention).textContent(), `@${receiver.name}`);

  await to.act(mention, 'react', { emoji: '👍' });
  const mentioned = from.message(`at this of ${sender.handle}`);
  await from.sees('reaction', { emoji: '👍', count: 1, own: false }, mentioned);
  await from.find('reaction', { emoji: '👍' }, mentioned).click();
  await to.sees('reaction', { emoji: '👍', count: 2, own: true }, mention);
  await to.find('reaction', { emoji: '👍' }, mention).click();
  await from.sees('reaction', { emoji: '👍', count: 1, own: true }, mentioned);

  await from.id('composer-ping').click();
  await to.sees('message', { kind: 'ping', from: sender.key });

  await from.write(`Wrong of ${sender.name}`);
  await to.reads(`Wrong of ${sender.name}`);
  await from.act(from.message(`Wrong of ${sender.name}`), 'action-edit');
  await from.write(`Right of ${sender.name}`);
  const right = await to.reads(`Right of ${sender.name}`);
  await to.sees('message-edited', {}, right);
  assert.equal(await to.message(`Wrong of ${sender.name}`).count(), 0);
  await from.act(await from.reads(`Right of ${sender.name}`), 'action-delete');
  await from.id('confirm-yes').click();
  await to.sees('message', { kind: 'deleted', from: sender.key });
  assert.equal(await to.message(`Right of ${sender.name}`).count(), 0);
}

test('every kind of message goes both ways', async () => {
  const { ann, ben, a, b } = await twoWindows('Both ways');
  await talk(a, ann, b, ben);
  await talk(b, ben, a, ann);

  await a.id('search-toggle').click();
  await a.id('search').fill('answer');
  await a.reads('Answer of Ben');
  assert.equal(await a.message('From Ann').count(), 0);
  await Promise.all([a.close(), b.close()]);
});

test('pictures are shown and a file of 20 MiB arrives whole', async () => {
  const { a, b } = await twoWindows('Files');
  await a.sendFile('view.png', 'image/png', await a.page.screenshot());
  await b.id('message-image').waitFor();
  assert.ok(await b.id('message-image').evaluate(async image => image.decode().then(() => image.naturalWidth > 0)));

  const content = randomBytes(FILE_BYTES);
  await b.sendFile('large.bin', 'application/octet-stream', content);
  await b.sees('file-progress');
  await a.id('file-download').waitFor();
  const [download] = await Promise.all([a.page.waitForEvent('download'), a.id('file-download').click()]);
  assert.equal(download.suggestedFilename(), 'large.bin');
  assert.equal(digest(await readFile(await download.path())), digest(content));
  await Promise.all([a.close(), b.close()]);
});

test('what was written meanwhile is there after a reload, once, and counted', async () => {
  const { ben, a, b } = await twoWindows('Meanwhile');
  await a.write('before');
  await b.reads('before');
  await b.page.goto('about:blank');
  for (const text of ['one', 'two', 'three']) {
    const message = await a.write(`while away: ${text}`);
    await a.sees('message', { state: 'sent' });
    await message.waitFor();
  }
  await b.open();
  await b.online();
  await b.sees('conversation', { name: 'Meanwhile', unread: 3 });
  await b.openConversation('Meanwhile');
  await b.reads('while away: three');
  for (const text of ['before', 'while away: one', 'while away: two', 'while away: three']) {
    assert.equal(await b.page.locator('[data-testid="message-text"]', { hasText: text }).count(), 1, text);
  }
  await a.delivered(a.message('while away: three'), ben.domain, 'read');
  await b.sees('conversation', { name: 'Meanwhile', unread: 0 });
  await Promise.all([a.close(), b.close()]);
});

test('several tabs are one device', async () => {
  const { ann, ben, a, b } = await twoWindows('Tabs');
  const tab = await world.window(ann.domain, { context: a.page.context() });
  await tab.online();
  await tab.openConversation('Tabs');
  await b.write('to all tabs');
  await Promise.all([a.reads('to all tabs'), tab.reads('to all tabs')]);
  await tab.write('from the second tab');
  await Promise.all([a.reads('from the second tab'), b.reads('from the second tab')]);
  // The other goes on when the one that was connected closes.
  await a.assertCalm();
  await a.page.close();
  await b.write('to the tab that is left');
  await tab.reads('to the tab that is left');
  await b.delivered(await tab.write('still here') && b.message('to the tab that is left'), ann.domain, 'read');
  await b.reads('still here');
  const { length } = await world.ask(ann, 'GET', '/clients');
  assert.equal(length, 1);
  assert.equal((await world.ask(ben, 'GET', '/clients')).length, 1);
  await Promise.all([tab.close(), b.close()]);
});
