import { type DBSchema, type IDBPDatabase, openDB } from 'idb';
import type { Conversation } from '../conversations/state';
import type { Message } from '../messages/state';
import type { Key } from '../model';
import type { Connection, Person } from '../people/state';
import type { State } from './state';

interface Tables extends DBSchema {
  meta: { key: string; value: unknown };
  people: { key: string; value: Person };
  connections: { key: string; value: Connection };
  conversations: { key: string; value: Conversation };
  messages: { key: [string, string]; value: Message; indexes: { time: [string, string] } };
  /** The clients of a user that have a session. */
  clients: { key: string; value: string[] };
}

/** What the browser keeps of an account. Only the leading tab writes. */
export class Database {
  private constructor(private readonly db: IDBPDatabase<Tables>) {}

  static readonly nameOf = (user: Key) => `aldis-${user}`;

  static async open(user: Key): Promise<Database> {
    const db = await openDB<Tables>(Database.nameOf(user), 1, {
      upgrade(fresh) {
        for (const name of ['meta', 'people', 'connections', 'conversations', 'clients'] as const) {
          fresh.createObjectStore(name);
        }
        const messages = fresh.createObjectStore('messages', { keyPath: ['conversation', 'id'] });
        messages.createIndex('time', ['conversation', 'time']);
      },
    });
    return new Database(db);
  }

  close(): void {
    this.db.close();
  }

  async get<T>(name: string): Promise<T | undefined> {
    return (await this.db.get('meta', name)) as T | undefined;
  }

  async set(name: string, value: unknown): Promise<void> {
    await this.db.put('meta', value, name);
  }

  people = () => this.db.getAll('people');
  connections = () => this.db.getAll('connections');
  conversations = () => this.db.getAll('conversations');
  clientsOf = (user: Key) => this.db.get('clients', user);
  message = (conversation: Key, id: string) => this.db.get('messages', [conversation, id]);

  async setClients(user: Key, clients: string[]): Promise<void> {
    if (clients.length > 0) await this.db.put('clients', clients, user);
    else await this.db.delete('clients', user);
  }

  async putMessage(message: Message): Promise<void> {
    await this.db.put('messages', message);
  }

  async deleteMessage(conversation: Key, id: string): Promise<void> {
    await this.db.delete('messages', [conversation, id]);
  }

  /** The newest messages of a conversation before `time`, at most `limit`, oldest first. */
  async messagesBefore(conversation: Key, time: string | undefined, limit: number): Promise<Message[]> {
    const upTo: [string, string] = [conversation, time ?? '\uffff'];
    const range = IDBKeyRange.bound([conversation, ''], upTo, false, true);
    const found: Message[] = [];
    let cursor = await this.db.transaction('messages').store.index('time').openCursor(range, 'prev');
    while (cursor && found.length < limit) {
      found.unshift(cursor.value);
      cursor = await cursor.continue();
    }
    return found;
  }

  /** Writes what differs between two states, all or nothing. */
  async save(from: State, to: State): Promise<void> {
    const tx = this.db.transaction(['people', 'connections', 'conversations', 'messages'], 'readwrite');
    const writes: Promise<unknown>[] = [];
    const tables = [
      ['people', from.people.people, to.people.people],
      ['connections', from.people.connections, to.people.connections],
      ['conversations', from.conversations.conversations, to.conversations.conversations],
    ] as const;
    for (const [name, old, now] of tables) {
      if (old === now) continue;
      for (const [key, value] of Object.entries(now)) {
        // biome-ignore lint/suspicious/noExplicitAny: the rows of a table fit it
        if (old[key] !== value) writes.push(tx.objectStore(name).put(value as any, key));
      }
    }
    const messages = tx.objectStore('messages');
    for (const [conversation, list] of Object.entries(to.messages.messages)) {
      const old = from.messages.messages[conversation];
      if (old === list) continue;
      const oldById = new Map((old ?? []).map(message => [message.id, message]));
      for (const message of list) {
        if (oldById.get(message.id) !== message) writes.push(messages.put(message));
        oldById.delete(message.id);
      }
      for (const id of oldById.keys()) writes.push(messages.delete([conversation, id]));
    }
    await Promise.all([...writes, tx.done]);
  }
}
