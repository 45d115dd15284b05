import { type ReactNode, useState } from 'react';
import { t } from '../../i18n/text';
import { useApp } from '../../ui/store';
import type { Mention } from '../content';

const LINK = /https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/g;

/** Characters of a long text that are shown without being asked for. */
const SHOWN_AT_FIRST = 3000;

/** Text with its links and mentions marked. */
export function RichText({ text: whole, mentions }: { text: string; mentions: Mention[] }) {
  const [all, setAll] = useState(whole.length <= SHOWN_AT_FIRST);
  const text = all ? whole : whole.slice(0, SHOWN_AT_FIRST);
  const self = useApp(state => state.session.self?.key);
  const parts: ReactNode[] = [];
  let at = 0;
  for (const { start, length, user } of mentions) {
    if (start < at || start + length > text.length) continue;
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
      {all ? null : (
        <button type="button" className="more" onClick={() => setAll(true)} data-testid="message-more">
          … {t('message.more')}
        </button>
      )}
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
