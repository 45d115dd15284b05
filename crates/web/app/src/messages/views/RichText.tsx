import type { ReactNode } from 'react';
import { useApp } from '../../ui/store';
import type { Mention } from '../content';

const LINK = /https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/g;

/** Text with its links and mentions marked. */
export function RichText({ text, mentions }: { text: string; mentions: Mention[] }) {
  const self = useApp(state => state.session.self?.key);
  const parts: ReactNode[] = [];
  let at = 0;
  for (const { start, length, user } of mentions) {
    if (start < at) continue;
    parts.push(...withLinks(text.slice(at, start), at));
    parts.push(
      <span
        key={`m${start}`}
        className={user === self ? 'mention mention-own' : 'mention'}
        data-testid="message-mention"
      >
        {text.slice(start, start + length)}
      </span>,
    );
    at = start + length;
  }
  parts.push(...withLinks(text.slice(at), at));
  return (
    <span className={isOnlyEmoji(text) ? 'text text-large' : 'text'} data-testid="message-text">
      {parts}
    </span>
  );
}

const isOnlyEmoji = (text: string): boolean => /^(\p{Extended_Pictographic}|\u200d|\ufe0f){1,8}$/u.test(text);

function withLinks(text: string, offset: number): ReactNode[] {
  const parts: ReactNode[] = [];
  let at = 0;
  for (const match of text.matchAll(LINK)) {
    parts.push(text.slice(at, match.index));
    parts.push(
      <a key={`l${offset + match.index}`} href={match[0]} target="_blank" rel="noopener noreferrer nofollow">
        {match[0]}
      </a>,
    );
    at = match.index + match[0].length;
  }
  parts.push(text.slice(at));
  return parts;
}
