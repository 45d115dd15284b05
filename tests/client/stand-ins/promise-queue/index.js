'use strict';

const ERROR_CAUSES = { TIMEOUT: 'TIMEOUT', FLUSHED: 'FLUSHED' };

/** Runs asynchronous tasks one after the other, in the order in which they came, unless paused. */
class PromiseQueue {
  static ERROR_CAUSES = ERROR_CAUSES;

  #waiting = [];
  #running = 0;
  #paused;
  #concurrent;
  #timeout;

  constructor({ paused = false, concurrent = 1, timeout } = {}) {
    this.#paused = paused;
    this.#concurrent = concurrent;
    this.#timeout = timeout;
  }

  /** Settles as the task does. Rejected with the cause `FLUSHED` when the queue is flushed before the task began. */
  push(task) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ task, resolve, reject });
      this.#next();
    });
  }

  pause(paused = true) {
    this.#paused = paused;
    if (!paused) {
      this.#next();
    }
    return this;
  }

  resume() {
    return this.pause(false);
  }

  flush() {
    for (const { reject } of this.#waiting.splice(0)) {
      reject(new Error('the queue was flushed', { cause: ERROR_CAUSES.FLUSHED }));
    }
  }

  getLength() {
    return this.#waiting.length + this.#running;
  }

  hasRunningTasks() {
    return this.#running > 0;
  }

  #next() {
    while (!this.#paused && this.#running < this.#concurrent && this.#waiting.length > 0) {
      this.#run(this.#waiting.shift());
    }
  }

  async #run({ task, resolve, reject }) {
    this.#running += 1;
    let timer;
    try {
      const expired = new Promise((_, expire) => {
        if (this.#timeout !== undefined) {
          const error = new Error('a task of the queue took too long', { cause: ERROR_CAUSES.TIMEOUT });
          timer = setTimeout(() => expire(error), this.#timeout);
        }
      });
      resolve(await Promise.race([task(), expired]));
    } catch (error) {
      reject(error);
    } finally {
      clearTimeout(timer);
      this.#running -= 1;
      this.#next();
    }
  }
}

module.exports = { PromiseQueue };
