import { type Key, keyOf, put, type QualifiedId, type Table } from '../model';

export interface Person {
  key: Key;
  name: string;
  handle?: string;
  accent: number;
  deleted?: boolean;
  /** The profile could not be fetched: the backend of the person did not answer. */
  unavailable?: boolean;
}

export type ConnectionStatus = 'sent' | 'pending' | 'accepted' | 'ignored' | 'blocked' | 'cancelled';

export interface Connection {
  user: Key;
  status: ConnectionStatus;
  conversation?: Key;
  since: string;
}

export interface PeopleState {
  people: Table<Person>;
  connections: Table<Connection>;
}

export const noPeople: PeopleState = { people: {}, connections: {} };

/** A profile as the API has it. */
export interface Profile {
  qualified_id: QualifiedId;
  name?: string;
  handle?: string;
  accent_id?: number;
  deleted?: boolean;
}

/** A connection as the API has it. */
export interface ApiConnection {
  qualified_to: QualifiedId;
  qualified_conversation?: QualifiedId;
  status: ConnectionStatus;
  last_update?: string;
}

export type PeopleAction =
  | { type: 'people/merged'; profiles: Profile[] }
  | { type: 'people/unavailable'; users: Key[] }
  | { type: 'people/changed'; user: Key; change: { name?: string; handle?: string; accent_id?: number } }
  | { type: 'people/deleted'; user: Key }
  | { type: 'people/restored'; people: Person[]; connections: Connection[] }
  | { type: 'connections/merged'; connections: ApiConnection[] };

export function personFrom(profile: Profile): Person {
  return {
    key: keyOf(profile.qualified_id),
    name: profile.name ?? '',
    handle: profile.handle,
    accent: profile.accent_id ?? 0,
    deleted: profile.deleted || undefined,
  };
}

export function connectionFrom(connection: ApiConnection): Connection {
  return {
    user: keyOf(connection.qualified_to),
    status: connection.status,
    conversation: connection.qualified_conversation && keyOf(connection.qualified_conversation),
    since: connection.last_update ?? '',
  };
}

export function reducePeople(state: PeopleState, action: PeopleAction): PeopleState {
  switch (action.type) {
    case 'people/merged': {
      const people = { ...state.people };
      for (const profile of action.profiles) {
        const person = personFrom(profile);
        people[person.key] = person;
      }
      return { ...state, people };
    }
    case 'people/unavailable': {
      const people = { ...state.people };
      for (const user of action.users) {
        const known = people[user];
        people[user] = { ...(known ?? { key: user, name: '', accent: 0 }), unavailable: true };
      }
      return { ...state, people };
    }
    case 'people/changed': {
      const known = state.people[action.user];
      if (!known) return state;
      const { name = known.name, handle = known.handle, accent_id = known.accent } = action.change;
      return { ...state, people: put(state.people, action.user, { ...known, name, handle, accent: accent_id }) };
    }
    case 'people/deleted': {
      const known = state.people[action.user];
      if (!known) return state;
      return { ...state, people: put(state.people, action.user, { ...known, deleted: true }) };
    }
    case 'people/restored':
      return {
        people: Object.fromEntries(action.people.map(person => [person.key, person])),
        connections: Object.fromEntries(action.connections.map(connection => [connection.user, connection])),
      };
    case 'connections/merged': {
      const connections = { ...state.connections };
      for (const entry of action.connections) {
        const connection = connectionFrom(entry);
        connections[connection.user] = connection;
      }
      return { ...state, connections };
    }
  }
}
