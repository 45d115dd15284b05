import { fromBinary } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { decryptBytes, encryptBytes } from '../src/assets/encryption';
import { GenericMessageSchema } from '../src/gen/messages_pb';
import { decode, encode, incomingOf, type Outgoing } from '../src/messages/codec';
import { mentionBefore, mentionsIn } from '../src/messages/mentions';
import { splitQuery } from '../src/people/query';

const roundtrip = (outgoing: Outgoing) => incomingOf(decode(encode(outgoing)).message, 'beta.test');

describe('messages in bytes', () => {
  it('carry text, mentions and what is quoted', () => {
    const content = {
      kind: 'text',
      text: 'hi @Bob',
      mentions: [{ start: 3, length: 4, user: 'b@beta.test' }],
      quote: 'q',
    } as const;
    const outgoing: Outgoing = {
      act: 'text',
      id: '1',
      content: { ...content, mentions: [...content.mentions] },
      expectsRead: true,
    };
    expect(roundtrip(outgoing)).toEqual({ act: 'show', id: '1', content, expectsRead: true });
  });

  it('carry edits, deletions, reactions, receipts and pings', () => {
    expect(roundtrip({ act: 'edit', id: '2', target: '1', text: 'x', mentions: [], expectsRead: false })).toEqual({
      act: 'edit',
      id: '2',
      target: '1',
      text: 'x',
      mentions: [],
    });
    expect(roundtrip({ act: 'delete', id: '3', target: '1' })).toEqual({ act: 'delete', target: '1' });
    expect(roundtrip({ act: 'react', id: '4', target: '1', emojis: ['👍', '🎉'] })).toEqual({
      act: 'react',
      target: '1',
      emojis: ['👍', '🎉'],
    });
    expect(roundtrip({ act: 'react', id: '4', target: '1', emojis: [] })).toMatchObject({ emojis: [] });
    expect(roundtrip({ act: 'confirm', id: '5', targets: ['1', '2'], read: true })).toEqual({
      act: 'confirm',
      targets: ['1', '2'],
      read: true,
    });
    expect(roundtrip({ act: 'ping', id: '6', expectsRead: false })).toMatchObject({ content: { kind: 'ping' } });
  });

  it('carry where a file is and how it is read', () => {
    const remote = {
      key: '3-2-x',
      domain: 'alpha.test',
      token: 't',
      secret: new Uint8Array(32),
      sha256: new Uint8Array(32),
      algorithm: 'cbc',
    } as const;
    const content = {
      kind: 'file',
      mime: 'image/png',
      size: 12,
      name: 'a.png',
      image: { width: 2, height: 3 },
      remote,
    } as const;
    expect(roundtrip({ act: 'file', id: '1', content, expectsRead: false })).toEqual({
      act: 'show',
      id: '1',
      content,
      expectsRead: false,
    });
  });

  it('of a kind that is not known are shown as such, and hostile times are bounded', () => {
    expect(incomingOf(fromBinary(GenericMessageSchema, new Uint8Array([10, 1, 49])), 'd.test')).toMatchObject({
      content: { kind: 'unreadable', reason: 'unknown' },
    });
    const until = '2026-01-01T00:00:00.000Z';
    const { message } = decode(encode({ act: 'last-read', id: '1', conversation: 'c@d.test', until }));
    if (message.content.case === 'lastRead') message.content.value.lastReadTimestamp = 2n ** 62n;
    expect(incomingOf(message, 'd.test')).toMatchObject({ act: 'last-read', conversation: 'c@d.test' });
  });

  it('lose mentions that point outside of the text', () => {
    const outgoing: Outgoing = {
      act: 'text',
      id: '1',
      content: { kind: 'text', text: 'hi', mentions: [{ start: 1, length: 9, user: 'b@beta.test' }] },
      expectsRead: false,
    };
    expect(roundtrip(outgoing)).toMatchObject({ content: { mentions: [] } });
  });
});

describe('files', () => {
  it('come back from their encryption, and only as they were', async () => {
    const { bytes, secret, sha256 } = await encryptBytes(new TextEncoder().encode('lamp'));
    expect(new TextDecoder().decode(await decryptBytes(bytes, secret, sha256))).toBe('lamp');
    bytes[20] = (bytes[20] ?? 0) ^ 1;
    await expect(decryptBytes(bytes, secret, sha256)).rejects.toThrow();
  });
});

describe('what is typed', () => {
  it('finds mentions at the cursor and in the text', () => {
    expect(mentionBefore('hi @bo', 6)).toEqual({ start: 3, query: 'bo' });
    expect(mentionBefore('mail@bo', 7)).toBeUndefined();
    const chosen = [
      { name: 'Bo', user: 'x@b.test' },
      { name: 'Bob Ray', user: 'b@b.test' },
    ];
    expect(mentionsIn('@Bob Ray and @Bo', chosen)).toEqual([
      { start: 0, length: 8, user: 'b@b.test' },
      { start: 13, length: 3, user: 'x@b.test' },
    ]);
  });

  it('names people by handle and domain', () => {
    expect(splitQuery('@Bob@Beta.test ')).toEqual({ text: 'bob', domain: 'beta.test' });
    expect(splitQuery('bob@beta.test')).toEqual({ text: 'bob', domain: 'beta.test' });
    expect(splitQuery('@bob')).toEqual({ text: 'bob' });
    expect(splitQuery('Bob Ray')).toEqual({ text: 'Bob Ray' });
  });
});
