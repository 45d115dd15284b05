import { conversationCommands, fetchConversations, loadConversations } from '../conversations/commands';
import { deviceCommands, loadDevices } from '../devices/commands';
import { mayResume } from '../federation/selectors';
import { CONFIRMED_UP_TO, messageCommands, PAGE } from '../messages/commands';
import { progressByBackend } from '../messages/state';
import { domainOf, fromKey, type Key } from '../model';
import { fetchPeople, fetchUnknown, loadConnections, peopleCommands } from '../people/commands';
import { Feed } from '../session/feed';
import { loadReceiptWish, loadSelf, settingsCommands } from '../settings/commands';
import type { Context } from './context';
import { PREKEYS } from './crypto';
import { Events } from './events';
import type { State } from './state';

/** Confirmations of deliveries are collected for so long. */
const CONFIRM_AFTER_MS = 250;
const SAVE_AFTER_MS = 150;
/** The feed does not wait longer than this for what other backends have to be asked for. */
const SYNCHRONISE_MS = 5000;
/** How often it is considered to ask other backends whether they answer. */
const PROBE_TICK_MS = 5000;
/** A backend that did not answer is asked again so often. */
const PROBE_AWAY_MS = 10_000;
/** A backend where nobody confirms a message of the last hour is asked so often. */
const PROBE_SILENT_MS = 30_000;
const SILENT_FOR_MS = 3_600_000;
/** Newest messages of a conversation that are looked at for that. */
const SILENT_AMONG = 10;
/** What was not sent is tried again by itself for so long, and so often. */
const RESUME_FOR_MS = 24 * 3_600_000;
const RETRIES = 3;
/** With fewer prekeys than this, new ones are published. */
const FEWEST_PREKEYS = 40;

export interface AccountHooks {
  removed(): void;
  /** A message for the person to notice. */
  notice(conversation: Key, from: Key): void;
}

/** A logged-in user of this browser: what arrives, what is kept, and what can be done. */
export class Account {
  readonly commands;
  readonly #events: Events;
  readonly #feed: Feed;
  readonly #confirming = new Map<string, { conversation: Key; from: Key; ids: string[] }>();
  readonly #probedAt = new Map<string, number>();
  /** Whose sessions were begun anew, once while the page is open. */
  readonly #resetFor = new Set<Key>();
  /** How often each message was tried again by itself. */
  readonly #retries = new Map<string, number>();
  #last?: string;
  #savedState: State;
  #saving: Promise<void> = Promise.resolve();
  #saveTimer?: ReturnType<typeof setTimeout>;
  #confirmTimer?: ReturnType<typeof setTimeout>;
  #probe?: ReturnType<typeof setInterval>;

