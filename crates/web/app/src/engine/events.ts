import { fetchConversations, loadConversations } from '../conversations/commands';
import type { ConversationEvent } from '../conversations/state';
import { loadDevices } from '../devices/commands';
import type { Incoming, SystemContent } from '../messages/content';
import { receive } from '../messages/receive';
import { domainOf, fromKey, type Key, keyOf, type QualifiedId } from '../model';
import { fetchPeople, fetchUnknown } from '../people/commands';
import type { ApiConnection } from '../people/state';
import type { Notification } from '../session/feed';
import { loadSelf } from '../settings/commands';
import type { Context } from './context';

/** How long somebody is believed to type. */
const TYPING_MS = 12_000;

export interface EventHooks {
  /** A message came that is shown. */
  arrived(conversation: Key, from: Key, time: string, incoming: Extract<Incoming, { act: 'show' }>): void;
  /** A message could not be decrypted. */
  broken(conversation: Key, from: Key): void;
  /** The own device was removed. */
  removed(): void;
  /** Whether events come as they happen, and not from before. */
  live(): boolean;
}

/** Makes what the backend tells into what is shown. */
export class Events {
  constructor(
    private readonly ctx: Context,
    private readonly hooks: EventHooks,
  ) {}

  async handle(notification: Notification): Promise<void> {
    for (const event of notification.payload) {
      if (event.type.startsWith('conversation.')) await this.conversation(event as ConversationEvent);
      // biome-ignore lint/suspicious/noExplicitAny: read with care below
      else await this.#other(event as any);
    }
  }

  async conversation(event: ConversationEvent): Promise<void> {
    const { ctx } = this;
    const key = keyOf(event.qualified_conversation);
    const from = event.qualified_from && keyOf(event.qualified_from);
    this.#reached(from);
    if (event.type === 'conversation.typing') {
      const until = event.data?.status === 'started' ? Date.now() + TYPING_MS : undefined;
      if (from) ctx.dispatch({ type: 'conversations/typing', conversation: key, user: from, until });
      return;
    }
    if (event.type === 'conversation.create') {
      ctx.dispatch({ type: 'conversations/merged', conversations: [event.data], time: event.time });
      this.#tell(key, event, from, { kind: 'system', event: 'created' });
      void this.#quietly(fetchUnknown(ctx));
      return;
    }
    if (!ctx.state().conversations.conversations[key]) await this.#quietly(fetchConversations(ctx, [fromKey(key)]));
    if (event.type === 'conversation.otr-message-add') {
      const arrived = (incoming: Incoming) => {
        if (!from || from === ctx.self || incoming.act !== 'show') return;
        ctx.dispatch({ type: 'conversations/typing', conversation: key, user: from, until: undefined });
        this.hooks.arrived(key, from, event.time, incoming);
      };
      await receive(ctx, event, arrived, user => this.hooks.broken(key, user));
      return;
    }
    ctx.dispatch({ type: 'conversations/event', event, self: ctx.self });
    await this.#told(key, event, from);
  }

  /** Adds the line that tells of an event, and fetches who is new. */
  async #told(key: Key, event: ConversationEvent, from: Key | undefined): Promise<void> {
    const { ctx } = this;
    if (event.type === 'conversation.rename') {
      this.#tell(key, event, from, { kind: 'system', event: 'renamed', name: event.data?.name });
    } else if (event.type === 'conversation.receipt-mode-update') {
      const name = event.data?.receipt_mode > 0 ? 'on' : 'off';
      this.#tell(key, event, from, { kind: 'system', event: 'receipts', name });
    } else if (event.type === 'conversation.member-join') {
      const users = ((event.data?.users ?? []) as { qualified_id: QualifiedId }[]).map(u => keyOf(u.qualified_id));
      if (users.includes(ctx.self)) await this.#quietly(fetchConversations(ctx, [fromKey(key)]));
      const kind = ctx.state().conversations.conversations[key]?.kind;
      this.#tell(key, event, from, { kind: 'system', event: kind === 'one-to-one' ? 'connected' : 'joined', users });
      void this.#quietly(fetchUnknown(ctx));
    } else if (event.type === 'conversation.member-leave') {
      const users = ((event.data?.qualified_user_ids ?? []) as QualifiedId[]).map(keyOf);
      const own = users.length === 1 && users[0] === from;
      this.#tell(key, event, from, { kind: 'system', event: own ? 'left' : 'removed', users });
    }
  }

  /** The id comes from the event, so that the same event tells once. */
  #tell(conversation: Key, event: ConversationEvent, from: Key | undefined, content: SystemContent): void {
    const id = content.event === 'created' ? 'created' : `${event.type}/${event.time}`;
    const incoming: Incoming = { act: 'show', id, content, expectsRead: false };
    const sender = from ?? this.ctx.self;
    this.ctx.dispatch({ type: 'messages/incoming', conversation, from: sender, time: event.time, incoming });
    this.ctx.dispatch({ type: 'conversations/active', conversation, time: event.time });
  }

  // biome-ignore lint/suspicious/noExplicitAny: read with care
  async #other(event: any): Promise<void> {
    const { ctx } = this;
    switch (event.type) {
      case 'user.connection':
        return this.#connection(event.connection);
      case 'user.update': {
        const user = this.#userOf(event.user);
        if (user === ctx.self) return this.#quietly(loadSelf(ctx));
        if (user) ctx.dispatch({ type: 'people/changed', user, change: event.user });
        return;
      }
      case 'user.delete': {
        const user = this.#userOf(event);
        if (user) ctx.dispatch({ type: 'people/deleted', user });
        return;
      }
      case 'user.client-remove':
        if (event.client?.id === ctx.client) return this.hooks.removed();
        return this.#quietly(loadDevices(ctx));
      case 'user.client-add':
        return this.#quietly(loadDevices(ctx));
      case 'federation.delete':
        ctx.dispatch({ type: 'federation/cut-off', domain: event.domain, time: new Date().toISOString() });
        return this.#quietly(loadConversations(ctx));
    }
  }

  async #connection(connection: ApiConnection): Promise<void> {
    const { ctx } = this;
    this.#reached(keyOf(connection.qualified_to));
    ctx.dispatch({ type: 'connections/merged', connections: [connection] });
    const user = keyOf(connection.qualified_to);
    if (!ctx.state().people.people[user]) void this.#quietly(fetchPeople(ctx, [user]));
    if (connection.status === 'accepted' && connection.qualified_conversation) {
      await this.#quietly(fetchConversations(ctx, [connection.qualified_conversation]));
      const key = keyOf(connection.qualified_conversation);
      const time = connection.last_update ?? new Date().toISOString();
      ctx.dispatch({ type: 'conversations/active', conversation: key, time });
    }
  }

  /** Events of users name them with their domain, or by an id that is unique anyway. */
  #userOf(about: { qualified_id?: QualifiedId; id?: string }): Key | undefined {
    if (about.qualified_id) return keyOf(about.qualified_id);
    return Object.keys(this.ctx.state().people.people).find(key => key.startsWith(`${about.id}@`));
  }

  /** What comes from another backend as it happens shows that the backend is there. */
  #reached(user: Key | undefined): void {
    if (!user || !this.hooks.live()) return;
    const domain = domainOf(user);
    if (domain === domainOf(this.ctx.self)) return;
    this.ctx.dispatch({ type: 'federation/reachable', domains: [domain], time: new Date().toISOString() });
  }

  /** Fetches something about an event. When that fails, the next synchronisation gets it. */
  async #quietly(work: Promise<void>): Promise<void> {
    await work.catch(() => undefined);
  }
}
