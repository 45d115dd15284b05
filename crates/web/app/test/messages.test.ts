import { describe, expect, it } from 'vitest';
import type { Incoming } from '../src/messages/content';
import {
  type Message,
  type MessagesAction,
  type MessagesState,
  noMessages,
  PATIENCE_MS,
  progressByBackend,
  reduceMessages,
  unreadIn,
} from '../src/messages/state';

const ALICE = 'a@alpha.test';
const BOB = 'b@beta.test';
const CAROL = 'c@gamma.test';
const ROOM = 'room@alpha.test';
const at = (second: number) => `2026-01-01T12:00:${String(second).padStart(2, '0')}.000Z`;

const run = (actions: MessagesAction[], state: MessagesState = noMessages) => actions.reduce(reduceMessages, state);
const listIn = (state: MessagesState) => state.messages[ROOM] ?? [];

const incoming = (from: string, second: number, what: Incoming): MessagesAction => ({
  type: 'messages/incoming',
  conversation: ROOM,
  from,
  time: at(second),
  incoming: what,
});

const text = (id: string, words: string): Incoming => ({
  act: 'show',
  id,
  content: { kind: 'text', text: words, mentions: [] },
  expectsRead: false,
});

const own = (id: string, second: number): Message => ({
  id,
  conversation: ROOM,
  from: ALICE,
  time: at(second),
  content: { kind: 'text', text: id, mentions: [] },
  reactions: {},
  delivery: { state: 'sending', people: {} },
});

const sent = (id: string, second: number, unsent: string[] = [], held: string[] = []): MessagesAction => ({
  type: 'messages/sent',
  conversation: ROOM,
  id,
  report: { time: at(second), unsent, held },
  people: [BOB, CAROL],
});

const states = (message: Message | undefined, second: number) =>
  Object.fromEntries(
    progressByBackend(message as Message, Date.parse(at(second))).map(({ domain, state }) => [domain, state]),
  );

describe('the list of messages', () => {
  it('is in the order of time, whatever the order of arrival', () => {
    const state = run([
      incoming(BOB, 3, text('3', 'c')),
      incoming(BOB, 1, text('1', 'a')),
      incoming(CAROL, 2, text('2', 'b')),
    ]);
    expect(listIn(state).map(message => message.id)).toEqual(['1', '2', '3']);
  });

  it('has a message once, however often it comes', () => {
    const state = run([incoming(BOB, 1, text('1', 'a')), incoming(BOB, 1, text('1', 'a'))]);
    expect(listIn(state)).toHaveLength(1);
  });

  it('takes older messages in front and keeps what is there', () => {
    const kept = [own('0', 0), { ...own('5', 5), content: { kind: 'deleted' } as const }];
    const state = run([
      { type: 'messages/added', message: own('5', 5) },
      { type: 'messages/loaded', conversation: ROOM, messages: kept, complete: false },
    ]);
    expect(listIn(state).map(message => message.content.kind)).toEqual(['text', 'text']);
    expect(state.partial[ROOM]).toBe(true);
  });
});

describe('what others do to a message', () => {
  const start = run([incoming(BOB, 1, text('1', 'helo'))]);

  it('is an edit by its author, under a new id, and drops reactions', () => {
    const state = run(
      [
        incoming(ALICE, 2, { act: 'react', target: '1', emojis: ['👍'] }),
        incoming(BOB, 3, { act: 'edit', id: '2', target: '1', text: 'hello', mentions: [] }),
      ],
      start,
    );
    expect(listIn(state)).toMatchObject([{ id: '2', content: { text: 'hello' }, edited: at(3), reactions: {} }]);
  });

  it('is nothing when somebody else edits or deletes', () => {
    const state = run(
      [
        incoming(CAROL, 3, { act: 'edit', id: '2', target: '1', text: 'no', mentions: [] }),
        incoming(CAROL, 4, { act: 'delete', target: '1' }),
      ],
      start,
    );
    expect(state).toBe(start);
  });

  it('is a deletion that leaves a trace, or hides it for oneself', () => {
    expect(listIn(run([incoming(BOB, 2, { act: 'delete', target: '1' })], start))[0]?.content.kind).toBe('deleted');
    expect(listIn(run([incoming(BOB, 2, { act: 'hide', conversation: ROOM, target: '1' })], start))).toEqual([]);
  });

  it('is reactions, each person with own ones, which can be taken back', () => {
    const both = run(
      [
        incoming(ALICE, 2, { act: 'react', target: '1', emojis: ['👍', '🎉'] }),
        incoming(CAROL, 3, { act: 'react', target: '1', emojis: ['👍'] }),
      ],
      start,
    );
    expect(listIn(both)[0]?.reactions).toEqual({ [ALICE]: ['👍', '🎉'], [CAROL]: ['👍'] });
    const less = run([incoming(ALICE, 4, { act: 'react', target: '1', emojis: [] })], both);
    expect(listIn(less)[0]?.reactions).toEqual({ [CAROL]: ['👍'] });
  });

  it('completes a file that was announced before its bytes were there', () => {
    const file = (remote: boolean): Incoming => ({
      act: 'show',
      id: 'f',
      expectsRead: false,
      content: {
        kind: 'file',
        mime: 'image/png',
        size: 3,
        remote: remote
          ? { key: 'k', domain: 'beta.test', secret: new Uint8Array(), sha256: new Uint8Array(), algorithm: 'cbc' }
          : undefined,
      },
    });
    const state = run([incoming(BOB, 1, file(false)), incoming(BOB, 2, file(true))]);
    expect(listIn(state)).toMatchObject([{ time: at(1), content: { remote: { key: 'k' } } }]);
  });
});

