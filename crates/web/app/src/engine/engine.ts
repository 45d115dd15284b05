import { Sender } from '../messages/send';
import type { Message } from '../messages/state';
import { type Key, keyOf } from '../model';
import { type Device, noSession, type Settings } from '../session/state';
import { Account, type AccountCommands } from './account';
import { Api, ApiError } from './api';
import type { Context } from './context';
import { deleteDatabase, Keys, PREKEYS, wipeKeys } from './crypto';
import { Database } from './database';
import { type Action, initial, reduce, type State } from './state';
import { type Leader, Tabs } from './tabs';

const SETTINGS = 'aldis-settings';
/** There while the browser should have a cookie of a session: then, and only then, it is tried at the start. */
const LOGGED_IN = 'aldis-logged-in';
/** Held, shared, by every tab that is looked at. */
export const VISIBLE_LOCK = 'aldis-visible';

export interface Registration {
  email: string;
  code: string;
  name: string;
  password: string;
}

/** The whole client without its views. In a tab that does not lead it shows and forwards. */
export class Engine {
  #state: State = { ...initial, session: { ...noSession, settings: keptSettings() } };
  readonly #listeners = new Set<() => void>();
  readonly #api = new Api();
  readonly #tabs: Tabs;
  #account?: Account;
  #leading = false;
  #entering?: { user: Key; password?: string };

  /** Told of every message to notice, in the leading tab. */
  onNotice: (conversation: Key, from: Key, message: Message | undefined) => void = () => {};

