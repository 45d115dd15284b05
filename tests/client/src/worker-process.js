// The tests' side of a worker: starts it, asks it, waits for what it tells.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const WORKER = fileURLToPath(new URL('./worker.js', import.meta.url));
const START_TIMEOUT = 60_000;
/** Longest wait for a command, retries of refused requests included. */
export const COMMAND_TIMEOUT = 60_000;
/** Longest wait for an event. */
export const EVENT_TIMEOUT = 60_000;
const STOP_TIMEOUT = 5_000;
/** Lines of a worker's log that are shown when it fails. */
const LOG_LINES = 40;

/** What a command failed with, as the client library reported it. */
export class CommandError extends Error {
  constructor(command, { name, message, status, label, data }) {
    super(`${command}: ${message} (${name}, status ${status}, label ${label})`);
    Object.assign(this, { command, status, label, data });
  }
}

const within = (promise, milliseconds, what) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what()} took more than ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

export class WorkerProcess {
  #child;
  #exited;
  #log = [];
  #commands = new Map();
  #nextId = 1;
  #watchers = new Set();

  /** Everything that the worker told, in order. */
  events = [];

  /** Starts a worker and waits until the libraries are loaded. */
  static async start() {
    const worker = new WorkerProcess();
    try {
      await worker.event(({ event }) => event === 'ready', START_TIMEOUT);
      return worker;
    } catch (error) {
      await worker.stop();
      throw error;
    }
  }

  constructor() {
    this.#child = spawn(process.execPath, [WORKER], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#exited = new Promise(resolve => this.#child.once('exit', resolve));
    this.#exited.then(code => this.#fail(new Error(`the worker ended with ${code}${this.#tail()}`)));
    this.#child.stdin.on('error', () => {});
    createInterface({ input: this.#child.stdout }).on('line', line => this.#hear(JSON.parse(line)));
    createInterface({ input: this.#child.stderr }).on('line', line => {
      this.#log.push(line);
      this.#log.splice(0, this.#log.length - LOG_LINES);
    });
  }

  #tail() {
    return this.#log.length > 0 ? `; its log ends with:\n${this.#log.join('\n')}` : '';
  }

  #hear(message) {
    if (message.event) {
      this.events.push(message);
      this.#watchers.forEach(watcher => watcher.look());
      return;
    }
    const { command, resolve, reject } = this.#commands.get(message.id);
    this.#commands.delete(message.id);
    if (message.error) {
      reject(new CommandError(command, message.error));
    } else {
      resolve(message.result);
    }
  }

  #fail(error) {
    this.#commands.forEach(({ reject }) => reject(error));
    this.#commands.clear();
    this.#watchers.forEach(watcher => watcher.reject(error));
  }

  /** Runs a command of `Person`. */
  call(command, args = {}, timeout = COMMAND_TIMEOUT) {
    const id = this.#nextId++;
    const answered = new Promise((resolve, reject) => this.#commands.set(id, { command, resolve, reject }));
    this.#child.stdin.write(`${JSON.stringify({ id, command, args })}\n`);
    return within(answered, timeout, () => `${command}${this.#tail()}\n${command}`);
  }

  /** Waits until `count` events that match were told, since the start or since the event with index `from`. */
  async eventsThat(matches, count, { timeout = EVENT_TIMEOUT, from = 0 } = {}) {
    const found = () => this.events.slice(from).filter(matches);
    const watcher = {};
    const enough = new Promise((resolve, reject) => {
      watcher.look = () => found().length >= count && resolve();
      watcher.reject = reject;
    });
    this.#watchers.add(watcher);
    watcher.look();
    try {
      const told = () => this.events.map(({ event, type, text }) => type ?? text ?? event).join(', ');
      await within(enough, timeout, () => `waiting for ${count} events (${found().length} came; told: ${told()})`);
    } finally {
      this.#watchers.delete(watcher);
    }
    return found();
  }

  /** Waits for the first event that matches. */
  async event(matches, timeout = EVENT_TIMEOUT) {
    const [first] = await this.eventsThat(matches, 1, { timeout });
    return first;
  }

  /** Ends the process, gently if it lets itself. */
  async stop() {
    this.#child.stdin.end();
    const gently = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT);
    await this.#exited;
    clearTimeout(gently);
  }
}
