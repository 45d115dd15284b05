import { ApiError } from '../engine/api';
import type { Context } from '../engine/context';
import { fromKey, type Key, keyOf, type QualifiedId } from '../model';
import type { ApiConversation, ConversationEvent } from './state';

/** How many conversations are asked for at a time. */
const CHUNK = 500;
const TYPING_EVERY_MS = 8000;

const pathOf = (key: Key): string => {
  const { id, domain } = fromKey(key);
  return `/conversations/${domain}/${id}`;
};

/** Fetches all conversations of the account. */
export async function loadConversations(ctx: Context): Promise<void> {
  const ids: QualifiedId[] = [];
  let paging: string | undefined;
  do {
    const page = await ctx.api.call('POST', '/conversations/list-ids', { json: { paging_state: paging } });
    ids.push(...page.qualified_conversations);
    paging = page.has_more ? page.paging_state : undefined;
  } while (paging);
  for (let at = 0; at < ids.length; at += CHUNK) await fetchConversations(ctx, ids.slice(at, at + CHUNK));
  const there = new Set(ids.map(keyOf));
  const gone = Object.keys(ctx.state().conversations.conversations).filter(key => !there.has(key));
  if (gone.length > 0) ctx.dispatch({ type: 'conversations/gone', conversations: gone });
}

export async function fetchConversations(ctx: Context, ids: QualifiedId[]): Promise<void> {
  if (ids.length === 0) return;
  const answer = await ctx.api.call('POST', '/conversations/list', { json: { qualified_ids: ids } });
  const time = new Date().toISOString();
  const found = answer.found as ApiConversation[];
  ctx.dispatch({ type: 'conversations/merged', conversations: found });
  const failed = (answer.failed ?? []) as QualifiedId[];
  if (failed.length > 0) {
    ctx.dispatch({ type: 'conversations/unavailable', conversations: failed.map(keyOf) });
    const domains = [...new Set(failed.map(({ domain }) => domain))];
    ctx.dispatch({ type: 'federation/unreachable', domains, time });
  }
  const own = fromKey(ctx.self).domain;
  const reached = [...new Set(found.map(entry => entry.qualified_id.domain))].filter(domain => domain !== own);
  if (reached.length > 0) ctx.dispatch({ type: 'federation/reachable', domains: reached, time });
}

/** What a person can do with conversations. */
export function conversationCommands(ctx: Context, changed: (event: ConversationEvent) => Promise<void>) {
  const typedAt = new Map<Key, number>();

  /** Asks for a change whose answer is the event about it. */
  async function change(method: string, path: string, json?: unknown): Promise<void> {
    const event = await ctx.api.call(method, path, { json });
    if (event?.type) await changed(event);
  }

  return {
    /** Creates a group. Answers its key. */
    async createGroup(name: string, users: Key[]): Promise<Key> {
      const found: ApiConversation = await ctx.api.call('POST', '/conversations', {
        json: {
          name,
          qualified_users: users.map(fromKey),
          conversation_role: 'wire_member',
          access: ['invite'],
          access_role: ['team_member', 'non_team_member', 'guest', 'service'],
          receipt_mode: 1,
          protocol: 'proteus',
        },
      });
      const time = new Date().toISOString();
      ctx.dispatch({ type: 'conversations/merged', conversations: [found], time });
      return keyOf(found.qualified_id);
    },

    rename: (conversation: Key, name: string) => change('PUT', `${pathOf(conversation)}/name`, { name }),

    async addMembers(conversation: Key, users: Key[]): Promise<void> {
      const json = { qualified_users: users.map(fromKey), conversation_role: 'wire_member' };
      await change('POST', `${pathOf(conversation)}/members`, json);
    },

    async removeMember(conversation: Key, user: Key): Promise<void> {
      const { id, domain } = fromKey(user);
      await change('DELETE', `${pathOf(conversation)}/members/${domain}/${id}`);
    },

    async setRole(conversation: Key, user: Key, role: 'wire_admin' | 'wire_member'): Promise<void> {
      const { id, domain } = fromKey(user);
      await ctx.api.call('PUT', `${pathOf(conversation)}/members/${domain}/${id}`, {
        json: { conversation_role: role },
      });
      await fetchConversations(ctx, [fromKey(conversation)]);
    },

    setReceipts: (conversation: Key, on: boolean) =>
      change('PUT', `${pathOf(conversation)}/receipt-mode`, { receipt_mode: on ? 1 : 0 }),

    async mute(conversation: Key, muted: boolean): Promise<void> {
      const json = { otr_muted_status: muted ? 3 : 0, otr_muted_ref: new Date().toISOString() };
      await ctx.api.call('PUT', `${pathOf(conversation)}/self`, { json });
      ctx.dispatch({ type: 'conversations/self', conversation, change: { muted } });
    },

    async archive(conversation: Key, archived: boolean): Promise<void> {
      const json = { otr_archived: archived, otr_archived_ref: new Date().toISOString() };
      await ctx.api.call('PUT', `${pathOf(conversation)}/self`, { json });
      ctx.dispatch({ type: 'conversations/self', conversation, change: { archived } });
    },

    /** Tells the others that the person types, now and then, or no longer. */
    async typing(conversation: Key, started: boolean): Promise<void> {
      if (ctx.state().conversations.conversations[conversation]?.unavailable) return;
      const last = typedAt.get(conversation);
      if (started && last && Date.now() - last < TYPING_EVERY_MS) return;
      if (!started && !last) return;
      if (started) typedAt.set(conversation, Date.now());
      else typedAt.delete(conversation);
      const json = { status: started ? 'started' : 'stopped' };
      await ctx.api.call('POST', `${pathOf(conversation)}/typing`, { json }).catch(error => {
        if (!(error instanceof ApiError)) throw error;
      });
    },
  };
}
