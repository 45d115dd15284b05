import { type Api, ApiError } from '../engine/api';

export interface Notification {
  id: string;
  payload: { type: string }[];
  transient?: boolean;
}

export interface FeedOptions {
  api: Api;
  client: string;
  /** The id of the last notification that was handled. */
  last(): string | undefined;
  /** Handles one notification; the next waits for it. */
  handle(notification: Notification): Promise<void>;
  /** Everything up to now was handled. */
  onLink(link: 'online' | 'connecting' | 'offline'): void;
  /** The backend no longer has what came after the last one. */
  onGap(): Promise<void>;
}

const PING_MS = 20_000;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 20_000;
const PAGE = '1000';
/** Ids of notifications that are remembered, to handle each once. */
const REMEMBERED = 2000;

/** The next pause before connecting again, with some chance in it. */
export const pauseAfter = (attempt: number, chance: number): number =>
  Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(attempt, 10)) * (0.75 + chance / 2);

/** Ids that were there before, of the last ones. */
export class Seen {
  readonly #ids = new Set<string>();

  /** Whether an id is new; from then on it is not. */
  add(id: string): boolean {
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    if (this.#ids.size > REMEMBERED) {
      for (const oldest of this.#ids) {
        this.#ids.delete(oldest);
        break;
      }
    }
    return true;
  }
}

/** Notifications in order, each once: those that were missed by request, new ones by socket. Connects again for ever. */
export class Feed {
  readonly #seen = new Seen();
  #socket?: WebSocket;
  #queue: Promise<void> = Promise.resolve();
  #stopped = false;
  #attempt = 0;
  /** The last socket never opened: perhaps the session is over. */
  #refused = false;
  #retry?: ReturnType<typeof setTimeout>;
  #pinging?: ReturnType<typeof setInterval>;

  constructor(private readonly options: FeedOptions) {}

  start(): void {
    addEventListener('online', this.#now);
    addEventListener('offline', this.#dropped);
    void this.#connect();
  }

  stop(): void {
    this.#stopped = true;
    removeEventListener('online', this.#now);
    removeEventListener('offline', this.#dropped);
    clearTimeout(this.#retry);
    clearInterval(this.#pinging);
    this.#socket?.close();
  }

  /** Connects at once, when it is not connected. */
  readonly #now = () => {
    if (this.#socket || this.#stopped) return;
    clearTimeout(this.#retry);
    this.#attempt = 0;
    void this.#connect();
  };

  readonly #dropped = () => this.#socket?.close();

  async #connect(): Promise<void> {
    this.options.onLink('connecting');
    try {
      if (this.#refused) await this.options.api.renew();
      this.#refused = true;
      const socket = new WebSocket(await this.options.api.socketAddress(this.options.client));
      this.#socket = socket;
      socket.binaryType = 'arraybuffer';
      let caughtUp = false;
      const early: Notification[] = [];
      let pongAt = Date.now();
      socket.onopen = () => {
        this.#refused = false;
        this.#pinging = setInterval(() => {
          if (Date.now() - pongAt > 2.5 * PING_MS) socket.close();
          else socket.send('ping');
        }, PING_MS);
        this.#enqueue(async () => {
          await this.#catchUp();
          for (const notification of early.splice(0)) await this.#handle(notification);
          caughtUp = true;
          this.#attempt = 0;
          if (this.#socket === socket) this.options.onLink('online');
        }, socket);
      };
      socket.onmessage = ({ data }) => {
        const text = typeof data === 'string' ? data : new TextDecoder().decode(data as ArrayBuffer);
        pongAt = Date.now();
        if (text === 'pong') return;
        const notification = JSON.parse(text) as Notification;
        if (caughtUp) this.#enqueue(() => this.#handle(notification), socket);
        else early.push(notification);
      };
      socket.onclose = () => this.#closed(socket);
    } catch (error) {
      if (error instanceof ApiError && error.status === 403) return;
      this.#later();
    }
  }

  #closed(socket: WebSocket): void {
    if (this.#socket !== socket) return;
    this.#socket = undefined;
    clearInterval(this.#pinging);
    this.#later();
  }

  #later(): void {
    if (this.#stopped) return;
    this.options.onLink(navigator.onLine ? 'connecting' : 'offline');
    if (this.#attempt > 1) this.options.onLink('offline');
    this.#retry = setTimeout(() => void this.#connect(), pauseAfter(this.#attempt, Math.random()));
    this.#attempt += 1;
  }

  #enqueue(work: () => Promise<void>, socket: WebSocket): void {
    this.#queue = this.#queue.then(work).catch(() => socket.close());
  }

  async #handle(notification: Notification): Promise<void> {
    if (this.#stopped || !this.#seen.add(notification.id)) return;
    await this.options.handle(notification);
  }

  async #catchUp(): Promise<void> {
    for (;;) {
      const since = this.options.last();
      const query = { client: this.options.client, size: PAGE, since };
      let page: { notifications: Notification[]; has_more: boolean };
      try {
        page = await this.options.api.call('GET', '/notifications', { query });
      } catch (error) {
        if (!(error instanceof ApiError) || (error.status !== 404 && error.status !== 400) || !since) throw error;
        await this.options.onGap();
        page = await this.options.api.call('GET', '/notifications', { query: { ...query, since: undefined } });
      }
      for (const notification of page.notifications) await this.#handle(notification);
      if (!page.has_more || page.notifications.length === 0) return;
    }
  }
}
