import { type Key, keyOf, put, type QualifiedId, type Table } from '../model';

export type ConversationKind = 'group' | 'self' | 'one-to-one' | 'connect';
const KINDS: ConversationKind[] = ['group', 'self', 'one-to-one', 'connect'];

export type Role = 'wire_admin' | 'wire_member';

export interface Conversation {
  key: Key;
  kind: ConversationKind;
  name?: string;
  /** The others, with their roles. */
  members: Table<Role>;
  role: Role;
  /** Whether the own user is still in it. */
  member: boolean;
  receipts: boolean;
  muted: boolean;
  archived: boolean;
  /** The backend that owns it did not answer: what is shown may be old. */
  unavailable?: boolean;
  /** Everything up to this time was read. */
  readUntil: string;
  /** When something last happened. */
  activeAt: string;
}

export interface ConversationsState {
  conversations: Table<Conversation>;
  /** Who types where, and until when that is believed (milliseconds since 1970). */
  typing: Table<Table<number>>;
}

export const noConversations: ConversationsState = { conversations: {}, typing: {} };

interface ApiMember {
  qualified_id: QualifiedId;
  conversation_role?: Role;
}

/** A conversation as the API has it, of any version, and in events. */
export interface ApiConversation {
  qualified_id: QualifiedId;
  type: number;
  name?: string | null;
  receipt_mode?: number | null;
  members: {
    self?: ApiMember & { otr_archived?: boolean; otr_muted_status?: number | null };
    others: ApiMember[];
  };
}

/** An event of a conversation as the backend sends it. */
export interface ConversationEvent {
  type: string;
  qualified_conversation: QualifiedId;
  qualified_from?: QualifiedId;
  time: string;
  // biome-ignore lint/suspicious/noExplicitAny: the shape depends on the type, and each is read with care below
  data: any;
}

export type ConversationsAction =
  | { type: 'conversations/merged'; conversations: ApiConversation[]; time?: string }
  | { type: 'conversations/restored'; conversations: Conversation[] }
  | { type: 'conversations/unavailable'; conversations: Key[] }
  | { type: 'conversations/gone'; conversations: Key[] }
  | { type: 'conversations/event'; event: ConversationEvent; self: Key }
  | { type: 'conversations/self'; conversation: Key; change: Partial<Pick<Conversation, 'muted' | 'archived'>> }
  | { type: 'conversations/read'; conversation: Key; until: string }
  | { type: 'conversations/active'; conversation: Key; time: string }
  | { type: 'conversations/typing'; conversation: Key; user: Key; until: number | undefined };

const EPOCH = '1970-01-01T00:00:00.000Z';
/** Values of `otr_muted_status` from this on mean that nothing is notified. */
const MUTED = 1;

export function conversationFrom(found: ApiConversation, known?: Conversation, time?: string): Conversation {
  const self = found.members.self;
  const members: Record<Key, Role> = {};
  for (const other of found.members.others) {
    members[keyOf(other.qualified_id)] = other.conversation_role ?? 'wire_member';
  }
  return {
    key: keyOf(found.qualified_id),
    kind: KINDS[found.type] ?? 'group',
    name: found.name ?? undefined,
    members,
    role: self?.conversation_role ?? 'wire_member',
    member: self !== undefined || found.type !== 0,
    receipts: (found.receipt_mode ?? 0) > 0,
    muted: (self?.otr_muted_status ?? 0) >= MUTED,
    archived: self?.otr_archived ?? false,
    readUntil: known?.readUntil ?? EPOCH,
    activeAt: known?.activeAt ?? time ?? EPOCH,
  };
}

