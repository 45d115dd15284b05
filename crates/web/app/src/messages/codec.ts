import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  type Asset,
  AssetSchema,
  ClientAction,
  ConfirmationType,
  EncryptionAlgorithm,
  type GenericMessage,
  GenericMessageSchema,
  MentionSchema,
  NotUploaded,
  type Text,
  TextSchema,
} from '../gen/messages_pb';
import { fromKey, type Key, keyOf } from '../model';
import type { Content, FileContent, Incoming, Mention, TextContent } from './content';

export type Outgoing =
  | { act: 'text'; id: string; content: TextContent; quoteHash?: Uint8Array; expectsRead: boolean }
  | { act: 'edit'; id: string; target: string; text: string; mentions: Mention[]; expectsRead: boolean }
  | { act: 'file'; id: string; content: FileContent; expectsRead: boolean }
  | { act: 'ping'; id: string; expectsRead: boolean }
  | { act: 'delete'; id: string; target: string }
  | { act: 'react'; id: string; target: string; emojis: string[] }
  | { act: 'confirm'; id: string; targets: string[]; read: boolean }
  | { act: 'last-read'; id: string; conversation: Key; until: string }
  | { act: 'reset-session'; id: string };

/** The bytes that are encrypted. */
export function encode(outgoing: Outgoing): Uint8Array {
  return toBinary(
    GenericMessageSchema,
    create(GenericMessageSchema, { messageId: outgoing.id, content: part(outgoing) }),
  );
}

type Part = Exclude<GenericMessage['content'], { case: undefined }>;

function part(outgoing: Outgoing): Part {
  switch (outgoing.act) {
    case 'text': {
      const { text, mentions, quote } = outgoing.content;
      const value = textOf(text, mentions, outgoing.expectsRead);
      if (quote) {
        value.quote = create(TextSchema, {
          content: '',
          quote: { quotedMessageId: quote, quotedMessageSha256: outgoing.quoteHash },
        }).quote;
      }
      return { case: 'text', value };
    }
    case 'edit': {
      const text = textOf(outgoing.text, outgoing.mentions, outgoing.expectsRead);
      const wrapped = create(GenericMessageSchema, {
        messageId: '',
        content: { case: 'edited', value: { replacingMessageId: outgoing.target, text } },
      });
      return wrapped.content as Part;
    }
    case 'file':
      return { case: 'asset', value: assetOf(outgoing.content, outgoing.expectsRead) };
    case 'ping':
      return build({ case: 'knock', value: { hotKnock: false, expectsReadConfirmation: outgoing.expectsRead } });
    case 'delete':
      return build({ case: 'deleted', value: { messageId: outgoing.target } });
    case 'react':
      return build({ case: 'reaction', value: { messageId: outgoing.target, emoji: outgoing.emojis.join(',') } });
    case 'confirm': {
      const [firstMessageId = '', ...moreMessageIds] = outgoing.targets;
      const type = outgoing.read ? ConfirmationType.READ : ConfirmationType.DELIVERED;
      return build({ case: 'confirmation', value: { firstMessageId, moreMessageIds, type } });
    }
    case 'reset-session':
      return build({ case: 'clientAction', value: ClientAction.RESET_SESSION });
    case 'last-read': {
      const { id, domain } = fromKey(outgoing.conversation);
      const lastReadTimestamp = BigInt(Date.parse(outgoing.until));
      const qualifiedConversationId = { id, domain };
      return build({ case: 'lastRead', value: { conversationId: id, lastReadTimestamp, qualifiedConversationId } });
    }
  }
}

type Init = NonNullable<Parameters<typeof create<typeof GenericMessageSchema>>[1]>;

const build = (content: NonNullable<Init['content']>): Part =>
  create(GenericMessageSchema, { messageId: '', content }).content as Part;

function textOf(content: string, mentions: Mention[], expectsReadConfirmation: boolean): Text {
  return create(TextSchema, {
    content,
    expectsReadConfirmation,
    mentions: mentions.map(({ start, length, user }) => {
      const { id, domain } = fromKey(user);
      return create(MentionSchema, { start, length, userId: id, qualifiedUserId: { id, domain } });
    }),
  });
}

function assetOf({ mime, size, name, image, remote, failed }: FileContent, expectsReadConfirmation: boolean): Asset {
  return create(AssetSchema, {
    expectsReadConfirmation,
    original: { mimeType: mime, size: BigInt(size), name, image },
    status: remote
      ? {
          case: 'uploaded',
          value: {
            otrKey: remote.secret,
            sha256: remote.sha256,
            assetId: remote.key,
            assetToken: remote.token,
            assetDomain: remote.domain,
            encryption: EncryptionAlgorithm.AES_CBC,
          },
        }
      : failed
        ? { case: 'notUploaded', value: NotUploaded.FAILED }
        : { case: undefined },
  });
}

/** The key and hash with which the real content is encrypted beside the message, when it was too large for it. */
export interface ExternalKey {
  secret: Uint8Array;
  sha256?: Uint8Array;
}

export function encodeExternal(id: string, { secret, sha256 }: ExternalKey): Uint8Array {
  const content = build({
    case: 'external',
    value: { otrKey: secret, sha256, encryption: EncryptionAlgorithm.AES_CBC },
  });
  return toBinary(GenericMessageSchema, create(GenericMessageSchema, { messageId: id, content }));
}

