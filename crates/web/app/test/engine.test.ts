import 'fake-indexeddb/auto';
import { describe, expect, it } from 'vitest';
import { ApiError } from '../src/engine/api';
import { Database } from '../src/engine/database';
import { type Action, initial, reduce, type State } from '../src/engine/state';
import { explain } from '../src/federation/explain';
import { backendsOf } from '../src/federation/selectors';
import { en } from '../src/i18n/en';
import { sinceTime, t } from '../src/i18n/text';
import type { Message } from '../src/messages/state';
import { pauseAfter, Seen } from '../src/session/feed';

const ROOM = 'room@alpha.test';
const SELF = 'a@alpha.test';
const run = (actions: Action[], state: State = initial) => actions.reduce(reduce, state);

const message = (id: string, minute: number): Message => ({
  id,
  conversation: ROOM,
  from: SELF,
  time: `2026-01-01T12:${String(minute).padStart(2, '0')}:00.000Z`,
  content: { kind: 'text', text: id, mentions: [] },
  reactions: {},
});

describe('the browser database', () => {
  it('keeps what differs between two states, and gives it back in order', async () => {
    const db = await Database.open('u1@alpha.test');
    const one = run([
      { type: 'people/merged', profiles: [{ qualified_id: { id: 'b', domain: 'beta.test' }, name: 'Bob' }] },
      { type: 'messages/added', message: message('2', 2) },
      { type: 'messages/added', message: message('1', 1) },
    ]);
    await db.save(initial, one);
    const two = run(
      [
        { type: 'messages/removed', conversation: ROOM, id: '2' },
        { type: 'messages/added', message: message('3', 3) },
      ],
      one,
    );
    await db.save(one, two);
    expect((await db.people()).map(person => person.name)).toEqual(['Bob']);
    expect((await db.messagesBefore(ROOM, undefined, 10)).map(kept => kept.id)).toEqual(['1', '3']);
    expect((await db.messagesBefore(ROOM, message('', 3).time, 10)).map(kept => kept.id)).toEqual(['1']);
    expect((await db.messagesBefore(ROOM, undefined, 1)).map(kept => kept.id)).toEqual(['3']);
  });
});

describe('notifications', () => {
  it('are each handled once', () => {
    const seen = new Seen();
    expect([seen.add('1'), seen.add('1'), seen.add('2')]).toEqual([true, false, true]);
    for (let at = 0; at < 5000; at += 1) seen.add(`x${at}`);
    expect(seen.add('x4999')).toBe(false);
  });

  it('are asked for again after pauses that grow to a limit', () => {
    expect(pauseAfter(0, 0)).toBeLessThan(pauseAfter(3, 0));
    expect(pauseAfter(1000, 1)).toBeLessThanOrEqual(25_000);
  });
});

describe('other backends', () => {
  const group = run([
    {
      type: 'conversations/merged',
      conversations: [
        {
          qualified_id: { id: 'room', domain: 'alpha.test' },
          type: 0,
          members: {
            self: { qualified_id: { id: 'a', domain: 'alpha.test' } },
            others: [{ qualified_id: { id: 'b', domain: 'beta.test' } }],
          },
        },
      ],
    },
    { type: 'federation/unreachable', domains: ['beta.test'], time: '2026-01-01T12:00:00.000Z' },
    {
      type: 'federation/unreachable',
      domains: ['beta.test'],
      time: '2026-01-01T12:05:00.000Z',
      label: 'federation-tls-error',
    },
  ]);

  it('take part in groups, each with its state since it began', () => {
    const entry = group.conversations.conversations[ROOM];
    const views = entry ? backendsOf(entry, SELF, group.federation, [], 0) : [];
    expect(views).toMatchObject([
      { domain: 'alpha.test', own: true, owner: true, state: 'reachable' },
      {
        domain: 'beta.test',
        own: false,
        state: 'unreachable',
        since: '2026-01-01T12:00:00.000Z',
        label: 'federation-tls-error',
      },
    ]);
  });

  it('are back once anything of them comes', () => {
    const back = run(
      [{ type: 'federation/reachable', domains: ['beta.test'], time: '2026-01-01T13:00:00.000Z' }],
      group,
    );
    expect(back.federation.backends['beta.test']).toEqual({ state: 'reachable', since: '2026-01-01T13:00:00.000Z' });
  });

  it('are explained when they fail', () => {
    const error = new ApiError(521, 'federation-connection-refused', '', {
      data: { type: 'federation', domain: 'beta.test' },
    });
    expect(explain(error)).toContain('beta.test does not answer');
    expect(explain(new ApiError(533, 'status-533', '', { unreachable_backends: ['c.test'] }))).toContain('c.test');
    expect(explain(new ApiError(409, 'status-409', '', { non_federating_backends: ['b.test', 'c.test'] }))).toContain(
      'b.test, c.test',
    );
    expect(explain(new ApiError(400, 'something-new', ''))).toContain('something-new');
  });
});

describe('logging out', () => {
  it('forgets everything but the backend and the settings', () => {
    const state = run([
      { type: 'session/backend', domain: 'alpha.test', registration: false },
      { type: 'session/settings', settings: { theme: 'dark' } },
      { type: 'messages/added', message: message('1', 1) },
      { type: 'reset' },
    ]);
    expect(state.messages).toEqual(initial.messages);
    expect(state.session).toMatchObject({ stage: 'logged-out', domain: 'alpha.test', settings: { theme: 'dark' } });
  });
});

describe('texts', () => {
  it('have no braces left and say days that are not today', () => {
    expect(t('delivery.waiting', { domain: 'beta.test', time: '12:03' })).toBe('Waiting for beta.test since 12:03');
    const now = new Date('2026-01-03T12:00:00');
    expect(sinceTime('2026-01-03T09:05:00', now)).toBe('09:05');
    expect(sinceTime('2026-01-02T09:05:00', now)).toBe('Yesterday 09:05');
    for (const label of ['federation-denied', 'federation-tls-error', 'invalid-domain', 'discovery-failure']) {
      expect(en).toHaveProperty([`error.${label}`]);
    }
  });
});
