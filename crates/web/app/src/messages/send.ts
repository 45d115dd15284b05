import { create, toBinary } from '@bufbuild/protobuf';
import { encryptBytes } from '../assets/encryption';
import { type Api, ApiError } from '../engine/api';
import { plain, uuidBytes } from '../engine/bytes';
import type { Keys } from '../engine/crypto';
import type { Database } from '../engine/database';
import { EveryoneSchema, QualifiedNewOtrMessageSchema } from '../gen/otr_pb';
import { fromKey, type Key, keyOf, type QualifiedId } from '../model';
import { encodeExternal } from './codec';
import type { SendReport } from './state';

/** `domain → user → clients`, as the API has it. */
type ClientMap = Record<string, Record<string, string[]>>;

interface SendAnswer {
  time: string;
  missing?: ClientMap;
  redundant?: ClientMap;
  deleted?: ClientMap;
  failed_to_send?: ClientMap;
  failed_to_confirm_clients?: ClientMap;
}

export interface Sending {
  id: string;
  conversation: Key;
  plaintext: Uint8Array;
  /** For whom, the own user included for other own devices. */
  users: Key[];
  /** Only for these users, whoever else is a member. */
  targeted?: boolean;
  /** Not kept by backends. */
  transient?: boolean;
}

/** Rounds of finding clients that were not known. */
const ROUNDS = 4;
/** From this size on the content goes once for all, beside the messages. */
const EXTERNAL_FROM = 128 * 1024;

export const sessionId = (user: Key, client: string): string => `${user}/${client}`;

/** Encrypts for every client of some users and posts it. */
export class Sender {
  constructor(
    private readonly api: Api,
    private readonly keys: Keys,
    private readonly db: Database,
    private readonly self: Key,
    private readonly client: string,
  ) {}

  async send(sending: Sending): Promise<SendReport> {
    const unreachable = new Set<Key>();
    await this.#meet(sending.users, unreachable);
    for (let round = 0; ; round += 1) {
      const { status, answer } = await this.#post(sending, unreachable);
      await this.#forget(answer);
      if (status === 201) return report(answer, unreachable);
      if (round >= ROUNDS) throw new ApiError(412, 'clients-unsettled', 'clients change too fast');
      await this.#learn(answer.missing ?? {}, unreachable, round >= ROUNDS - 1);
    }
  }

  async #post(sending: Sending, without: Set<Key>): Promise<{ status: number; answer: SendAnswer }> {
    const recipients = new Map<string, { user: Key; client: string }>();
    for (const user of sending.users) {
      for (const client of (await this.db.clientsOf(user)) ?? []) {
        if (user !== this.self || client !== this.client) recipients.set(sessionId(user, client), { user, client });
      }
    }
    const { payload, blob } = await this.#payload(sending, recipients.size);
    const texts = await this.keys.encrypt([...recipients.keys()], payload);
    const body = toBinary(QualifiedNewOtrMessageSchema, this.#envelope(sending, recipients, texts, without, blob));
    const { id, domain } = fromKey(sending.conversation);
    try {
      const answer = await this.api.call('POST', `/conversations/${domain}/${id}/proteus/messages`, {
        body: plain(body),
        type: 'application/x-protobuf',
      });
      return { status: 201, answer };
    } catch (error) {
      if (error instanceof ApiError && error.status === 412 && error.body?.missing) {
        return { status: 412, answer: error.body };
      }
      throw error;
    }
  }