  constructor() {
    this.#api.onSessionOver = () => void this.#over('expired');
    this.#tabs = new Tabs(
      state => this.#set(state),
      actions => this.#set(actions.reduce(reduce, this.#state)),
      toError,
    );
  }

  start(): void {
    this.#tabs.lead(async () => this.#lead());
  }

  readonly state = (): State => this.#state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Runs a command here or in the tab that leads. */
  async run(command: string, args: unknown[]): Promise<unknown> {
    if (!this.#leading) return this.#tabs.call(command, args);
    const table = { ...this.#account?.commands, ...this.sessionCommands } as unknown as Record<
      string,
      ((...args: unknown[]) => unknown) | undefined
    >;
    const work = table[command];
    if (!work) throw new ApiError(0, 'not-ready', command);
    return work.apply(this.#account?.commands, args);
  }

  #lead(): Leader {
    this.#leading = true;
    void this.#begin();
    return { state: this.state, run: (command, args) => this.run(command, args) };
  }

  async #begin(): Promise<void> {
    for (;;) {
      try {
        const domain = await this.#api.negotiate();
        const settings = await this.#api.call('GET', '/system/settings/unauthorized', { anonymous: true });
        const registration = settings?.setRestrictUserCreation !== true;
        this.dispatch({ type: 'session/backend', domain, registration });
        if (!localStorage.getItem(LOGGED_IN)) {
          this.dispatch({ type: 'session/stage', stage: 'logged-out' });
          return;
        }
        await this.#api.renew();
        await this.#enter();
        return;
      } catch (error) {
        if (error instanceof ApiError && error.status === 403) {
          this.dispatch({ type: 'session/stage', stage: 'logged-out' });
          return;
        }
        this.dispatch({ type: 'session/link', link: 'offline' });
        await new Promise(resolve => setTimeout(resolve, 3000));
      }
    }
  }

  readonly dispatch = (action: Action): void => {
    this.#set(reduce(this.#state, action));
    this.#tabs.broadcast(action);
    this.#account?.saveSoon();
    if (action.type === 'session/settings') {
      localStorage.setItem(SETTINGS, JSON.stringify(this.#state.session.settings));
    }
  };

  #set(state: State): void {
    if (state === this.#state) return;
    this.#state = state;
    for (const listener of this.#listeners) listener();
  }

  readonly sessionCommands = {
    login: async (email: string, password: string): Promise<void> => {
      const who = email.includes('@') ? { email } : { handle: email };
      const answer = await this.#api.call('POST', '/login', {
        query: { persist: 'true' },
        json: { ...who, password },
        anonymous: true,
      });
      this.#api.accept(answer);
      await this.#enterOrNot(password);
    },

    sendCode: async (email: string): Promise<void> => {
      await this.#api.call('POST', '/activate/send', { json: { email }, anonymous: true });
    },

    register: async ({ email, code, name, password }: Registration): Promise<void> => {
      const json = { email, email_code: code, name, password, locale: 'en', accent_id: 1, assets: [] };
      await this.#api.call('POST', '/register', { json, anonymous: true });
      await this.#api.renew();
      await this.#enterOrNot(password);
    },

    /** Goes on making this browser a device, with the password. */
    confirmPassword: async (password: string): Promise<void> => {
      await this.#enterOrNot(password);
    },

    /** Makes room for this device. */
    replaceDevice: async (id: string, password: string): Promise<void> => {
      await this.#api.call('DELETE', `/clients/${id}`, { json: { password } });
      await this.#enterOrNot(password);
    },

    logout: async (forget: boolean): Promise<void> => {
      const user = this.#state.session.self?.key ?? this.#entering?.user;
      await this.#account?.stop();
      this.#account = undefined;
      await this.#api.logout();
      localStorage.removeItem(LOGGED_IN);
      this.dispatch({ type: 'reset' });
      if (forget && user) await wipe(user);
    },
  };

  /** Enters, or is where one logs in, with the reason why. */
  async #enterOrNot(password: string): Promise<void> {
    try {
      await this.#enter(password);
    } catch (error) {
      const problem = error instanceof ApiError ? error.label : 'unknown';
      this.dispatch({ type: 'session/stage', stage: 'logged-out', problem });
      throw error;
    }
  }

  async #enter(password = this.#entering?.password): Promise<void> {
    const self = await this.#api.call('GET', '/self');
    const user = keyOf(self.qualified_id);
    this.#entering = { user, password };
    localStorage.setItem(LOGGED_IN, user);
    this.dispatch({ type: 'session/stage', stage: 'loading' });
    let db = await Database.open(user);
    let client = await db.get<string>('client');
    if (client && !(await this.#stillThere(client))) {
      db.close();
      await wipe(user);
      db = await Database.open(user);
      client = undefined;
    }
    const keys = await Keys.open(user, db);
    try {
      client ??= await this.#becomeDevice(keys, db, password);
    } catch (error) {
      db.close();
      await keys.close();
      if (await this.#needsMore(error)) return;
      throw error;
    }
    this.#entering = undefined;
    await this.#api.renew(client);
    const { name, handle, email, accent_id = 0 } = self;
    this.dispatch({ type: 'session/self', self: { key: user, name, handle, email, accent: accent_id, client } });
    await this.#startAccount({ user, client, db, keys });
  }

  async #startAccount({ user, client, db, keys }: { user: Key; client: string; db: Database; keys: Keys }) {
    const ctx: Context = {
      api: this.#api,
      db,
      keys,
      sender: new Sender(this.#api, keys, db, user, client),
      self: user,
      client,
      state: this.state,
      dispatch: this.dispatch,
      saved: () => this.#account?.save() ?? Promise.resolve(),
    };
    this.#account = new Account(ctx, {
      removed: () => void this.#over('removed'),
      notice: (conversation, from) => void this.#notice(conversation, from),
    });
    await this.#account.start();
  }

  async #stillThere(client: string): Promise<boolean> {
    try {
      await this.#api.call('GET', `/clients/${client}`);
      return true;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return false;
      throw error;
    }
  }

  async #becomeDevice(keys: Keys, db: Database, password: string | undefined): Promise<string> {
    const json = {
      type: 'permanent',
      class: 'desktop',
      label: `Aldis in ${browserName()}`,
      model: 'Aldis web',
      prekeys: await keys.prekeys(0, PREKEYS),
      lastkey: await keys.lastResort(),
      capabilities: ['legalhold-implicit-consent'],
      password,
    };
    const { id } = await this.#api.call('POST', '/clients', { json });
    await db.set('client', id);
    const last = await this.#api.call('GET', '/notifications/last', { query: { client: id }, expect: [404] });
    if (last?.id && last.payload) await db.set('last', last.id);
    return id;
  }

  /** Whether becoming a device only needs the person to do something first. */
  async #needsMore(error: unknown): Promise<boolean> {
    if (!(error instanceof ApiError) || error.status !== 403) return false;
    if (error.label === 'too-many-clients') {
      const devices: Device[] = await this.#api.call('GET', '/clients');
      this.dispatch({ type: 'session/devices', devices });
      this.dispatch({ type: 'session/stage', stage: 'too-many-devices' });
      return true;
    }
    if (error.label !== 'missing-auth' && error.label !== 'invalid-credentials') return false;
    const problem = error.label === 'missing-auth' ? undefined : error.label;
    this.dispatch({ type: 'session/stage', stage: 'password-needed', problem });
    return true;
  }

  async #over(why: 'expired' | 'removed'): Promise<void> {
    const user = this.#state.session.self?.key;
    const account = this.#account;
    this.#account = undefined;
    this.#api.forget();
    localStorage.removeItem(LOGGED_IN);
    await account?.stop();
    this.dispatch({ type: 'reset' });
    this.dispatch({ type: 'session/stage', stage: 'logged-out', ended: user ? why : undefined });
    if (why === 'removed' && user) await wipe(user);
  }

  async #notice(conversation: Key, from: Key): Promise<void> {
    const { session, conversations, messages } = this.#state;
    if (!session.settings.notifications || conversations.conversations[conversation]?.muted) return;
    const { held = [] } = await navigator.locks.query();
    if (held.some(lock => lock.name === VISIBLE_LOCK)) return;
    this.onNotice(conversation, from, messages.messages[conversation]?.at(-1));
  }
}

async function wipe(user: Key): Promise<void> {
  await wipeKeys(user);
  await deleteDatabase(Database.nameOf(user));
}

function toError(error: unknown): unknown {
  const { status = 0, label = 'no-answer', message = '', body = {} } = (error ?? {}) as Partial<ApiError>;
  return new ApiError(status, label, message, body);
}

function keptSettings(): Settings {
  try {
    return { ...noSession.settings, ...JSON.parse(localStorage.getItem(SETTINGS) ?? '{}') };
  } catch {
    return noSession.settings;
  }
}

function browserName(): string {
  const agent = navigator.userAgent;
  return (
    ['Firefox', 'Edg', 'Chrome', 'Safari'].find(name => agent.includes(name))?.replace('Edg', 'Edge') ?? 'a browser'
  );
}

export type Commands = AccountCommands & Engine['sessionCommands'];