/** Reads decrypted bytes. What cannot be read is a message that says so. */
export function decode(bytes: Uint8Array): { message: GenericMessage; external?: ExternalKey } {
  const message = fromBinary(GenericMessageSchema, bytes);
  if (message.content.case !== 'external') return { message };
  return { message, external: { secret: message.content.value.otrKey, sha256: message.content.value.sha256 } };
}

/** What a message asks for. `domain` is the sender's, for old messages that name users without one. */
export function incomingOf(message: GenericMessage, domain: string): Incoming {
  const { messageId: id, content } = message;
  const show = (shown: Content, expectsRead = false): Incoming => ({ act: 'show', id, content: shown, expectsRead });
  switch (content.case) {
    case 'text':
      return show(textFrom(content.value, domain), content.value.expectsReadConfirmation);
    case 'asset':
      return show(fileFrom(content.value, domain), content.value.expectsReadConfirmation);
    case 'knock':
      return show({ kind: 'ping' }, content.value.expectsReadConfirmation);
    case 'location': {
      const { latitude, longitude, name } = content.value;
      return show({ kind: 'location', latitude, longitude, name: name || undefined });
    }
    case 'ephemeral': {
      const inner = content.value.content;
      if (inner.case === 'text') return show(textFrom(inner.value, domain));
      if (inner.case === 'asset') return show(fileFrom(inner.value, domain));
      return inner.case === 'knock' ? show({ kind: 'ping' }) : { act: 'ignore' };
    }
    case 'edited': {
      const { replacingMessageId: target, text } = content.value;
      if (!text) return { act: 'ignore' };
      return { act: 'edit', id, target, text: text.content, mentions: mentionsFrom(text, domain) };
    }
    case 'deleted':
      return { act: 'delete', target: content.value.messageId };
    case 'hidden': {
      const { qualifiedConversationId, conversationId, messageId } = content.value;
      const conversation = keyOf(qualifiedConversationId ?? { id: conversationId, domain });
      return { act: 'hide', conversation, target: messageId };
    }
    case 'reaction': {
      const emojis = content.value.emoji.split(',').map(emoji => emoji.trim());
      return { act: 'react', target: content.value.messageId, emojis: emojis.filter(emoji => emoji.length > 0) };
    }
    case 'confirmation': {
      const { firstMessageId, moreMessageIds, type } = content.value;
      return { act: 'confirm', targets: [firstMessageId, ...moreMessageIds], read: type === ConfirmationType.READ };
    }
    case 'lastRead': {
      const { qualifiedConversationId, conversationId, lastReadTimestamp } = content.value;
      const conversation = keyOf(qualifiedConversationId ?? { id: conversationId, domain });
      return { act: 'last-read', conversation, until: isoTime(lastReadTimestamp) };
    }
    case 'clientAction':
      return { act: 'reset-session' };
    case undefined:
      return show({ kind: 'unreadable', reason: 'unknown' });
    default:
      return { act: 'ignore' };
  }
}

/** The furthest time that a `Date` can be. */
const LAST_TIME = 8_640_000_000_000_000n;

function isoTime(milliseconds: bigint): string {
  const within = milliseconds < 0n ? 0n : milliseconds > LAST_TIME ? LAST_TIME : milliseconds;
  return new Date(Number(within)).toISOString();
}

function textFrom(text: Text, domain: string): TextContent {
  const quote = text.quote?.quotedMessageId || undefined;
  return { kind: 'text', text: text.content, mentions: mentionsFrom(text, domain), quote };
}

function mentionsFrom(text: Text, domain: string): Mention[] {
  return text.mentions
    .filter(({ start, length }) => start >= 0 && length > 0 && start + length <= text.content.length)
    .map(({ start, length, qualifiedUserId, userId }) => ({
      start,
      length,
      user: keyOf(qualifiedUserId ?? { id: userId, domain }),
    }))
    .sort((a, b) => a.start - b.start);
}

function fileFrom(asset: Asset, domain: string): FileContent {
  const original = asset.original;
  const { width = 0, height = 0 } = original?.image ?? {};
  const content: FileContent = {
    kind: 'file',
    mime: original?.mimeType ?? 'application/octet-stream',
    size: Number(original?.size ?? 0n),
    name: original?.name || undefined,
    image: width > 0 && height > 0 ? { width, height } : undefined,
  };
  if (asset.status.case === 'uploaded') {
    const { otrKey, sha256, assetId, assetToken, assetDomain, encryption } = asset.status.value;
    content.remote = {
      key: assetId,
      domain: assetDomain || domain,
      token: assetToken || undefined,
      secret: otrKey,
      sha256,
      algorithm: encryption === EncryptionAlgorithm.AES_GCM ? 'gcm' : 'cbc',
    };
  } else if (asset.status.case === 'notUploaded') {
    content.failed = true;
  }
  return content;
}

/** The hash by which a reply names what it quotes: the text in UTF-16 with its mark, and the time in seconds. */
export async function quoteHash(text: string, time: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(2 + 2 * text.length + 8);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 0xfeff);
  for (let at = 0; at < text.length; at += 1) view.setUint16(2 + 2 * at, text.charCodeAt(at));
  view.setBigInt64(2 + 2 * text.length, BigInt(Math.floor(Date.parse(time) / 1000)));
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
}
