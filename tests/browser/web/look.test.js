// How the web client looks, for whom it can be used, and what it weighs.

import assert from 'node:assert/strict';
import { readdir, readFile, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';

import { ALPHA, BETA, PHONE, World } from './world.js';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const MOST_BYTES = 500 * 1024;
const LOOKS = [
  { name: 'light', colorScheme: 'light' },
  { name: 'dark', colorScheme: 'dark' },
  { name: 'phone', colorScheme: 'light', viewport: PHONE, deviceScaleFactor: 2 },
];

let world;

before(async () => {
  world = await World.start();
});

after(() => world?.stop());

/** Looks for what keeps people from using the page. */
async function assertAccessible(window, where) {
  await window.page.evaluate(AXE);
  const { violations } = await window.page.evaluate(() => window.axe.run({ preload: false, resultTypes: ['violations'] }));
  const serious = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  const told = serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join('\n    ')}`);
  assert.deepEqual(told, [], where);
}

async function assertFits(window, where) {
  const [wide, seen] = await window.page.evaluate(() => [
    document.documentElement.scrollWidth,
    document.documentElement.clientWidth,
  ]);
  assert.ok(wide <= seen, `${where}: ${wide} pixels wide, ${seen} seen`);
}

async function look(window, name) {
  await assertAccessible(window, name);
  await assertFits(window, name);
  await window.shoot(name);
}

/** A conversation worth a picture. */
async function conversation() {
  const { ann, ben } = await world.pair('Harbour');
  const cleo = await world.person('Cleo', ALPHA);
  await world.connect(ann, cleo);
  await world.group('Lighthouse keepers', ann, cleo, ben);
  const [a, b] = await Promise.all([world.at(ann), world.at(ben)]);
  await Promise.all([a.openConversation('Harbour'), b.openConversation('Harbour')]);
  await a.write('Good morning, Ben! Is the light on at your end?');
  await b.reads('Good morning');
  await b.act(b.message('Good morning'), 'react', { emoji: '❤️' });
  await b.write('It is. We see yours, too: https://example.com/lights');
  await b.write('The fog is lifting.');
  await a.reads('The fog');
  await a.delivered(await a.write('Then we sail at ten.') && a.message('Then we sail'), BETA, 'read');
  await b.close();
  return { ann, ben, a };
}

test('every view is light, dark, narrow, and for everybody', async () => {
  const { ann, a } = await conversation();
  await a.assertCalm();
  for (const { name, ...options } of LOOKS) {
    const entrance = await world.window(ALPHA, options);
    await entrance.id('login').waitFor();
    await look(entrance, `${name}-login`);
    await entrance.close();

    // The history is where it was written: in the first window.
    await a.page.emulateMedia({ colorScheme: options.colorScheme });
    await a.page.setViewportSize(options.viewport ?? { width: 1180, height: 760 });
    if (name === 'phone') {
      await a.id('back').click();
      await look(a, `${name}-list`);
      await a.openConversation('Harbour');
    }
    await look(a, `${name}-conversation`);
    await a.id('details-toggle').click();
    await a.sees('backend', { domain: BETA, state: 'reachable' });
    await look(a, `${name}-details`);
    await a.id('details-close').click();
    await a.act(a.message('Then we sail'), 'action-info');
    await a.id('delivery-info').waitFor();
    await look(a, `${name}-delivery`);
    await a.page.keyboard.press('Escape');
    if (name === 'phone') {
      await a.id('back').click();
    }
    await a.id('nav-settings').click();
    await a.id('settings').waitFor();
    await look(a, `${name}-settings`);
    await a.id('settings-close').click();
    await a.id('new-group').click();
    await look(a, `${name}-group`);
    await a.page.keyboard.press('Escape');
    await a.id('nav-people').click();
    await look(a, `${name}-people`);
    if (name === 'phone') {
      await a.id('back').click();
    }
    await a.openConversation('Harbour');
  }
  assert.equal((await world.ask(ann, 'GET', '/clients')).length, 1);
  await a.close();
});

test('the keyboard is enough to log in, choose a conversation, and write', async () => {
  const { ann } = await world.pair('Keys');
  const window = await world.window(ALPHA);
  const { keyboard } = window.page;
  await window.id('login-user').waitFor();
  await keyboard.type(ann.email);
  await keyboard.press('Tab');
  await keyboard.type(ann.password);
  await keyboard.press('Enter');
  await window.online();
  const focused = () => window.page.evaluate(() => document.activeElement?.dataset.name);
  for (let steps = 0; (await focused()) !== 'Keys'; steps++) {
    assert.ok(steps < 30, 'the conversation is not reached');
    await keyboard.press('Tab');
  }
  await keyboard.press('Enter');
  await window.id('composer-text').waitFor();
  await keyboard.type('Without a mouse');
  await keyboard.press('Enter');
  await window.reads('Without a mouse');
  await window.close();
});

test('it is small and kept by the browser', async t => {
  const window = await world.window(ALPHA);
  await window.id('login').waitFor();
  const paint = await window.page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
  t.diagnostic(`first contentful paint after ${Math.round(paint)} ms`);
  const app = world.backend(ALPHA).app;
  const page = await fetch(app);
  assert.equal(page.headers.get('cache-control'), 'no-cache');
  assert.match(page.headers.get('content-security-policy'), /default-src 'none'; script-src 'self' 'wasm-unsafe-eval'/);
  const built = new URL('../../../crates/web/app/dist/', import.meta.url);
  let bytes = 0;
  for (const entry of await readdir(built, { recursive: true, withFileTypes: true })) {
    const path = `${entry.parentPath ?? entry.path}/${entry.name}`;
    if (!entry.isFile() || path.endsWith('.gz') || path.endsWith('.wasm')) {
      continue;
    }
    const compressed = await stat(`${path}.gz`).catch(() => stat(path));
    bytes += compressed.size;
  }
  t.diagnostic(`${Math.round(bytes / 1024)} KiB without the WebAssembly`);
  assert.ok(bytes > 0 && bytes < MOST_BYTES, `${bytes} bytes`);
  for (const path of (await page.text()).match(/assets\/[\w.-]+/g)) {
    const file = await fetch(`${app}${path}`, { headers: { 'accept-encoding': 'gzip' } });
    assert.equal(file.headers.get('content-encoding'), 'gzip', path);
    assert.match(file.headers.get('cache-control'), /immutable/);
  }
  await window.close();
});
