import {
  type ConversationsAction,
  type ConversationsState,
  noConversations,
  reduceConversations,
} from '../conversations/state';
import { type FederationAction, type FederationState, noFederation, reduceFederation } from '../federation/state';
import { type MessagesAction, type MessagesState, noMessages, reduceMessages } from '../messages/state';
import { noPeople, type PeopleAction, type PeopleState, reducePeople } from '../people/state';
import { noSession, reduceSession, type SessionAction, type SessionState } from '../session/state';

/** Everything that is shown. The same in all tabs: each applies the actions of the one that leads. */
export interface State {
  session: SessionState;
  people: PeopleState;
  conversations: ConversationsState;
  messages: MessagesState;
  federation: FederationState;
}

export type Action =
  | SessionAction
  | PeopleAction
  | ConversationsAction
  | MessagesAction
  | FederationAction
  | { type: 'reset' };

export const initial: State = {
  session: noSession,
  people: noPeople,
  conversations: noConversations,
  messages: noMessages,
  federation: noFederation,
};

export function reduce(state: State, action: Action): State {
  const slice = action.type.slice(0, action.type.indexOf('/'));
  switch (slice) {
    case 'session':
      return { ...state, session: reduceSession(state.session, action as SessionAction) };
    case 'people':
    case 'connections':
      return { ...state, people: reducePeople(state.people, action as PeopleAction) };
    case 'conversations':
      return { ...state, conversations: reduceConversations(state.conversations, action as ConversationsAction) };
    case 'messages':
      return { ...state, messages: reduceMessages(state.messages, action as MessagesAction) };
    case 'federation':
      return { ...state, federation: reduceFederation(state.federation, action as FederationAction) };
    default: {
      const { domain, registration, settings } = state.session;
      return { ...initial, session: { ...noSession, stage: 'logged-out', domain, registration, settings } };
    }
  }
}
