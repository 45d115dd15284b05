// A local federation for the tests: starts `aldis local up` in a folder of its own and reads its ready file.

import { execFile, spawn } from 'node:child_process';
import { openSync, closeSync } from 'node:fs';
import { appendFile, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';

const START_TIMEOUT = 120_000;
const STOP_TIMEOUT = 30_000;
const MAIL_TIMEOUT = 30_000;
const POLL = 50;
/** Bytes of the log that are shown when the start fails. */
const LOG_BYTES = 4000;

/** Asks until the answer is not `undefined`. */
async function until(ask, timeout, what) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) {
      return answer;
    }
    if (Date.now() > deadline) {
      throw new Error(`${what} took more than ${timeout} ms`);
    }
    await pause(POLL);
  }
}

const isRunning = pid => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

const header = (mail, name) => mail.match(new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*\\r?$`, 'im'))?.[1];

export class Federation {
  #child;
  #folder;
  #log;

  /** The backends of the ready file, by domain. */
  backends = new Map();

  /** Who can log in already. */
  people = [];

  /**
   * Starts the binary that `ALDIS_BIN` names and waits until every backend is ready. `settings` are sections that are
   * added to every configuration. With `people`, the first ones are made, as for somebody who tries it out;
   * without `throttle`, requests are not counted.
   */
  static async start({ settings = '', people = false, throttle = true } = {}) {
    const binary = process.env.ALDIS_BIN;
    if (!binary) {
      throw new Error('ALDIS_BIN must name the aldis binary; `make test-client` sets it');
    }
    const federation = new Federation();
    try {
      await federation.#start(binary, { settings, people, throttle });
      return federation;
    } catch (error) {
      const log = await readFile(federation.#log, 'utf8').catch(() => '');
      await federation.stop();
      throw new Error(`the local federation did not start: ${error.message}\n${log.slice(-LOG_BYTES)}`);
    }
  }

  async #start(binary, { settings, people, throttle }) {
    this.#folder = await mkdtemp(join(tmpdir(), 'aldis-client-'));
    this.#log = join(this.#folder, 'up.log');
    const readyFile = join(this.#folder, 'ready.json');
    const local = join(this.#folder, 'local');
    await promisify(execFile)(binary, ['local', 'init', '--dir', local, '--base-port', '0', '--throttle', throttle ? 'on' : 'off']);
    for (const { name } of (await readdir(local, { withFileTypes: true })).filter(entry => entry.name.includes('.test'))) {
      await appendFile(join(local, name, 'aldis.toml'), `\n${settings}\n`);
    }
    const output = openSync(this.#log, 'a');
    const args = ['local', 'up', '--dir', local, '--ready-file', readyFile, ...(people ? [] : ['--no-people'])];
    this.#child = spawn(binary, args, { stdio: ['ignore', output, output] });
    closeSync(output);
    let ended;
    this.#child.once('error', error => (ended = error.message));
    this.#child.once('exit', (code, signal) => (ended = `it ended with ${code ?? signal}`));
    const ready = await until(
      async () => {
        if (ended) {
          throw new Error(ended);
        }
        const text = await readFile(readyFile, 'utf8').catch(() => undefined);
        return text && JSON.parse(text);
      },
      START_TIMEOUT,
      'starting',
    );
    this.pids = [ready.dns?.pid, ...ready.backends.map(({ pid }) => pid)].filter(Boolean);
    this.people = ready.people ?? [];
    for (const backend of ready.backends) {
      this.backends.set(backend.domain, backend);
    }
  }

  /** The newest activation code that was mailed to an address. */
  activationCode(domain, email) {
    const folder = this.backends.get(domain).mail_dir;
    const look = async () => {
      const names = (await readdir(folder)).filter(name => name.endsWith('.eml')).sort().reverse();
      for (const name of names) {
        const mail = await readFile(join(folder, name), 'utf8');
        if (header(mail, 'To')?.includes(email) && header(mail, 'X-Zeta-Code')) {
          return header(mail, 'X-Zeta-Code');
        }
      }
      return undefined;
    };
    return until(look, MAIL_TIMEOUT, 'the mail with the activation code');
  }

  /** Stops what was started, by process id, and removes the folder. */
  async stop() {
    if (this.#child?.pid && this.#child.exitCode === null && this.#child.signalCode === null) {
      const exited = new Promise(resolve => this.#child.once('exit', resolve));
      this.#child.kill('SIGTERM');
      const hard = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT);
      await exited;
      clearTimeout(hard);
    }
    const left = (this.pids ?? []).filter(isRunning);
    left.forEach(pid => process.kill(pid, 'SIGKILL'));
    if (this.#folder) {
      await rm(this.#folder, { recursive: true, force: true });
    }
    if (left.length > 0) {
      throw new Error(`aldis local up left ${left.length} processes behind`);
    }
  }
}
