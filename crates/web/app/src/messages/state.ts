import { domainOf, type Key, put, type Table } from '../model';
import type { Content, Incoming, Mention } from './content';

/** What became of an own message for one person. Times are the backend's. */
export interface Progress {
  delivered?: string;
  read?: string;
  /** `unsent`: not sent to the person's backend. `held`: it did not answer, so the message is kept for it. */
  trouble?: 'unsent' | 'held';
}

export interface Delivery {
  state: 'sending' | 'sent' | 'failed';
  /** Why it failed: a label of the API, or `offline`. */
  error?: string;
  /** Those whom it was for. */
  people: Table<Progress>;
}

export interface Message {
  id: string;
  conversation: Key;
  from: Key;
  time: string;
  content: Content;
  edited?: string;
  /** Emojis by who reacted. */
  reactions: Table<string[]>;
  /** Only of own messages. */
  delivery?: Delivery;
  /** The sender wants to know when it is read. */
  expectsRead?: boolean;
}

export interface MessagesState {
  /** Per conversation, oldest first. */
  messages: Table<readonly Message[]>;
  /** Conversations of which older messages are kept than are loaded. */
  partial: Table<true>;
  /** Parts between 0 and 1 of files on their way, by message. */
  progress: Table<number>;
}

export const noMessages: MessagesState = { messages: {}, partial: {}, progress: {} };

/** The report of the backend about a message that it took. */
export interface SendReport {
  time: string;
  /** Users whose backend could not be asked and for whom nothing was sent. */
  unsent: Key[];
  /** Users whose backend could not be asked; what is for them waits. */
  held: Key[];
}

export type MessagesAction =
  | { type: 'messages/loaded'; conversation: Key; messages: Message[]; complete: boolean }
  | { type: 'messages/added'; message: Message }
  | { type: 'messages/replaced'; message: Message }
  | { type: 'messages/incoming'; conversation: Key; from: Key; time: string; incoming: Incoming }
  | { type: 'messages/sent'; conversation: Key; id: string; report: SendReport; people: Key[] }
  | { type: 'messages/failed'; conversation: Key; id: string; error: string }
  | { type: 'messages/sending'; conversation: Key; id: string }
  | { type: 'messages/content'; conversation: Key; id: string; content: Content }
  | { type: 'messages/removed'; conversation: Key; id: string }
  | { type: 'messages/progress'; id: string; part: number | undefined };

const before = (a: Message, b: Message) => a.time < b.time || (a.time === b.time && a.id < b.id);

/** `list` with a message at its place in time. One that is there already, by id and sender, stays as it is. */
export function insert(list: readonly Message[], message: Message): readonly Message[] {
  if (list.some(other => other.id === message.id)) return list;
  let place = list.length;
  while (place > 0 && before(message, list[place - 1] as Message)) place -= 1;
  return [...list.slice(0, place), message, ...list.slice(place)];
}

/** What one message becomes by another one that is about it. `undefined`: it goes. The same: nothing changes. */
export function applyTo(message: Message, from: Key, time: string, incoming: Incoming): Message | undefined {
  switch (incoming.act) {
    case 'edit': {
      if (message.from !== from || message.content.kind !== 'text') return message;
      const { text, mentions } = incoming;
      const content = { ...message.content, text, mentions };
      return { ...message, id: incoming.id, content, edited: time, reactions: {} };
    }
    case 'delete':
      if (message.from !== from || message.content.kind === 'deleted') return message;
      return { ...message, content: { kind: 'deleted' }, reactions: {}, edited: undefined };
    case 'hide':
      return undefined;
    case 'react': {
      const emojis = incoming.emojis.length > 0 ? incoming.emojis : undefined;
      return { ...message, reactions: put(message.reactions, from, emojis) };
    }
    case 'confirm':
      return confirm(message, from, time, incoming.read);
    default:
      return message;
  }
}

function confirm(message: Message, from: Key, time: string, read: boolean): Message {
  if (!message.delivery || message.from === from) return message;
  const known = message.delivery.people[from] ?? {};
  const progress: Progress = { delivered: known.delivered ?? time, read: known.read ?? (read ? time : undefined) };
  if (progress.delivered === known.delivered && progress.read === known.read) return message;
  const people = put(message.delivery.people, from, progress);
  return { ...message, delivery: { ...message.delivery, people } };
}

/** The ids of the messages that an incoming one is about. */
export function targetsOf(incoming: Incoming): string[] {
  switch (incoming.act) {
    case 'edit':
    case 'delete':
    case 'hide':
    case 'react':
      return [incoming.target];
    case 'confirm':
      return incoming.targets;
    default:
      return [];
  }
}

export function reduceMessages(state: MessagesState, action: MessagesAction): MessagesState {
  const withList = (conversation: Key, update: (list: readonly Message[]) => readonly Message[]): MessagesState => {
    const list = state.messages[conversation] ?? [];
    const next = update(list);
    return next === list ? state : { ...state, messages: put(state.messages, conversation, next) };
  };
  const change = (conversation: Key, id: string, update: (message: Message) => Message): MessagesState =>
    withList(conversation, list => list.map(message => (message.id === id ? update(message) : message)));

  switch (action.type) {
    case 'messages/loaded': {
      const loaded = withList(action.conversation, list => action.messages.reduce(insert, list));
      return { ...loaded, partial: put(loaded.partial, action.conversation, action.complete ? undefined : true) };
    }
    case 'messages/added':
      return withList(action.message.conversation, list => insert(list, action.message));
    case 'messages/replaced':
      return change(action.message.conversation, action.message.id, () => action.message);
    case 'messages/incoming':
      return withList(action.conversation, list => incomingTo(list, action));
    case 'messages/sent':
      return withList(action.conversation, list => sentIn(list, action.id, action.report, action.people));
    case 'messages/failed':
      return change(action.conversation, action.id, message => ({
        ...message,
        delivery: { people: message.delivery?.people ?? {}, state: 'failed', error: action.error },
      }));
    case 'messages/sending':
      return change(action.conversation, action.id, message => ({
        ...message,
        delivery: { people: message.delivery?.people ?? {}, state: 'sending' },
      }));
    case 'messages/content':
      return change(action.conversation, action.id, message => ({ ...message, content: action.content }));
    case 'messages/removed':
      return withList(action.conversation, list => list.filter(message => message.id !== action.id));
    case 'messages/progress':
      return { ...state, progress: put(state.progress, action.id, action.part) };
  }
}

