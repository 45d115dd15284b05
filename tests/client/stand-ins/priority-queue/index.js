'use strict';

const Priority = { HIGH: 9, MEDIUM: 5, LOW: 1 };
const GROWTH = 1.3;

const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

/** Runs asynchronous tasks one after the other, the highest priority first, and again after a growing pause if they fail. */
class PriorityQueue {
  #config;
  #waiting = [];
  #running = false;

  constructor(config = {}) {
    this.#config = { maxRetries: Infinity, retryDelay: 1000, maxRetryDelay: Infinity, shouldRetry: () => true, ...config };
  }

  /** Settles as the task does at its last try. */
  add(task, priority = Priority.MEDIUM, label = '') {
    return new Promise((resolve, reject) => {
      const after = this.#waiting.findIndex(other => other.priority < priority);
      const entry = { task, priority, label, resolve, reject };
      this.#waiting.splice(after === -1 ? this.#waiting.length : after, 0, entry);
      this.#run();
    });
  }

  deleteAll() {
    this.#waiting.length = 0;
  }

  get size() {
    return this.#waiting.length;
  }

  async #run() {
    if (this.#running) {
      return;
    }
    this.#running = true;
    while (this.#waiting.length > 0) {
      const { task, resolve, reject } = this.#waiting.shift();
      await this.#try(task).then(resolve, reject);
    }
    this.#running = false;
  }

  async #try(task) {
    const { maxRetries, retryDelay, maxRetryDelay, shouldRetry } = this.#config;
    let delay = retryDelay;
    for (let retries = 0; ; retries += 1) {
      try {
        return await task();
      } catch (error) {
        if (retries >= maxRetries || !shouldRetry(error)) {
          throw error;
        }
        await pause(delay);
        delay = Math.min(delay * GROWTH, maxRetryDelay);
      }
    }
  }
}

module.exports = { Priority, PriorityQueue };
