// One user with one client, and what the tests let them do. The libraries keep cookie, keys and queues in module globals,
// so there is one person per process.

import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';

import { Account, APIClient, ClientType, MemoryEngine, MessageBuilder, WASM_FOLDER } from './libraries.js';
import { build, plain } from './payloads.js';

const PROTEUS = 'proteus';
/** API versions that the client may choose from. */
const VERSIONS = { lowest: 8, highest: Number(process.env.HIGHEST_VERSION ?? 13) };
/** Few, so that a client is made quickly. */
const PREKEYS = 10;

const digest = bytes => createHash('sha256').update(bytes).digest('hex');

const qualified = ({ domain, id }) => ({ domain, id });

export class Person {
  #account;
  #emit;
  #engines = new Map();
  #stopListening;

  /** `emit` is told everything that happens to the person. */
  constructor(emit) {
    this.#emit = emit;
  }

  /** Whether events come by `/await` and `/notifications`, or by the acknowledged socket `/events`. */
  #legacy = true;

  /** Points the client at a backend. Requests leave from `localAddress`: backends count requests per address. */
  async open({ api, websocket, localAddress, legacy = true }) {
    this.#legacy = legacy;
    http.globalAgent = new http.Agent({ keepAlive: true, localAddress });
    const client = new APIClient({ urls: { name: 'aldis', rest: api, ws: websocket } });
    const options = {
      nbPrekeys: PREKEYS,
      coreCryptoConfig: { enabled: true, wasmFilePath: WASM_FOLDER },
      createStore: name => this.#engine(name),
    };
    this.#account = new Account(client, options);
    const { version, domain, isFederated } = await this.#account.useAPIVersion(VERSIONS.lowest, VERSIONS.highest);
    if (version !== VERSIONS.highest) {
      throw new Error(`the client chose version ${version}, although ${VERSIONS.highest} is spoken`);
    }
    return { version, domain, isFederated };
  }

