import { decryptBytes, encryptBytes } from '../assets/encryption';
import { ApiError, assetForm } from '../engine/api';
import { plain } from '../engine/bytes';
import type { Context } from '../engine/context';
import { fromKey, type Key } from '../model';
import { encode, type Outgoing, quoteHash } from './codec';
import type { Content, FileContent, Incoming, Mention } from './content';
import type { Message, SendReport } from './state';

/** Messages that are read from the browser's database at a time. */
export const PAGE = 100;
/** What a backend takes for a personal account, without the encryption around it. */
export const LARGEST_FILE_BYTES = 25 * 1024 * 1024;
/** Groups of more people do not confirm each delivery. */
export const CONFIRMED_UP_TO = 60;

const PROGRESS_STEPS = 50;

export interface TextDraft {
  text: string;
  mentions: Mention[];
  quote?: string;
}

/** Tells a part of the whole only when it grew by a step that can be seen. */
function inSteps(tell: (part: number) => void): (part: number) => void {
  let last = -1;
  return part => {
    const step = Math.floor(part * PROGRESS_STEPS);
    if (step > last) tell(part);
    last = Math.max(last, step);
  };
}

const labelOf = (error: unknown): string => (error instanceof ApiError ? error.label : 'unknown');

/** What a person can do with messages. */
export function messageCommands(ctx: Context) {
  /** What is sent to one conversation leaves in order. */
  const lines = new Map<Key, Promise<unknown>>();
  /** Files whose bytes are not sent yet, for trying again. */
  const files = new Map<string, File>();

  function inLine<T>(conversation: Key, work: () => Promise<T>): Promise<T> {
    const next = (lines.get(conversation) ?? Promise.resolve()).then(work, work);
    lines.set(
      conversation,
      next.catch(() => undefined),
    );
    return next;
  }

  const conversationOf = (key: Key) => ctx.state().conversations.conversations[key];
  const listOf = (key: Key) => ctx.state().messages.messages[key] ?? [];
  const messageOf = (key: Key, id: string) => listOf(key).find(message => message.id === id);
  const othersIn = (key: Key) => Object.keys(conversationOf(key)?.members ?? {});
  const expectsRead = (key: Key) => {
    const conversation = conversationOf(key);
    if (!conversation) return false;
    return conversation.kind === 'group' ? conversation.receipts : ctx.state().session.settings.readReceipts;
  };

  function note(report: SendReport): void {
    const domains = (users: Key[]) => [...new Set(users.map(user => fromKey(user).domain))];
    const unreachable = domains([...report.held, ...report.unsent]).filter(d => d !== fromKey(ctx.self).domain);
    if (unreachable.length > 0) {
      ctx.dispatch({ type: 'federation/unreachable', domains: unreachable, time: new Date().toISOString() });
    }
  }

  /** Sends something that is not shown as a message of its own. */
  async function sendQuietly(conversation: Key, outgoing: Outgoing, users?: Key[]): Promise<void> {
    const sending = {
      id: outgoing.id,
      conversation,
      plaintext: encode(outgoing),
      users: users ?? [...othersIn(conversation), ctx.self],
      targeted: users !== undefined,
    };
    note(await inLine(conversation, () => ctx.sender.send(sending)));
  }

  /** Shows here what of ours others are told. */
  function show(conversation: Key, incoming: Incoming, time = new Date().toISOString()): void {
    ctx.dispatch({ type: 'messages/incoming', conversation, from: ctx.self, time, incoming });
  }

  function add(conversation: Key, id: string, content: Content): Message {
    const newest = listOf(conversation).at(-1)?.time ?? '';
    const now = new Date().toISOString();
    const message: Message = {
      id,
      conversation,
      from: ctx.self,
      time: now > newest ? now : newest,
      content,
      reactions: {},
      delivery: { state: 'sending', people: {} },
    };
    ctx.dispatch({ type: 'messages/added', message });
    ctx.dispatch({ type: 'conversations/active', conversation, time: message.time });
    ctx.dispatch({ type: 'conversations/read', conversation, until: message.time });
    return message;
  }

  /** Sends what is shown already, to everybody or to those who did not get it. */
  async function deliver(conversation: Key, outgoing: Outgoing, only?: Key[]): Promise<void> {
    const { id } = outgoing;
    const people = only ?? othersIn(conversation);
    const users = only ?? [...people, ctx.self];
    try {
      const plaintext = encode(outgoing);
      const sending = { id, conversation, plaintext, users, targeted: only !== undefined };
      const report = await inLine(conversation, () => ctx.sender.send(sending));
      ctx.dispatch({ type: 'messages/sent', conversation, id, report, people });
      note(report);
    } catch (error) {
      const domains = error instanceof ApiError && error.domain ? [error.domain] : [];
      const time = new Date().toISOString();
      if (domains.length > 0) ctx.dispatch({ type: 'federation/unreachable', domains, time, label: labelOf(error) });
      ctx.dispatch({ type: 'messages/failed', conversation, id, error: labelOf(error) });
    }
  }

  async function outgoingFor(message: Message): Promise<Outgoing | undefined> {
    const { id, content, conversation } = message;
    const expects = expectsRead(conversation);
    switch (content.kind) {
      case 'text': {
        const quoted = content.quote ? messageOf(conversation, content.quote) : undefined;
        const hash = quoted?.content.kind === 'text' ? await quoteHash(quoted.content.text, quoted.time) : undefined;
        return { act: 'text', id, content, quoteHash: hash, expectsRead: expects };
      }
      case 'ping':
        return { act: 'ping', id, expectsRead: expects };
      case 'file':
        return { act: 'file', id, content, expectsRead: expects };
      default:
        return undefined;
    }
  }

  async function upload(message: Message, file: File, content: FileContent): Promise<void> {
    const { conversation, id } = message;
    try {
      const { bytes, secret, sha256 } = await encryptBytes(await file.arrayBuffer());
      const { body, type } = assetForm(bytes, false);
      const progress = inSteps(part => ctx.dispatch({ type: 'messages/progress', id, part }));
      const stored = await ctx.api.upload('/assets', body, type, progress);
      const { key, token, domain = fromKey(ctx.self).domain } = stored;
      const whole: FileContent = { ...content, remote: { key, domain, token, secret, sha256, algorithm: 'cbc' } };
      ctx.dispatch({ type: 'messages/content', conversation, id, content: whole });
      files.delete(id);
      await deliver(conversation, { act: 'file', id, content: whole, expectsRead: expectsRead(conversation) });
    } catch (error) {
      ctx.dispatch({ type: 'messages/failed', conversation, id, error: labelOf(error) });
    } finally {
      ctx.dispatch({ type: 'messages/progress', id, part: undefined });
    }
  }

  return {
    async sendText(conversation: Key, { text, mentions, quote }: TextDraft): Promise<void> {
      const message = add(conversation, crypto.randomUUID(), { kind: 'text', text, mentions, quote });
      const outgoing = await outgoingFor(message);
      if (outgoing) await deliver(conversation, outgoing);
    },

    async sendPing(conversation: Key): Promise<void> {
      const { id } = add(conversation, crypto.randomUUID(), { kind: 'ping' });
      await deliver(conversation, { act: 'ping', id, expectsRead: expectsRead(conversation) });
    },

    /** Encrypts and sends a file. Resolves when it is on its way; the rest is seen at the message. */
    async sendFile(conversation: Key, file: File, image?: { width: number; height: number }): Promise<void> {
      if (file.size > LARGEST_FILE_BYTES) throw new ApiError(413, 'file-too-large', 'file too large');
      if (file.size === 0) throw new ApiError(400, 'file-empty', 'file is empty');
      const mime = file.type || 'application/octet-stream';
      const content: FileContent = { kind: 'file', mime, size: file.size, name: file.name, image };
      const message = add(conversation, crypto.randomUUID(), content);
      files.set(message.id, file);
      await upload(message, file, content);
    },

    /** Tries again what failed, or to reach those who did not get it. */
    async sendAgain(conversation: Key, id: string): Promise<void> {
      const message = messageOf(conversation, id);
      if (!message?.delivery) return;
      const file = files.get(id);
      if (message.content.kind === 'file' && !message.content.remote) {
        if (!file) throw new ApiError(0, 'file-gone', 'the file has to be chosen again');
        ctx.dispatch({ type: 'messages/sending', conversation, id });
        await upload(message, file, message.content);
        return;
      }
      const outgoing = await outgoingFor(message);
      if (!outgoing) return;
      const missed = Object.entries(message.delivery.people).filter(([, { trouble }]) => trouble === 'unsent');
      const only = message.delivery.state === 'sent' ? missed.map(([user]) => user) : undefined;
      if (only?.length === 0) return;
      ctx.dispatch({ type: 'messages/sending', conversation, id });
      await deliver(conversation, outgoing, only);
    },

    /** Forgets an own message that was never sent. */
    async discard(conversation: Key, id: string): Promise<void> {
      files.delete(id);
      ctx.dispatch({ type: 'messages/removed', conversation, id });
    },

    async edit(conversation: Key, target: string, text: string, mentions: Mention[]): Promise<void> {
      const id = crypto.randomUUID();
      await sendQuietly(conversation, {
        act: 'edit',
        id,
        target,
        text,
        mentions,
        expectsRead: expectsRead(conversation),
      });
      show(conversation, { act: 'edit', id, target, text, mentions });
    },

    async deleteForAll(conversation: Key, target: string): Promise<void> {
      await sendQuietly(conversation, { act: 'delete', id: crypto.randomUUID(), target });
      show(conversation, { act: 'delete', target });
    },

    /** Adds an own reaction, or takes it back when it is there. */
    async react(conversation: Key, target: string, emoji: string): Promise<void> {
      const own = messageOf(conversation, target)?.reactions[ctx.self] ?? [];
      const emojis = own.includes(emoji) ? own.filter(other => other !== emoji) : [...own, emoji];
      const time = new Date().toISOString();
      show(conversation, { act: 'react', target, emojis }, time);
      try {
        await sendQuietly(conversation, { act: 'react', id: crypto.randomUUID(), target, emojis });
      } catch (error) {
        show(conversation, { act: 'react', target, emojis: own }, time);
        throw error;
      }
    },

    /** Tells a sender that messages came, or were read. */
    async confirm(conversation: Key, sender: Key, targets: string[], read: boolean): Promise<void> {
      if (targets.length === 0) return;
      await sendQuietly(conversation, { act: 'confirm', id: crypto.randomUUID(), targets, read }, [sender]);
    },

    /** Begins anew with the devices of somebody whose message could not be decrypted. */
    async resetSession(conversation: Key, user: Key): Promise<void> {
      await sendQuietly(conversation, { act: 'reset-session', id: crypto.randomUUID() }, [user]);
    },

    /** Everything in a conversation was seen. Tells senders who want to know, and own other devices. */
    async markRead(conversation: Key): Promise<void> {
      const known = conversationOf(conversation);
      const newest = listOf(conversation).at(-1);
      if (!known || !newest || newest.time <= known.readUntil) return;
      const fresh = listOf(conversation).filter(m => m.time > known.readUntil && m.from !== ctx.self);
      ctx.dispatch({ type: 'conversations/read', conversation, until: newest.time });
      const bySender = new Map<Key, string[]>();
      for (const message of fresh) {
        if (!message.expectsRead) continue;
        bySender.set(message.from, [...(bySender.get(message.from) ?? []), message.id]);
      }
      if (known.kind === 'group' ? known.receipts : ctx.state().session.settings.readReceipts) {
        for (const [sender, ids] of bySender) {
          await this.confirm(conversation, sender, ids, true).catch(() => undefined);
        }
      }
      const devices = (await ctx.db.clientsOf(ctx.self)) ?? [];
      if (devices.some(client => client !== ctx.client) && fresh.length > 0) {
        const outgoing: Outgoing = { act: 'last-read', id: crypto.randomUUID(), conversation, until: newest.time };
        // The conversation of a person with oneself has the person's id.
        await sendQuietly(ctx.self, outgoing, [ctx.self]).catch(() => undefined);
      }
    },

    /** Reads older messages from the browser's database. */
    async loadOlder(conversation: Key): Promise<void> {
      const oldest = listOf(conversation)[0]?.time;
      const messages = await ctx.db.messagesBefore(conversation, oldest, PAGE);
      ctx.dispatch({ type: 'messages/loaded', conversation, messages, complete: messages.length < PAGE });
    },

    /** Fetches and decrypts a file. */
    async download(conversation: Key, id: string): Promise<Blob> {
      const content = messageOf(conversation, id)?.content;
      if (content?.kind !== 'file' || !content.remote) throw new ApiError(404, 'not-found', 'no such file');
      const { key, domain, token, secret, sha256, algorithm } = content.remote;
      const headers: Record<string, string> = token ? { 'Asset-Token': token } : {};
      const path = `/assets/${encodeURIComponent(domain)}/${encodeURIComponent(key)}`;
      const progress = inSteps(part => ctx.dispatch({ type: 'messages/progress', id, part }));
      try {
        const bytes = await ctx.api.download(path, headers, content.size, progress);
        return new Blob([await decryptBytes(plain(bytes), secret, sha256, algorithm)], { type: content.mime });
      } finally {
        ctx.dispatch({ type: 'messages/progress', id, part: undefined });
      }
    },
  };
}
