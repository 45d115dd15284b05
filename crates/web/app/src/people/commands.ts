import { fetchConversations } from '../conversations/commands';
import { ApiError } from '../engine/api';
import type { Context } from '../engine/context';
import { fromKey, type Key, keyOf, type QualifiedId } from '../model';
import { type ApiConnection, type Person, type Profile, personFrom } from './state';

const CHUNK = 200;

export async function loadConnections(ctx: Context): Promise<void> {
  let paging: string | undefined;
  do {
    const page = await ctx.api.call('POST', '/list-connections', { json: { size: 500, paging_state: paging } });
    ctx.dispatch({ type: 'connections/merged', connections: page.connections });
    paging = page.has_more ? page.paging_state : undefined;
  } while (paging);
}

/** Fetches profiles. Those whose backend does not answer are noted as unavailable. */
export async function fetchPeople(ctx: Context, users: Key[]): Promise<void> {
  const own = fromKey(ctx.self).domain;
  for (let at = 0; at < users.length; at += CHUNK) {
    const chunk = users.slice(at, at + CHUNK);
    const answer = await ctx.api.call('POST', '/list-users', { json: { qualified_ids: chunk.map(fromKey) } });
    const found = (answer.found ?? []) as Profile[];
    const failed = ((answer.failed ?? []) as QualifiedId[]).map(keyOf);
    const time = new Date().toISOString();
    ctx.dispatch({ type: 'people/merged', profiles: found });
    const domains = (keys: Key[]) => [...new Set(keys.map(key => fromKey(key).domain))].filter(d => d !== own);
    if (failed.length > 0) {
      ctx.dispatch({ type: 'people/unavailable', users: failed });
      ctx.dispatch({ type: 'federation/unreachable', domains: domains(failed), time });
    }
    const reached = domains(found.map(profile => keyOf(profile.qualified_id)));
    if (reached.length > 0) ctx.dispatch({ type: 'federation/reachable', domains: reached, time });
  }
}

/** Fetches the profiles of people who are shown and not known. */
export async function fetchUnknown(ctx: Context): Promise<void> {
  const { people, conversations } = ctx.state();
  const wanted = new Set<Key>(Object.keys(people.connections));
  for (const conversation of Object.values(conversations.conversations)) {
    for (const user of Object.keys(conversation.members)) wanted.add(user);
  }
  const unknown = [...wanted].filter(user => !people.people[user]);
  if (unknown.length > 0) await fetchPeople(ctx, unknown);
}

export interface Found {
  people: Person[];
  /** The other backend answered that it shows people only by their whole handle. */
  exactOnly: boolean;
}

/** What a person can do about other people. */
export function peopleCommands(ctx: Context) {
  async function changed(connection: ApiConnection | undefined): Promise<void> {
    if (!connection) return;
    ctx.dispatch({ type: 'connections/merged', connections: [connection] });
    if (connection.qualified_conversation && connection.status === 'accepted') {
      await fetchConversations(ctx, [connection.qualified_conversation]).catch(() => undefined);
    }
  }

  return {
    /** Finds people by name or handle at a backend, by default the own one. */
    async search(text: string, domain?: string): Promise<Found> {
      const query = { q: text, domain: domain ?? fromKey(ctx.self).domain, size: '20' };
      const answer = await ctx.api.call('GET', '/search/contacts', { query });
      const profiles = (answer.documents as Profile[]).filter(profile => keyOf(profile.qualified_id) !== ctx.self);
      const exactOnly = answer.search_policy === 'exact_handle_search';
      if (profiles.length === 0 && domain && /^[a-z0-9_.-]{2,256}$/.test(text)) {
        const profile = await ctx.api
          .call('GET', `/users/by-handle/${encodeURIComponent(domain)}/${encodeURIComponent(text)}`)
          .catch(error => {
            if (error instanceof ApiError && error.status === 404) return undefined;
            throw error;
          });
        if (profile) profiles.push(profile);
      }
      if (domain && domain !== fromKey(ctx.self).domain) {
        ctx.dispatch({ type: 'federation/reachable', domains: [domain], time: new Date().toISOString() });
      }
      return { people: profiles.map(personFrom), exactOnly };
    },

    async connect(user: Key): Promise<void> {
      const { id, domain } = fromKey(user);
      await changed(await ctx.api.call('POST', `/connections/${domain}/${id}`, { json: {} }));
      if (!ctx.state().people.people[user]) await fetchPeople(ctx, [user]);
    },

    /** Accepts, ignores, blocks, unblocks or takes back. */
    async answer(user: Key, status: 'accepted' | 'ignored' | 'blocked' | 'cancelled'): Promise<void> {
      const { id, domain } = fromKey(user);
      await changed(await ctx.api.call('PUT', `/connections/${domain}/${id}`, { json: { status } }));
    },

    refreshPeople: (users: Key[]) => fetchPeople(ctx, users),
  };
}