export function reduceConversations(state: ConversationsState, action: ConversationsAction): ConversationsState {
  const change = (key: Key, update: (known: Conversation) => Conversation): ConversationsState => {
    const known = state.conversations[key];
    return known ? { ...state, conversations: put(state.conversations, key, update(known)) } : state;
  };
  switch (action.type) {
    case 'conversations/merged': {
      const conversations = { ...state.conversations };
      for (const found of action.conversations) {
        const key = keyOf(found.qualified_id);
        conversations[key] = conversationFrom(found, conversations[key], action.time);
      }
      return { ...state, conversations };
    }
    case 'conversations/restored': {
      const conversations = Object.fromEntries(action.conversations.map(entry => [entry.key, entry]));
      return { ...state, conversations };
    }
    case 'conversations/unavailable': {
      const conversations = { ...state.conversations };
      for (const key of action.conversations) {
        conversations[key] = { ...(conversations[key] ?? blank(key)), unavailable: true };
      }
      return { ...state, conversations };
    }
    case 'conversations/gone': {
      const conversations = { ...state.conversations };
      for (const key of action.conversations) {
        const known = conversations[key];
        if (known) conversations[key] = { ...known, member: false };
      }
      return { ...state, conversations };
    }
    case 'conversations/event':
      return change(keyOf(action.event.qualified_conversation), known => applyEvent(known, action.event, action.self));
    case 'conversations/self':
      return change(action.conversation, known => ({ ...known, ...action.change }));
    case 'conversations/read':
      return change(action.conversation, known =>
        action.until > known.readUntil ? { ...known, readUntil: action.until } : known,
      );
    case 'conversations/active':
      return change(action.conversation, known =>
        action.time > known.activeAt ? { ...known, activeAt: action.time } : known,
      );
    case 'conversations/typing': {
      const typing = put(state.typing[action.conversation] ?? {}, action.user, action.until);
      return { ...state, typing: put(state.typing, action.conversation, typing) };
    }
  }
}

function blank(key: Key): Conversation {
  return {
    key,
    kind: 'group',
    members: {},
    role: 'wire_member',
    member: true,
    receipts: false,
    muted: false,
    archived: false,
    readUntil: EPOCH,
    activeAt: EPOCH,
  };
}

/** What an event of the backend makes of a conversation. Events of kinds that are not known change nothing. */
function applyEvent(known: Conversation, event: ConversationEvent, self: Key): Conversation {
  const data = event.data ?? {};
  switch (event.type) {
    case 'conversation.rename':
      return { ...known, name: data.name };
    case 'conversation.receipt-mode-update':
      return { ...known, receipts: data.receipt_mode > 0 };
    case 'conversation.member-join': {
      const members = { ...known.members };
      let member = known.member;
      for (const joined of (data.users ?? []) as ApiMember[]) {
        const key = keyOf(joined.qualified_id);
        if (key === self) member = true;
        else members[key] = joined.conversation_role ?? 'wire_member';
      }
      // The other one joins a conversation that was only asked for.
      const kind = known.kind === 'connect' ? 'one-to-one' : known.kind;
      return { ...known, kind, members, member };
    }
    case 'conversation.member-leave': {
      const members = { ...known.members };
      let member = known.member;
      for (const left of (data.qualified_user_ids ?? []) as QualifiedId[]) {
        const key = keyOf(left);
        if (key === self) member = false;
        else delete members[key];
      }
      return { ...known, members, member };
    }
    case 'conversation.member-update':
      return applyMemberUpdate(known, data, self);
    case 'conversation.delete':
      return { ...known, member: false };
    default:
      return known;
  }
}

// biome-ignore lint/suspicious/noExplicitAny: see ConversationEvent
function applyMemberUpdate(known: Conversation, data: any, self: Key): Conversation {
  const target = data.qualified_target ? keyOf(data.qualified_target) : self;
  if (target !== self) {
    if (!known.members[target] || !data.conversation_role) return known;
    return { ...known, members: put(known.members, target, data.conversation_role) };
  }
  return {
    ...known,
    role: data.conversation_role ?? known.role,
    muted: data.otr_muted_status == null ? known.muted : data.otr_muted_status >= MUTED,
    archived: data.otr_archived ?? known.archived,
  };
}
