// A local federation, a browser, and people who use the web client in it.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { chromium } from 'playwright-core';

import { Federation } from '../../client/src/federation.js';

export const ALPHA = 'alpha.test';
export const BETA = 'beta.test';
/** Only a failing test waits as long. */
export const PATIENCE = Number(process.env.PATIENCE ?? 60_000);
export const PHONE = { width: 375, height: 740 };
export const DESKTOP = { width: 1180, height: 760 };
const PASSWORD = 'a long password for tests';
const VERSION = 'v13';

const run = promisify(execFile);

let made = 0;

export class World {
  #browser;
  #restarted = [];

  /** Starts everything. Without `people`, which are those of the first minute, requests are not counted. */
  static async start({ people = false } = {}) {
    const world = new World();
    try {
      world.federation = await Federation.start({ people, throttle: people });
      world.#browser = await chromium.launch({
        executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
        // Whoever is root has no sandbox of its own; the pages are ours.
        args: process.getuid() === 0 ? ['--no-sandbox'] : [],
      });
      return world;
    } catch (error) {
      await world.stop();
      throw error;
    }
  }

  async stop() {
    await this.#browser?.close();
    for (const child of this.#restarted) {
      child.kill('SIGKILL');
    }
    await this.federation?.stop();
  }

  backend(domain) {
    return this.federation.backends.get(domain);
  }

  /** Runs the program with the configuration of a backend. */
  async administer(domain, ...words) {
    const { stdout } = await run(process.env.ALDIS_BIN, [...words, '--config', this.backend(domain).config]);
    return stdout;
  }

  kill(domain) {
    process.kill(this.backend(domain).pid, 'SIGKILL');
  }

  /** Starts a killed backend again. */
  revive(domain) {
    const { command } = this.backend(domain);
    this.#restarted.push(spawn(command[0], command.slice(1), { stdio: 'ignore' }));
  }

  /** Somebody with an account, made by an administrator. */
  async person(name, domain) {
    made += 1;
    const handle = `${name.toLowerCase()}${made}`;
    const email = `${handle}@example.com`;
    const words = ['user', 'create', '--email', email, '--password', PASSWORD, '--name', name, '--handle', handle];
    const { id } = JSON.parse(await this.administer(domain, ...words));
    return { name, handle, email, password: PASSWORD, domain, id, key: `${id}@${domain}` };
  }

  async #ask(person, method, path, body) {
    const headers = { 'Content-Type': 'application/json' };
    if (person.token) {
      headers.Authorization = `Bearer ${person.token}`;
    }
    const address = `${this.backend(person.domain).api}/${VERSION}${path}`;
    const answer = await fetch(address, { method, headers, body: body && JSON.stringify(body) });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
    return answer.json().catch(() => undefined);
  }

  /** Asks the client API on behalf of somebody, beside their browser. */
  async ask(person, method, path, body) {
    person.token ??= (await this.#ask(person, 'POST', '/login', { email: person.email, password: person.password })).access_token;
    return this.#ask(person, method, path, body);
  }

  async connect(one, other) {
    await this.ask(one, 'POST', `/connections/${other.domain}/${other.id}`);
    await this.ask(other, 'PUT', `/connections/${one.domain}/${one.id}`, { status: 'accepted' });
  }

  async group(name, owner, ...others) {
    const group = {
      name,
      qualified_users: others.map(({ id, domain }) => ({ id, domain })),
      conversation_role: 'wire_member',
      access: ['invite'],
      access_role: ['team_member', 'non_team_member', 'guest', 'service'],
      receipt_mode: 1,
      protocol: 'proteus',
    };
    await this.ask(owner, 'POST', '/conversations', group);
  }

  /** Ann at alpha and Ben at beta, connected and in a group that alpha keeps. */
  async pair(name) {
    const [ann, ben] = await Promise.all([this.person('Ann', ALPHA), this.person('Ben', BETA)]);
    await this.connect(ann, ben);
    await this.group(name, ann, ben);
    return { ann, ben };
  }

  /** A browser of its own, so to say: cookies, storage and windows. */
  context(options = {}) {
    return this.#browser.newContext({ viewport: DESKTOP, ...options });
  }

  /** A window with the web client of a backend. `expected`: statuses that the backend may well answer. */
  async window(domain, { context, expected = [], ...options } = {}) {
    const own = context ?? (await this.context(options));
    const window = new Window(await own.newPage(), this.backend(domain).app, expected);
    await window.open();
    return window;
  }

  /** A window in which somebody is logged in. */
  async at(person, options) {
    const window = await this.window(person.domain, options);
    await window.logIn(person);
    return window;
  }
}