type IncomingAction = Extract<MessagesAction, { type: 'messages/incoming' }>;

function incomingTo(list: readonly Message[], { conversation, from, time, incoming }: IncomingAction) {
  if (incoming.act === 'show') {
    const { id, content, expectsRead } = incoming;
    return show(list, { id, conversation, from, time, content, reactions: {}, expectsRead: expectsRead || undefined });
  }
  const targets = targetsOf(incoming);
  if (targets.length === 0) return list;
  let changed = false;
  const next = list.flatMap(message => {
    if (!targets.includes(message.id)) return [message];
    const applied = applyTo(message, from, time, incoming);
    changed ||= applied !== message;
    return applied ? [applied] : [];
  });
  return changed ? next : list;
}

/** A file is told twice by some apps: at first without its bytes, then with them. */
function show(list: readonly Message[], message: Message): readonly Message[] {
  const known = list.find(other => other.id === message.id);
  if (known?.content.kind === 'file' && message.content.kind === 'file' && known.from === message.from) {
    if (known.content.remote || known.delivery) return list;
    const content = { ...known.content, ...message.content };
    return list.map(other => (other === known ? { ...known, content } : other));
  }
  return insert(list, message);
}

function sentIn(list: readonly Message[], id: string, report: SendReport, people: Key[]): readonly Message[] {
  const message = list.find(other => other.id === id);
  if (!message) return list;
  const progress: Record<Key, Progress> = { ...(message.delivery?.people ?? {}) };
  for (const user of people) {
    const trouble = report.unsent.includes(user) ? 'unsent' : report.held.includes(user) ? 'held' : undefined;
    progress[user] = { ...progress[user], trouble };
  }
  const sentBefore = message.delivery && Object.keys(message.delivery.people).length > 0;
  const sent: Message = {
    ...message,
    time: sentBefore ? message.time : report.time,
    delivery: { state: 'sent', people: progress },
  };
  return insert(
    list.filter(other => other !== message),
    sent,
  );
}

/** Messages that others sent and that count as unread. */
export function unreadIn(list: readonly Message[] | undefined, self: Key, readUntil: string): number {
  let count = 0;
  for (const message of list ?? []) {
    if (message.time > readUntil && message.from !== self && countsAsUnread(message.content)) count += 1;
  }
  return count;
}

export const countsAsUnread = (content: Content): boolean => content.kind !== 'system' && content.kind !== 'deleted';

/** Whether a text mentions somebody. */
export const mentions = (list: readonly Mention[], user: Key): boolean => list.some(entry => entry.user === user);

export type BackendState = 'sending' | 'failed' | 'sent' | 'held' | 'waiting' | 'delivered' | 'read' | 'unsent';

export interface BackendProgress {
  domain: string;
  state: BackendState;
  people: { user: Key; progress: Progress }[];
  delivered: number;
  read: number;
  unsent: number;
}

/** How long nothing is said about a missing confirmation. */
export const PATIENCE_MS = 4000;

/** What became of an own message at each backend, the own one last. `now` in milliseconds; `away`: who does not answer. */
export function progressByBackend(
  message: Message,
  now: number,
  away: (domain: string) => boolean = () => false,
): BackendProgress[] {
  const { delivery } = message;
  if (!delivery) return [];
  const byDomain = new Map<string, { user: Key; progress: Progress }[]>();
  for (const [user, progress] of Object.entries(delivery.people)) {
    const domain = domainOf(user);
    byDomain.set(domain, [...(byDomain.get(domain) ?? []), { user, progress }]);
  }
  const own = domainOf(message.from);
  const late = now - Date.parse(message.time) > PATIENCE_MS;
  return [...byDomain.entries()]
    .map(([domain, people]) => backendProgress(domain, people, delivery.state, late, away(domain)))
    .sort((a, b) => Number(a.domain === own) - Number(b.domain === own) || a.domain.localeCompare(b.domain));
}

function backendProgress(
  domain: string,
  people: { user: Key; progress: Progress }[],
  sending: Delivery['state'],
  late: boolean,
  away: boolean,
): BackendProgress {
  const count = (test: (progress: Progress) => unknown) => people.filter(({ progress }) => test(progress)).length;
  const read = count(progress => progress.read);
  const delivered = count(progress => progress.delivered);
  const unsent = count(progress => progress.trouble === 'unsent' && !progress.delivered);
  const held = count(progress => progress.trouble === 'held');
  const reached = people.length - unsent;
  let state: BackendState;
  if (read > 0 && read === reached) state = 'read';
  else if (delivered > 0) state = 'delivered';
  else if (sending !== 'sent') state = sending;
  else if (unsent === people.length) state = 'unsent';
  else if (held > 0 || (late && away)) state = 'held';
  else state = late ? 'waiting' : 'sent';
  return { domain, state, people, delivered, read, unsent };
}