describe('an own message', () => {
  const sending = run([{ type: 'messages/added', message: own('m', 0) }]);

  it('takes the time of the backend and its place by it', () => {
    const state = run([incoming(BOB, 5, text('x', 'x')), sent('m', 9)], sending);
    expect(listIn(state).map(message => message.id)).toEqual(['x', 'm']);
  });

  it('is sent, then waits for each backend until one of its people confirms, then is read', () => {
    const one = run([sent('m', 1)], sending);
    expect(states(listIn(one)[0], 1)).toEqual({ 'beta.test': 'sent', 'gamma.test': 'sent' });
    expect(states(listIn(one)[0], 1 + PATIENCE_MS / 1000 + 1)).toEqual({
      'beta.test': 'waiting',
      'gamma.test': 'waiting',
    });
    const two = run([incoming(BOB, 8, { act: 'confirm', targets: ['m'], read: false })], one);
    expect(states(listIn(two)[0], 9)).toEqual({ 'beta.test': 'delivered', 'gamma.test': 'waiting' });
    const three = run([incoming(BOB, 9, { act: 'confirm', targets: ['m'], read: true })], two);
    expect(states(listIn(three)[0], 10)).toEqual({ 'beta.test': 'read', 'gamma.test': 'waiting' });
    expect(listIn(three)[0]?.delivery?.people[BOB]).toEqual({ delivered: at(8), read: at(9) });
  });

  it('says where it was not sent, and where it is kept', () => {
    const state = run([sent('m', 1, [BOB], [CAROL])], sending);
    expect(states(listIn(state)[0], 1)).toEqual({ 'beta.test': 'unsent', 'gamma.test': 'held' });
    const again = run([{ type: 'messages/sending', conversation: ROOM, id: 'm' }, sent('m', 4)], state);
    expect(states(listIn(again)[0], 4)).toEqual({ 'beta.test': 'sent', 'gamma.test': 'sent' });
    expect(listIn(again)[0]?.time).toBe(at(1));
  });

  it('waits for a backend that does not answer', () => {
    const [message] = listIn(run([sent('m', 1)], sending));
    const later = Date.parse(at(1)) + PATIENCE_MS + 1;
    const [beta, gamma] = progressByBackend(message as Message, later, domain => domain === 'beta.test');
    expect([beta?.state, gamma?.state]).toEqual(['held', 'waiting']);
  });

  it('that failed says why and can be discarded', () => {
    const failed = run([{ type: 'messages/failed', conversation: ROOM, id: 'm', error: 'offline' }], sending);
    expect(listIn(failed)[0]?.delivery).toMatchObject({ state: 'failed', error: 'offline' });
    expect(listIn(run([{ type: 'messages/removed', conversation: ROOM, id: 'm' }], failed))).toEqual([]);
  });

  it('is not confirmed by its own author', () => {
    const state = run([sent('m', 1)], sending);
    expect(run([incoming(ALICE, 2, { act: 'confirm', targets: ['m'], read: true })], state)).toBe(state);
  });
});

describe('unread messages', () => {
  it('are those of others after the time up to which everything was read', () => {
    const state = run([
      incoming(BOB, 1, text('1', 'a')),
      incoming(BOB, 3, text('3', 'b')),
      incoming(ALICE, 4, text('4', 'c')),
      incoming(BOB, 5, { act: 'show', id: 's', content: { kind: 'system', event: 'left' }, expectsRead: false }),
    ]);
    expect(unreadIn(listIn(state), ALICE, at(2))).toBe(1);
    expect(unreadIn(undefined, ALICE, at(2))).toBe(0);
  });
});
