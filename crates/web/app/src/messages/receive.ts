import { fromBinary } from '@bufbuild/protobuf';
import { decryptBytes } from '../assets/encryption';
import type { ConversationEvent } from '../conversations/state';
import { fromBase64 } from '../engine/bytes';
import type { Context } from '../engine/context';
import { Duplicate } from '../engine/crypto';
import { GenericMessageSchema } from '../gen/messages_pb';
import { domainOf, type Key, keyOf } from '../model';
import { decode, incomingOf } from './codec';
import type { Incoming } from './content';
import { sessionId } from './send';
import { applyTo, targetsOf } from './state';

/** Decrypts a message and does what it asks for. Everything it changes is saved before the keys move on. */
export async function receive(
  ctx: Context,
  event: ConversationEvent,
  arrived: (incoming: Incoming) => void,
  broken: (from: Key) => void,
): Promise<void> {
  const conversation = keyOf(event.qualified_conversation);
  const from = event.qualified_from && keyOf(event.qualified_from);
  const { sender, text, data } = event.data ?? {};
  if (!from || typeof sender !== 'string' || typeof text !== 'string') return;
  const client = sender.toLowerCase();
  try {
    await ctx.keys.decrypt(sessionId(from, client), text, async plaintext => {
      const incoming = await read(plaintext, data, from);
      await apply(ctx, { conversation, from, time: event.time, incoming });
      await ctx.saved();
      arrived(incoming);
    });
    await know(ctx, from, client);
  } catch (error) {
    if (error instanceof Duplicate) return;
    const content = { kind: 'unreadable', reason: 'undecryptable' } as const;
    const incoming: Incoming = { act: 'show', id: crypto.randomUUID(), content, expectsRead: false };
    ctx.dispatch({ type: 'messages/incoming', conversation, from, time: event.time, incoming });
    await ctx.keys.endSession(sessionId(from, client));
    const known = (await ctx.db.clientsOf(from)) ?? [];
    await ctx.db.setClients(
      from,
      known.filter(other => other !== client),
    );
    broken(from);
  }
}

async function read(plaintext: Uint8Array, data: unknown, from: Key): Promise<Incoming> {
  try {
    let { message, external } = decode(plaintext);
    if (external) {
      if (typeof data !== 'string') return { act: 'ignore' };
      const inner = await decryptBytes(fromBase64(data), external.secret, external.sha256);
      message = fromBinary(GenericMessageSchema, new Uint8Array(inner));
    }
    return incomingOf(message, domainOf(from));
  } catch {
    const content = { kind: 'unreadable', reason: 'unknown' } as const;
    return { act: 'show', id: crypto.randomUUID(), content, expectsRead: false };
  }
}

/** There is a session with this client now. */
async function know(ctx: Context, user: Key, client: string): Promise<void> {
  const known = (await ctx.db.clientsOf(user)) ?? [];
  if (!known.includes(client)) await ctx.db.setClients(user, [...known, client]);
}

interface Arrival {
  conversation: Key;
  from: Key;
  time: string;
  incoming: Incoming;
}

async function apply(ctx: Context, { conversation, from, time, incoming }: Arrival): Promise<void> {
  switch (incoming.act) {
    case 'ignore':
    case 'reset-session':
      return;
    case 'last-read':
      if (from === ctx.self) {
        ctx.dispatch({ type: 'conversations/read', conversation: incoming.conversation, until: incoming.until });
      }
      return;
    case 'hide':
      if (from === ctx.self) await change(ctx, { conversation: incoming.conversation, from, time, incoming });
      return;
    case 'show':
      // What was seen already and is no longer in memory is not shown again.
      if (!isLoaded(ctx, conversation, incoming.id) && (await ctx.db.message(conversation, incoming.id))) return;
      ctx.dispatch({ type: 'messages/incoming', conversation, from, time, incoming });
      ctx.dispatch({ type: 'conversations/active', conversation, time });
      return;
    default:
      await change(ctx, { conversation, from, time, incoming });
  }
}

const isLoaded = (ctx: Context, conversation: Key, id: string): boolean =>
  (ctx.state().messages.messages[conversation] ?? []).some(message => message.id === id);

/** Changes messages: those in memory by the state, older ones where they are kept. */
async function change(ctx: Context, { conversation, from, time, incoming }: Arrival): Promise<void> {
  ctx.dispatch({ type: 'messages/incoming', conversation, from, time, incoming });
  for (const target of targetsOf(incoming)) {
    if (isLoaded(ctx, conversation, target)) continue;
    const kept = await ctx.db.message(conversation, target);
    if (!kept) continue;
    const changed = applyTo(kept, from, time, incoming);
    if (changed !== kept) await ctx.db.deleteMessage(conversation, target);
    if (changed) await ctx.db.putMessage(changed);
  }
}