  async #payload({ id, plaintext }: Sending, count: number): Promise<{ payload: Uint8Array; blob?: Uint8Array }> {
    if (plaintext.length * Math.max(1, count) < EXTERNAL_FROM) return { payload: plaintext };
    const { bytes, secret, sha256 } = await encryptBytes(plain(plaintext));
    return { payload: encodeExternal(id, { secret, sha256 }), blob: bytes };
  }

  #envelope(
    sending: Sending,
    recipients: Map<string, { user: Key; client: string }>,
    texts: Map<string, Uint8Array>,
    without: Set<Key>,
    blob: Uint8Array | undefined,
  ) {
    const domains = new Map<string, Map<string, { client: { client: bigint }; text: Uint8Array }[]>>();
    for (const [session, { user, client }] of recipients) {
      const text = texts.get(session);
      if (!text) continue;
      const { id, domain } = fromKey(user);
      const users = domains.get(domain) ?? new Map();
      domains.set(domain, users);
      users.set(id, [...(users.get(id) ?? []), { client: { client: BigInt(`0x${client}`) }, text }]);
    }
    return create(QualifiedNewOtrMessageSchema, {
      sender: { client: BigInt(`0x${this.client}`) },
      recipients: [...domains].map(([domain, users]) => ({
        domain,
        entries: [...users].map(([user, clients]) => ({ user: { uuid: uuidBytes(user) }, clients })),
      })),
      blob,
      transient: sending.transient,
      nativePush: !sending.targeted,
      clientMismatchStrategy: strategy(sending, without),
    });
  }

  /** Finds the clients of users to whom nothing was sent yet. The backend has the last word on who is missing. */
  async #meet(users: Key[], unreachable: Set<Key>): Promise<void> {
    const strangers: Key[] = [];
    for (const user of users) {
      if (!(await this.db.clientsOf(user))) strangers.push(user);
    }
    if (strangers.length === 0) return;
    const answer = await this.api.call('POST', '/users/list-clients', {
      json: { qualified_users: strangers.map(fromKey) },
    });
    const missing: ClientMap = {};
    const found: Record<string, Record<string, { id: string }[]>> = answer.qualified_user_map ?? {};
    for (const [domain, entries] of Object.entries(found)) {
      for (const [id, clients] of Object.entries(entries)) {
        const own = keyOf({ id, domain }) === this.self;
        if (own) await this.db.setClients(this.self, [this.client]);
        const ids = clients.map(client => client.id).filter(client => !own || client !== this.client);
        if (ids.length > 0) missing[domain] = { ...missing[domain], [id]: ids };
      }
    }
    if (Object.keys(missing).length > 0) await this.#learn(missing, unreachable, false);
  }

  /** Makes sessions with clients that were missing. Whose keys cannot be had is done without. */
  async #learn(missing: ClientMap, unreachable: Set<Key>, last: boolean): Promise<void> {
    const answer = await this.api.call('POST', '/users/list-prekeys', { json: missing });
    const found: Record<
      string,
      Record<string, Record<string, { key: string } | null>>
    > = answer.qualified_user_client_prekeys ?? {};
    const prekeys = new Map<string, string>();
    const learnt = new Map<Key, string[]>();
    for (const [domain, users] of Object.entries(missing)) {
      for (const [id, clients] of Object.entries(users)) {
        const user = keyOf({ id, domain });
        for (const client of clients) {
          const prekey = found[domain]?.[id]?.[client];
          if (prekey) {
            prekeys.set(sessionId(user, client), prekey.key);
            learnt.set(user, [...(learnt.get(user) ?? []), client]);
          } else {
            unreachable.add(user);
          }
        }
        if (last) unreachable.add(user);
      }
    }
    for (const user of (answer.failed_to_list ?? []) as QualifiedId[]) unreachable.add(keyOf(user));
    await this.keys.startSessions(prekeys);
    for (const [user, clients] of learnt) {
      await this.db.setClients(user, [...new Set([...((await this.db.clientsOf(user)) ?? []), ...clients])]);
    }
  }

  /** Drops clients that are no more. */
  async #forget({ deleted = {}, redundant = {} }: SendAnswer): Promise<void> {
    for (const map of [deleted, redundant]) {
      for (const [domain, users] of Object.entries(map)) {
        for (const [id, clients] of Object.entries(users)) {
          const user = keyOf({ id, domain });
          const known = (await this.db.clientsOf(user)) ?? [];
          await this.db.setClients(
            user,
            known.filter(client => !clients.includes(client)),
          );
          if (map === deleted) for (const client of clients) await this.keys.endSession(sessionId(user, client));
        }
      }
    }
  }
}

function strategy({ targeted, users }: Sending, without: Set<Key>) {
  if (targeted) {
    const userIds = users.filter(user => !without.has(user)).map(fromKey);
    return { case: 'reportOnly' as const, value: { userIds } };
  }
  if (without.size > 0) return { case: 'ignoreOnly' as const, value: { userIds: [...without].map(fromKey) } };
  return { case: 'reportAll' as const, value: create(EveryoneSchema) };
}

const usersIn = (map: ClientMap = {}): Key[] =>
  Object.entries(map).flatMap(([domain, users]) => Object.keys(users).map(id => keyOf({ id, domain })));

function report(answer: SendAnswer, unreachable: Set<Key>): SendReport {
  return {
    time: answer.time,
    unsent: [...new Set([...usersIn(answer.failed_to_send), ...unreachable])],
    held: usersIn(answer.failed_to_confirm_clients),
  };
}
