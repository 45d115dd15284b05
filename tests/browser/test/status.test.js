// The operator's status page of a real backend, in a real browser: the machine's Chromium, without a window.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, test } from 'node:test';

import { chromium } from 'playwright-core';

import { Federation } from '../../client/src/federation.js';

const ALPHA = 'alpha.test';
const BETA = 'beta.test';
const PATIENCE = 60_000;
const PHONE = { width: 360, height: 740 };

let federation;
let browser;
let restarted;

before(async () => {
  federation = await Federation.start();
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // Whoever is root has no sandbox of its own; the page is ours.
    args: process.getuid() === 0 ? ['--no-sandbox'] : [],
  });
});

after(async () => {
  await browser?.close();
  restarted?.kill('SIGKILL');
  await federation?.stop();
});

/** The page of a backend, with everything that it asked for and complained about. */
async function open(options = {}) {
  const operations = federation.backends.get(ALPHA).operations;
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const [requests, complaints] = [[], []];
  page.on('request', request => requests.push(request.url()));
  page.on('console', message => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
  page.on('pageerror', error => complaints.push(error.message));
  await page.goto(`${operations}/status`);
  await page.locator(`tr[data-domain="${BETA}"]`).waitFor({ timeout: PATIENCE });
  return { context, page, requests, complaints, operations };
}

const reached = (page, word) =>
  page.locator(`tr[data-domain="${BETA}"] [data-reach="${word}"]`).waitFor({ timeout: PATIENCE });

test('shows this backend and its certificate', async () => {
  const { context, page } = await open();
  assert.equal(await page.locator('h1').textContent(), ALPHA);
  const own = await page.locator('#own').textContent();
  assert.match(own, /ready/);
  assert.match(own, /federator\.alpha\.test, issued by/);
  assert.match(own, /days left/);
  await context.close();
});

test('shows without a reload that a backend dies and comes back', async () => {
  const { context, page, complaints } = await open();
  let loads = 0;
  page.on('load', () => loads++);
  const { pid, command } = federation.backends.get(BETA);
  await reached(page, 'reachable');
  assert.match(await page.locator(`tr[data-domain="${BETA}"]`).textContent(), /ms/);

  process.kill(pid, 'SIGKILL');
  await reached(page, 'unreachable');
  const line = await page.locator(`tr[data-domain="${BETA}"]`).textContent();
  assert.match(line, /federation-connection-refused/);

  restarted = spawn(command[0], command.slice(1), { stdio: 'ignore' });
  await reached(page, 'reachable');
  assert.equal(loads, 0);
  assert.deepEqual(complaints, []);
  await context.close();
});

test('can be read on a phone, light and dark, and asks nobody else', async () => {
  for (const colorScheme of ['light', 'dark']) {
    const { context, page, requests, complaints, operations } = await open({ viewport: PHONE, colorScheme });
    const { wide, seen } = await page.evaluate(() => ({
      wide: document.documentElement.scrollWidth,
      seen: document.documentElement.clientWidth,
    }));
    assert.ok(wide <= seen, `${wide} pixels wide, ${seen} seen`);
    const colors = await page.evaluate(() => {
      const style = getComputedStyle(document.body);
      return [style.color, style.backgroundColor].map(color => Number(color.match(/\d+/)[0]));
    });
    assert.equal(colors[0] > colors[1], colorScheme === 'dark');
    assert.deepEqual(complaints, []);
    assert.deepEqual(requests.filter(url => !url.startsWith(`${operations}/`)), []);
    await context.close();
  }
});

test('runs nothing but its own files', async () => {
  const { context, page } = await open();
  const answer = await page.request.get(page.url());
  const policy = answer.headers()['content-security-policy'];
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe|https?:|\*/);
  const blocked = await page.evaluate(async () => {
    const script = document.createElement('script');
    script.textContent = 'window.intruder = true';
    document.body.append(script);
    return window.intruder === undefined;
  });
  assert.ok(blocked);
  await context.close();
});

test('says so when the backend no longer answers', async () => {
  const { context, page } = await open();
  await context.setOffline(true);
  await page.locator('#heard.bad').waitFor({ timeout: PATIENCE });
  await context.setOffline(false);
  await page.locator('#heard:not(.bad)').waitFor({ timeout: PATIENCE });
  await context.close();
});
