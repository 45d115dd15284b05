import { describe, expect, it } from 'vitest';
import {
  type ApiConversation,
  type ConversationEvent,
  type ConversationsAction,
  noConversations,
  reduceConversations,
} from '../src/conversations/state';

const SELF = 'a@alpha.test';
const ROOM = 'room@alpha.test';
const id = (key: string) => ({ id: key.split('@')[0] ?? '', domain: key.split('@')[1] ?? '' });

const room: ApiConversation = {
  qualified_id: id(ROOM),
  type: 0,
  name: 'Room',
  receipt_mode: 1,
  members: {
    self: { qualified_id: id(SELF), conversation_role: 'wire_admin', otr_archived: false, otr_muted_status: null },
    others: [{ qualified_id: id('b@beta.test'), conversation_role: 'wire_member' }],
  },
};

const event = (type: string, data: unknown): ConversationsAction => ({
  type: 'conversations/event',
  self: SELF,
  event: { type, qualified_conversation: id(ROOM), time: '2026-01-01T00:00:00.000Z', data } satisfies ConversationEvent,
});

const roomAfter = (...actions: ConversationsAction[]) =>
  [{ type: 'conversations/merged', conversations: [room] } as ConversationsAction, ...actions].reduce(
    reduceConversations,
    noConversations,
  ).conversations[ROOM];

describe('a conversation', () => {
  it('is what the backend says', () => {
    expect(roomAfter()).toMatchObject({
      kind: 'group',
      name: 'Room',
      role: 'wire_admin',
      member: true,
      receipts: true,
      members: { 'b@beta.test': 'wire_member' },
    });
  });

  it('is renamed, and has receipts turned on and off', () => {
    expect(roomAfter(event('conversation.rename', { name: 'Other' }))?.name).toBe('Other');
    expect(roomAfter(event('conversation.receipt-mode-update', { receipt_mode: 0 }))?.receipts).toBe(false);
  });

  it('gets and loses members', () => {
    const joined = event('conversation.member-join', { users: [{ qualified_id: id('c@gamma.test') }] });
    expect(roomAfter(joined)?.members).toHaveProperty(['c@gamma.test'], 'wire_member');
    const left = event('conversation.member-leave', { qualified_user_ids: [id('b@beta.test')], reason: 'left' });
    expect(roomAfter(joined, left)?.members).toEqual({ 'c@gamma.test': 'wire_member' });
  });

  it('of two begins when the other one joins', () => {
    const asked = { ...room, type: 3, members: { ...room.members, others: [] } };
    const joined = event('conversation.member-join', { users: [{ qualified_id: id('b@beta.test') }] });
    expect(roomAfter({ type: 'conversations/merged', conversations: [asked] })?.kind).toBe('connect');
    const begun = roomAfter({ type: 'conversations/merged', conversations: [asked] }, joined);
    expect(begun).toMatchObject({ kind: 'one-to-one', members: { 'b@beta.test': 'wire_member' } });
  });

  it('is left, and joined again', () => {
    const left = event('conversation.member-leave', { qualified_user_ids: [id(SELF)], reason: 'removed' });
    expect(roomAfter(left)?.member).toBe(false);
    expect(roomAfter(left, event('conversation.member-join', { users: [{ qualified_id: id(SELF) }] }))?.member).toBe(
      true,
    );
  });

  it('keeps own settings and roles by their events', () => {
    const own = { qualified_target: id(SELF), otr_muted_status: 3, otr_archived: true };
    expect(roomAfter(event('conversation.member-update', own))).toMatchObject({ muted: true, archived: true });
    const other = { qualified_target: id('b@beta.test'), conversation_role: 'wire_admin' };
    expect(roomAfter(event('conversation.member-update', other))?.members).toEqual({ 'b@beta.test': 'wire_admin' });
  });

  it('is marked while its backend is away and filled in afterwards', () => {
    const away: ConversationsAction = { type: 'conversations/unavailable', conversations: [ROOM] };
    expect(roomAfter(away)).toMatchObject({ unavailable: true, name: 'Room' });
    expect(roomAfter(away, { type: 'conversations/merged', conversations: [room] })?.unavailable).toBeUndefined();
  });

  it('is read further, never back', () => {
    const read = (until: string): ConversationsAction => ({ type: 'conversations/read', conversation: ROOM, until });
    expect(roomAfter(read('2026-01-02'), read('2026-01-01'))?.readUntil).toBe('2026-01-02');
  });

  it('is not changed by events that are not known', () => {
    expect(roomAfter(event('conversation.something-new', { a: 1 }))).toEqual(roomAfter());
  });
});
