import type { Conversation } from '../conversations/state';
import { type Message, progressByBackend } from '../messages/state';
import { domainOf, type Key } from '../model';
import { type FederationState, isAway } from './state';

export interface BackendView {
  domain: string;
  own: boolean;
  /** It keeps the conversation. */
  owner: boolean;
  people: Key[];
  state: 'reachable' | 'unreachable' | 'cut-off' | 'unknown';
  since?: string;
  label?: string;
  /** Own messages that wait for it. */
  waiting: number;
}

/** The backends that take part in a conversation, the own one first. */
export function backendsOf(
  conversation: Conversation,
  self: Key,
  { backends }: FederationState,
  messages: readonly Message[],
  now: number,
): BackendView[] {
  const own = domainOf(self);
  const owner = domainOf(conversation.key);
  const byDomain = new Map<string, Key[]>([[own, conversation.member ? [self] : []]]);
  if (conversation.kind === 'group') byDomain.set(owner, byDomain.get(owner) ?? []);
  for (const user of Object.keys(conversation.members)) {
    byDomain.set(domainOf(user), [...(byDomain.get(domainOf(user)) ?? []), user]);
  }
  const waiting = waitingByDomain(messages, now);
  return [...byDomain]
    .map(([domain, people]): BackendView => {
      const known = backends[domain];
      return {
        domain,
        own: domain === own,
        owner: domain === owner && conversation.kind === 'group',
        people,
        state: domain === own ? 'reachable' : (known?.state ?? 'unknown'),
        since: known?.since,
        label: known?.label,
        waiting: waiting.get(domain) ?? 0,
      };
    })
    .sort((a, b) => Number(b.own) - Number(a.own) || a.domain.localeCompare(b.domain));
}

/** Whether what a conversation shows may be old: its backend does not answer. */
export const isUnavailable = ({ key, unavailable }: Conversation, federation: FederationState): boolean =>
  unavailable === true || isAway(federation)(domainOf(key));

/** Failures that pass by themselves. */
export const PASSING = ['offline', 'interrupted', 'federation-connection-refused', 'federation-http2-error'];

/** Whether a message that was not sent, or not to everybody, may be tried again without being asked. */
export function mayResume({ delivery, conversation }: Message, { backends }: FederationState): boolean {
  if (delivery?.state === 'failed') {
    return (
      PASSING.includes(delivery.error ?? '') && (backends[domainOf(conversation)]?.state ?? 'reachable') === 'reachable'
    );
  }
  if (delivery?.state !== 'sent') return false;
  return Object.entries(delivery.people).some(
    ([user, { trouble, delivered }]) =>
      trouble === 'unsent' && !delivered && backends[domainOf(user)]?.state === 'reachable',
  );
}

function waitingByDomain(messages: readonly Message[], now: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (const message of messages) {
    for (const { domain, state } of progressByBackend(message, now)) {
      if (state === 'held' || state === 'waiting') counts.set(domain, (counts.get(domain) ?? 0) + 1);
    }
  }
  return counts;
}
