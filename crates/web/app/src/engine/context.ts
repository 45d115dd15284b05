import type { Sender } from '../messages/send';
import type { Key } from '../model';
import type { Api } from './api';
import type { Keys } from './crypto';
import type { Database } from './database';
import type { Action, State } from './state';

/** What the features of a logged-in account work with. Only the leading tab has one. */
export interface Context {
  api: Api;
  db: Database;
  keys: Keys;
  sender: Sender;
  self: Key;
  client: string;
  state(): State;
  dispatch(action: Action): void;
  /** Resolves once everything that was dispatched is in the browser's database. */
  saved(): Promise<void>;
}
