// What can ride on a message: each kind of payload from plain values, and back to plain values.

import { GenericMessage, MessageBuilder } from './libraries.js';

/** Each kind by name, from what a command gives. */
const BUILD = {
  text: ({ text, mentions, quote, expectsReadConfirmation }) =>
    MessageBuilder.buildTextMessage({ text, mentions, quote, expectsReadConfirmation }),
  reaction: ({ messageId, emoji }) => MessageBuilder.buildReactionMessage({ originalMessageId: messageId, type: emoji }),
  confirmation: ({ messageId, more, type }) =>
    MessageBuilder.buildConfirmationMessage({ firstMessageId: messageId, moreMessageIds: more, type }),
  ping: () => MessageBuilder.buildPingMessage({ hotKnock: false, expectsReadConfirmation: true }),
  edit: ({ messageId, text }) => MessageBuilder.buildEditedTextMessage({ originalMessageId: messageId, text }),
  delete: ({ messageId }) => MessageBuilder.buildDeleteMessage({ messageId }),
  location: ({ latitude, longitude, name }) => MessageBuilder.buildLocationMessage({ latitude, longitude, name }),
  calling: ({ content, conversation }) =>
    MessageBuilder.buildCallMessage({ content, qualifiedConversationId: conversation }),
  lastRead: ({ conversation, time }) => MessageBuilder.buildLastReadMessage(conversation, time),
  ephemeral: ({ expireAfterMillis, inner, ...values }) =>
    MessageBuilder.wrapInEphemeral(build({ kind: inner, ...values }), expireAfterMillis),
  asset: ({ asset, metaData }) =>
    MessageBuilder.buildFileDataMessage({
      asset: { ...asset, keyBytes: Buffer.from(asset.keyBytes, 'base64'), sha256: Buffer.from(asset.sha256, 'base64') },
      metaData,
    }),
};

/** The message for `{ kind, … }`. */
export function build({ kind, ...values }) {
  return BUILD[kind](values);
}

/** A received message as plain values: `{ messageId, [kind]: … }`, bytes as Base64. */
export function plain(message) {
  return GenericMessage.toObject(GenericMessage.fromObject(message), { bytes: String, longs: Number, enums: String });
}