  /** Kept over logout and login, as a browser's database is. */
  async #engine(name) {
    if (!this.#engines.has(name)) {
      const engine = new MemoryEngine();
      await engine.init(name);
      this.#engines.set(name, engine);
    }
    return this.#engines.get(name);
  }

  get #api() {
    return this.#account.apiClient.api;
  }

  get #service() {
    return this.#account.service;
  }

  async askForCode({ email }) {
    await this.#api.user.postActivationCode({ email });
  }

  async register({ email, code, name, password }) {
    const data = { accent_id: 1, assets: [], email, email_code: code, label: 'tests', locale: 'en', name, password };
    await this.#account.register(data, ClientType.PERMANENT);
    return this.self();
  }

  async self() {
    const { qualified_id: id, email, name, handle } = await this.#service.self.getSelf();
    return { id, email, name, handle };
  }

  async setHandle({ handle }) {
    await this.#service.self.setUsername(handle);
  }

  async login({ email, password }) {
    await this.#account.login({ email, password, clientType: ClientType.PERMANENT });
    return this.self();
  }

  async createClient({ password }) {
    const client = await this.#account.registerClient({ password, clientType: ClientType.PERMANENT }, this.#legacy);
    await this.#account.initClient(client);
    return { id: client.id };
  }

  /** The client of an earlier session; `null` when there is none. */
  async loadClient() {
    const client = await this.#account.getLocalClient();
    if (!client) {
      return null;
    }
    await this.#account.initClient(client);
    return { id: client.id };
  }

  /** Goes online. Settles when everything that waited was fetched and handled. */
  async listen() {
    let live;
    const caughtUp = new Promise(resolve => {
      live = resolve;
    });
    this.#stopListening = await this.#account.listen({
      useLegacy: this.#legacy,
      onEvent: async payload => this.#happened(payload),
      onConnectionStateChanged: state => {
        this.#emit({ event: 'connection', state });
        if (state === 'live') {
          live();
        }
      },
      onMissedNotifications: id => this.#emit({ event: 'missed', id }),
    });
    await caughtUp;
  }

  /** Goes offline; the session stays. */
  async stopListening() {
    this.#stopListening?.();
    this.#stopListening = undefined;
  }

  #happened({ event, decryptedData, decryptionError }) {
    const { type, time } = event;
    const told = {
      event: 'event',
      type,
      time,
      from: event.qualified_from,
      conversation: event.qualified_conversation,
      data: event.data ?? event.connection ?? event.user ?? null,
    };
    if (decryptionError) {
      this.#emit({ ...told, event: 'undecryptable', error: String(decryptionError.message) });
    } else if (decryptedData) {
      const { content, messageId, text } = decryptedData;
      const message = { kind: content, messageId, text: text?.content, content: plain(decryptedData) };
      this.#emit({ ...told, event: 'message', data: null, ...message });
    } else {
      this.#emit(told);
    }
  }

  async search({ query, domain }) {
    const { response } = await this.#api.user.getSearchContacts(query, 15, domain);
    const { documents } = await response;
    return documents.map(({ qualified_id: id, name, handle }) => ({ id, name, handle }));
  }

  async userByHandle({ domain, handle }) {
    const { qualified_id: id, name } = await this.#api.user.getUserByHandle({ domain, handle });
    return { id, name, handle };
  }

  async connect({ user }) {
    return this.#connection(await this.#service.connection.createConnection(qualified(user)));
  }

  async accept({ user }) {
    return this.#connection(await this.#service.connection.acceptConnection(qualified(user)));
  }

  async connections() {
    return (await this.#service.connection.getConnections()).map(connection => this.#connection(connection));
  }

  #connection({ status, qualified_to: to, qualified_conversation: conversation }) {
    return { status, to, conversation };
  }

  async createGroup({ name, users }) {
    const group = await this.#service.conversation.createProteusConversation({
      name,
      receipt_mode: null,
      access: ['invite', 'code'],
      access_role: ['team_member', 'non_team_member', 'guest', 'service'],
      conversation_role: 'wire_member',
      qualified_users: users.map(qualified),
      users: [],
      protocol: PROTEUS,
    });
    const { conversation = group, failedToAdd = [] } = group;
    return { id: conversation.qualified_id, failedToAdd };
  }

  async addToGroup({ conversation, users }) {
    await this.#service.conversation.addUsersToProteusConversation({
      conversationId: qualified(conversation),
      qualifiedUsers: users.map(qualified),
    });
  }

  async leave({ conversation }) {
    const { id } = await this.self();
    await this.#service.conversation.removeUserFromConversation(qualified(conversation), id);
  }

  async rename({ conversation, name }) {
    await this.#api.conversation.putConversation(qualified(conversation), { name });
  }

  async conversation({ conversation }) {
    const found = await this.#service.conversation.getConversation(qualified(conversation));
    const others = found.members.others.map(member => member.qualified_id);
    return { name: found.name, type: found.type, protocol: found.protocol, others };
  }

  async conversations() {
    const { found = [] } = await this.#service.conversation.getConversations();
    return found.map(({ qualified_id: id, name, type }) => ({ id, name, type }));
  }

  /**
   * Sends a text. With `recipients` (`{domain: {user: [client]}}`) to the devices that the sender knows of, as apps do: the
   * backend names those that are missing, and `mismatches` says which. Without, to those that the backend lists.
   */
  async sendText({ conversation, text, recipients }) {
    const mismatches = [];
    const { id, sentAt, state, failedToSend } = await this.#service.conversation.send({
      protocol: PROTEUS,
      conversationId: qualified(conversation),
      payload: MessageBuilder.buildTextMessage({ text }),
      userIds: recipients,
      onClientMismatch: async ({ missing, deleted }) => {
        mismatches.push({ missing, deleted });
        return true;
      },
    });
    return { messageId: id, sentAt, state, failedToSend: failedToSend ?? null, mismatches };
  }

  /** Sends a payload of any kind to every device in the conversation; gives its id. */
  async sendPayload({ conversation, payload }) {
    const { id, sentAt, state } = await this.#service.conversation.send({
      protocol: PROTEUS,
      conversationId: qualified(conversation),
      payload: build(payload),
    });
    return { messageId: id, sentAt, state };
  }

  /**
   * Encrypts and stores random bytes; gives what others need to read them, and the digest of the bytes. Names the
   * conversation that they are for, as apps do where files are audited, if there is one.
   */
  async storeFile({ size, conversation }) {
    const content = new Uint8Array(randomBytes(size));
    const named = { conversationId: conversation && qualified(conversation), filename: 'plan.png', filetype: 'image/png' };
    const options = { public: false, retention: 'persistent', auditData: conversation && named };
    const { response } = await this.#service.asset.uploadAsset(content, options);
    const { key, token, domain, keyBytes, sha256 } = await response;
    const encode = bytes => Buffer.from(bytes).toString('base64');
    return { asset: { key, token, domain, keyBytes: encode(keyBytes), sha256: encode(sha256) }, digest: digest(content) };
  }

  /** Fetches and decrypts a file; gives the digest of its bytes. */
  async readFile({ asset: { key, token, domain, keyBytes, sha256 } }) {
    const decode = text => new Uint8Array(Buffer.from(text, 'base64'));
    const where = { assetKey: key, assetDomain: domain, assetToken: token };
    const { response } = this.#service.asset.downloadAsset(where, decode(keyBytes), decode(sha256));
    const { buffer } = await response;
    return { digest: digest(new Uint8Array(buffer)) };
  }

  async setReceiptMode({ conversation, receiptMode }) {
    await this.#api.conversation.putConversationReceiptMode(qualified(conversation), { receipt_mode: receiptMode });
  }

  async removeClient({ client, password }) {
    await this.#service.client.deleteClient(client, password);
  }

  async logout() {
    await this.stopListening();
    await this.#account.logout();
  }

  /** Whether a request of the session still works. */
  async clients() {
    return (await this.#api.client.getClients()).map(({ id, class: kind, label }) => ({ id, class: kind, label }));
  }
}