/** A window with the web client, and all that it asked for and complained about. */
export class Window {
  #requests = [];
  #complaints = [];
  loads = 0;

  constructor(page, address, expected) {
    this.page = page;
    this.address = address;
    page.setDefaultTimeout(PATIENCE);
    page.on('load', () => this.loads++);
    page.on('request', request => this.#requests.push(request.url()));
    page.on('websocket', socket => this.#requests.push(socket.url()));
    page.on('pageerror', error => this.#complaints.push(`${error.stack ?? error}`));
    page.on('console', message => {
      const text = message.text();
      // The browser tells of every answer that is no success; which of them the backend may give, a test knows.
      const status = Number(/the server responded with a status of (\d+)/.exec(text)?.[1]);
      const away = expected.includes('away') && /ERR_CONNECTION_|ERR_EMPTY_RESPONSE|WebSocket connection to/.test(text);
      if (['error', 'warning'].includes(message.type()) && !expected.includes(status) && !away) {
        this.#complaints.push(text);
      }
    });
  }

  async open() {
    await this.page.addInitScript(() => {
      addEventListener('securitypolicyviolation', event => {
        console.error(`refused by the policy: ${event.violatedDirective} ${event.blockedURI}`);
      });
    });
    const response = await this.page.goto(this.address);
    assert.equal(response.status(), 200);
  }

  /** That nothing went wrong unseen, and that nobody else was asked for anything. */
  async assertCalm() {
    assert.deepEqual(this.#complaints, []);
    const { host } = new URL(this.address);
    const own = url => ['blob:', 'data:'].some(scheme => url.startsWith(scheme)) || new URL(url).host === host;
    assert.deepEqual(this.#requests.filter(url => !own(url)), []);
  }

  async close() {
    await this.assertCalm();
    await this.page.context().close();
  }

  id(testId) {
    return this.page.getByTestId(testId);
  }

  /** An element by its test id and attributes: `find('delivery', { domain: 'beta.test', state: ['held', 'waiting'] })`. */
  find(testId, data = {}, within = this.page) {
    const tests = Object.entries(data).map(([name, value]) => {
      const values = [value].flat().map(one => `[data-${name}=${JSON.stringify(String(one))}]`);
      return `:is(${values.join(',')})`;
    });
    return within.locator(`[data-testid="${testId}"]${tests.join('')}`);
  }

  async sees(testId, data, within) {
    await this.find(testId, data, within).first().waitFor({ timeout: PATIENCE });
  }

  async logIn({ email, password }) {
    await this.id('login-user').fill(email);
    await this.id('login-password').fill(password);
    await this.id('login-submit').click();
    await this.online();
  }

  async online() {
    await this.sees('app', { link: 'online' });
  }

  async openConversation(name) {
    await this.find('conversation', { name }).click();
    await this.id('composer-text').waitFor();
  }

  async write(text) {
    await this.id('composer-text').fill(text);
    await this.id('composer-text').press('Enter');
    return this.message(text);
  }

  /** The message with this text. */
  message(text) {
    const shown = this.page.locator('[data-testid="message-text"]', { hasText: text });
    return this.page.locator('[data-testid="message"]', { has: shown }).last();
  }

  async reads(text) {
    await this.message(text).waitFor({ timeout: PATIENCE });
    return this.message(text);
  }

  /** Chooses something in the menu of a message. */
  async act(message, testId, data) {
    await message.hover();
    await this.find('message-actions', {}, message).click();
    await this.find(testId, data, message).click();
  }

  /** Waits until the backend of a domain is said to have done this with an own message. */
  async delivered(message, domain, state) {
    await this.sees('delivery', { domain, state }, message);
  }

  async sendFile(name, mimeType, buffer) {
    await this.id('composer-file').setInputFiles({ name, mimeType, buffer });
  }

  async shoot(name) {
    const folder = process.env.SCREENSHOTS;
    if (folder) {
      await mkdir(folder, { recursive: true });
      await this.page.screenshot({ path: join(folder, `${name}.png`), animations: 'disabled', caret: 'hide' });
    }
  }
}
