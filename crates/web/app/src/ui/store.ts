import { useEffect, useState, useSyncExternalStore } from 'react';
import type { Conversation } from '../conversations/state';
import { type Commands, Engine } from '../engine/engine';
import type { State } from '../engine/state';
import { t } from '../i18n/text';
import { domainOf, type Key } from '../model';

export const engine = new Engine();

/** The commands of the engine, wherever it runs. */
export const commands: {
  [Name in keyof Commands]: Commands[Name] extends (...args: infer Args) => infer Answer
    ? (...args: Args) => Promise<Awaited<Answer>>
    : never;
} = new Proxy({} as never, {
  get:
    (_, name: string) =>
    (...args: unknown[]) =>
      engine.run(name, args),
});

/** A part of the state, kept up to date. The part has to be one that the state holds. */
export function useApp<T>(select: (state: State) => T): T {
  return useSyncExternalStore(engine.subscribe, () => select(engine.state()));
}

/** The time, every so many milliseconds. */
export function useNow(everyMs: number): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}

export function nameOf(state: State, user: Key): string {
  const person = state.people.people[user];
  if (person?.deleted) return t('people.deleted');
  return person?.name || t('people.unknown', { domain: domainOf(user) });
}

/** The other person of a conversation of two. */
export const otherIn = (conversation: Conversation): Key | undefined =>
  conversation.kind === 'group' ? undefined : Object.keys(conversation.members)[0];

export function titleOf(state: State, conversation: Conversation): string {
  if (conversation.kind === 'group') {
    if (conversation.name) return conversation.name;
    if (conversation.unavailable) return t('conversation.unnamed.at', { domain: domainOf(conversation.key) });
    const members = Object.keys(conversation.members).slice(0, 4);
    return members.length > 0 ? members.map(user => nameOf(state, user)).join(', ') : t('conversation.unnamed');
  }
  const other = otherIn(conversation) ?? contactOf(state, conversation.key);
  return other ? nameOf(state, other) : t('conversation.unnamed');
}

/** With whom a conversation is, by the connection: it stands there when the member list does not say. */
function contactOf(state: State, conversation: Key): Key | undefined {
  return Object.values(state.people.connections).find(entry => entry.conversation === conversation)?.user;
}