  constructor(
    private readonly ctx: Context,
    hooks: AccountHooks,
  ) {
    this.#savedState = ctx.state();
    const live = () => ctx.state().session.link === 'online';
    this.#events = new Events(ctx, {
      live,
      removed: () => hooks.removed(),
      broken: (conversation, from) => {
        if (this.#resetFor.has(from)) return;
        this.#resetFor.add(from);
        void this.commands.resetSession(conversation, from).catch(() => undefined);
      },
      arrived: (conversation, from, _time, incoming) => {
        if (incoming.content.kind === 'unreadable') return;
        this.#confirmLater(conversation, from, incoming.id);
        hooks.notice(conversation, from);
      },
    });
    this.#feed = new Feed({
      api: ctx.api,
      client: ctx.client,
      last: () => this.#last,
      handle: async notification => {
        await this.#events.handle(notification);
        if (notification.transient) return;
        await this.save();
        this.#last = notification.id;
        await ctx.db.set('last', notification.id);
      },
      onLink: link => {
        ctx.dispatch({ type: 'session/link', link });
        if (link === 'online') void this.#resume();
      },
      onGap: () => this.#synchronise(),
    });
    this.commands = {
      ...messageCommands(ctx),
      ...conversationCommands(ctx, event => this.#events.conversation(event)),
      ...peopleCommands(ctx),
      ...deviceCommands(ctx),
      ...settingsCommands(ctx),
      probe: (domain: string) => this.#ask(domain),
    };
  }

  /** Shows what the browser kept, then what the backend has, then what is new. */
  async start(): Promise<void> {
    const kept = await this.#restore();
    if (kept) this.ctx.dispatch({ type: 'session/stage', stage: 'ready' });
    const synchronised = this.#synchronise();
    // Said below when it fails in time; later, the feed brings what is missing.
    synchronised.catch(() => undefined);
    const patience = new Promise<void>(resolve => setTimeout(resolve, SYNCHRONISE_MS));
    if (kept) await Promise.race([synchronised.catch(() => undefined), patience]);
    else await Promise.race([synchronised, patience]);
    this.ctx.dispatch({ type: 'session/stage', stage: 'ready' });
    this.#feed.start();
    this.#probe = setInterval(() => void this.#probeAll(), PROBE_TICK_MS);
    await this.#refillPrekeys().catch(() => undefined);
  }

  async stop(): Promise<void> {
    this.#feed.stop();
    clearTimeout(this.#saveTimer);
    clearTimeout(this.#confirmTimer);
    clearInterval(this.#probe);
    await this.save();
    this.ctx.db.close();
    await this.ctx.keys.close().catch(() => undefined);
  }

  /** Writes what changed, soon. */
  saveSoon(): void {
    this.#saveTimer ??= setTimeout(() => {
      this.#saveTimer = undefined;
      void this.save().catch(() => undefined);
    }, SAVE_AFTER_MS);
  }

  save(): Promise<void> {
    const next = this.#saving.then(async () => {
      const now = this.ctx.state();
      if (now === this.#savedState) return;
      await this.ctx.db.save(this.#savedState, now);
      this.#savedState = now;
    });
    this.#saving = next.catch(() => undefined);
    return next;
  }

  async #restore(): Promise<boolean> {
    const { db, dispatch } = this.ctx;
    this.#last = await db.get<string>('last');
    const [people, connections, conversations] = await Promise.all([db.people(), db.connections(), db.conversations()]);
    dispatch({ type: 'people/restored', people, connections });
    dispatch({ type: 'conversations/restored', conversations });
    for (const { key } of conversations) {
      const messages = await db.messagesBefore(key, undefined, PAGE);
      const settled = messages.map(message =>
        message.delivery?.state === 'sending'
          ? { ...message, delivery: { ...message.delivery, state: 'failed' as const, error: 'interrupted' } }
          : message,
      );
      const complete = messages.length < PAGE;
      dispatch({ type: 'messages/loaded', conversation: key, messages: settled, complete });
    }
    this.#savedState = this.ctx.state();
    return conversations.length > 0 || people.length > 0;
  }

  async #synchronise(): Promise<void> {
    const { ctx } = this;
    await loadSelf(ctx);
    await Promise.all([loadConnections(ctx), loadConversations(ctx), loadDevices(ctx), loadReceiptWish(ctx)]);
    await fetchUnknown(ctx);
  }

  async #refillPrekeys(): Promise<void> {
    const { api, client, db, keys } = this.ctx;
    const left: number[] = await api.call('GET', `/clients/${client}/prekeys`);
    if (left.length - 1 >= FEWEST_PREKEYS) return;
    const next = (await db.get<number>('next-prekey')) ?? PREKEYS;
    const count = PREKEYS - (left.length - 1);
    const prekeys = await keys.prekeys(next, count);
    await db.set('next-prekey', next + count);
    await api.call('PUT', `/clients/${client}`, { json: { prekeys } });
  }

  /** Tells the sender that a message came, together with others of the same moment. */
  #confirmLater(conversation: Key, from: Key, id: string): void {
    const known = this.ctx.state().conversations.conversations[conversation];
    if (!known || Object.keys(known.members).length > CONFIRMED_UP_TO) return;
    const name = `${conversation} ${from}`;
    const entry = this.#confirming.get(name) ?? { conversation, from, ids: [] };
    entry.ids.push(id);
    this.#confirming.set(name, entry);
    this.#confirmTimer ??= setTimeout(() => {
      this.#confirmTimer = undefined;
      void this.#confirmNow();
    }, CONFIRM_AFTER_MS);
  }

  async #confirmNow(): Promise<void> {
    const entries = [...this.#confirming.values()];
    this.#confirming.clear();
    for (const { conversation, from, ids } of entries) {
      await this.commands.confirm(conversation, from, ids, false).catch(() => undefined);
    }
  }

  async #probeAll(): Promise<void> {
    if (this.ctx.state().session.link !== 'online') return;
    const now = Date.now();
    const { backends } = this.ctx.state().federation;
    const silent = this.#silentDomains(now);
    const absent = this.#absentDomains();
    for (const domain of new Set([...Object.keys(backends), ...silent, ...absent])) {
      const away = (backends[domain] && backends[domain].state !== 'reachable') || absent.has(domain);
      const every = away ? PROBE_AWAY_MS : silent.has(domain) ? PROBE_SILENT_MS : Number.POSITIVE_INFINITY;
      if (now - (this.#probedAt.get(domain) ?? 0) < every) continue;
      this.#probedAt.set(domain, now);
      await this.#ask(domain).catch(() => undefined);
    }
    await this.#resume();
  }

  /** Tries again what could not be sent and now perhaps can. */
  async #resume(): Promise<void> {
    const { messages, federation } = this.ctx.state();
    const now = Date.now();
    for (const list of Object.values(messages.messages)) {
      for (const message of list.slice(-SILENT_AMONG)) {
        if (now - Date.parse(message.time) > RESUME_FOR_MS || !mayResume(message, federation)) continue;
        const count = (this.#retries.get(message.id) ?? 0) + 1;
        this.#retries.set(message.id, count);
        if (count > RETRIES) continue;
        await this.commands.sendAgain(message.conversation, message.id).catch(() => undefined);
      }
    }
  }

  /** Backends of which people or conversations are missing here. */
  #absentDomains(): Set<string> {
    const { people, conversations } = this.ctx.state();
    const all = [...Object.values(people.people), ...Object.values(conversations.conversations)];
    return new Set(all.filter(entry => entry.unavailable).map(entry => domainOf(entry.key)));
  }

  /** Other backends of which nobody confirmed an own message that was sent not long ago. */
  #silentDomains(now: number): Set<string> {
    const domains = new Set<string>();
    const own = domainOf(this.ctx.self);
    for (const list of Object.values(this.ctx.state().messages.messages)) {
      for (const message of list.slice(-SILENT_AMONG)) {
        if (now - Date.parse(message.time) > SILENT_FOR_MS) continue;
        for (const { domain, state } of progressByBackend(message, now)) {
          if (domain !== own && (state === 'waiting' || state === 'held')) domains.add(domain);
        }
      }
    }
    return domains;
  }

  /** Asks another backend for what is missing of it, or for anything, to see whether it answers. */
  async #ask(domain: string): Promise<void> {
    const { people, conversations } = this.ctx.state();
    const there = Object.values(people.people).filter(person => domainOf(person.key) === domain);
    const missing = there.filter(person => person.unavailable);
    const users = (missing.length > 0 ? missing : there.slice(0, 1)).map(person => person.key);
    if (users.length > 0) await fetchPeople(this.ctx, users);
    const absent = Object.values(conversations.conversations)
      .filter(conversation => conversation.unavailable && domainOf(conversation.key) === domain)
      .map(conversation => fromKey(conversation.key));
    await fetchConversations(this.ctx, absent);
    await fetchUnknown(this.ctx);
  }
}

export type AccountCommands = Account['commands'];
