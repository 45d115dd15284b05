import type { Action, State } from './state';

type Packet =
  | { kind: 'hello' }
  | { kind: 'snapshot'; state: State }
  | { kind: 'actions'; actions: Action[] }
  | { kind: 'call'; id: string; command: string; args: unknown[] }
  | { kind: 'answer'; id: string; value?: unknown; error?: unknown };

const LOCK = 'aldis-leader';
const CHANNEL = 'aldis';
/** A leader that says nothing for so long is gone, or busy beyond use. */
const ANSWER_MS = 120_000;

export interface Leader {
  state(): State;
  run(command: string, args: unknown[]): Promise<unknown>;
}

/** Makes one tab of the browser lead: it alone holds the socket and the keys. The others show what it tells them. */
export class Tabs {
  readonly #channel = new BroadcastChannel(CHANNEL);
  readonly #waiting = new Map<string, { resolve: (value: unknown) => void; reject: (error: unknown) => void }>();
  #leader?: Leader;
  #pending: Action[] = [];

  constructor(
    private readonly onSnapshot: (state: State) => void,
    private readonly onActions: (actions: Action[]) => void,
    private readonly toError: (error: unknown) => unknown,
  ) {
    this.#channel.onmessage = ({ data }) => this.#receive(data as Packet);
  }

  /** Resolves once this tab leads, which may be at once or when the others are closed. */
  lead(become: () => Promise<Leader>): void {
    const led = (): Promise<void> =>
      new Promise(() => {
        void become().then(leader => {
          this.#leader = leader;
          this.#post({ kind: 'snapshot', state: leader.state() });
          for (const waiting of this.#waiting.values()) waiting.reject(this.toError(undefined));
          this.#waiting.clear();
        });
      });
    void navigator.locks.request(LOCK, { ifAvailable: true }, lock => {
      if (lock) return led();
      this.#post({ kind: 'hello' });
      void navigator.locks.request(LOCK, led);
      return undefined;
    });
  }

  /** Tells the other tabs what happened, once per turn of the event loop. */
  broadcast(action: Action): void {
    if (this.#pending.length === 0) {
      queueMicrotask(() => {
        this.#post({ kind: 'actions', actions: this.#pending });
        this.#pending = [];
      });
    }
    this.#pending.push(action);
  }

  async call(command: string, args: unknown[]): Promise<unknown> {
    if (this.#leader) return this.#leader.run(command, args);
    const id = crypto.randomUUID();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#post({ kind: 'call', id, command, args });
      setTimeout(() => {
        if (this.#waiting.delete(id)) reject(this.toError(undefined));
      }, ANSWER_MS);
    });
  }

  #post(packet: Packet): void {
    this.#channel.postMessage(packet);
  }

  #receive(packet: Packet): void {
    switch (packet.kind) {
      case 'hello':
        if (this.#leader) this.#post({ kind: 'snapshot', state: this.#leader.state() });
        return;
      case 'snapshot':
        if (!this.#leader) this.onSnapshot(packet.state);
        return;
      case 'actions':
        if (!this.#leader) this.onActions(packet.actions);
        return;
      case 'call':
        void this.#serve(packet.id, packet.command, packet.args);
        return;
      case 'answer': {
        const waiting = this.#waiting.get(packet.id);
        this.#waiting.delete(packet.id);
        if (packet.error !== undefined) waiting?.reject(this.toError(packet.error));
        else waiting?.resolve(packet.value);
      }
    }
  }

  async #serve(id: string, command: string, args: unknown[]): Promise<void> {
    if (!this.#leader) return;
    try {
      this.#post({ kind: 'answer', id, value: await this.#leader.run(command, args) });
    } catch (error) {
      const { status = 0, label = 'unknown', message = '', body = {} } = error as Record<string, unknown>;
      this.#post({ kind: 'answer', id, error: { status, label, message: String(message), body } });
    }
  }
}
