import { Fragment, useEffect, useLayoutEffect, useMemo, useRef, useState } from 'react';
import type { Focus } from '../../conversations/views/ConversationView';
import { dayName, t } from '../../i18n/text';
import type { Key } from '../../model';
import { Icon } from '../../ui/Icon';
import { commands, useApp } from '../../ui/store';
import { countsAsUnread, type Message } from '../state';
import { MessageItem } from './MessageItem';

interface MessageListProps {
  conversation: Key;
  query: string;
  onFocus: (focus: Focus) => void;
}

/** Messages of one person within this time stand together. */
const TOGETHER_MS = 5 * 60_000;
const NEAR_END_PX = 80;

const NONE: readonly Message[] = [];

export function MessageList({ conversation, query, onFocus }: MessageListProps) {
  const list = useApp(state => state.messages.messages[conversation]) ?? NONE;
  const complete = useApp(state => !state.messages.partial[conversation]);
  const self = useApp(state => state.session.self?.key ?? '');
  const readUntil = useApp(state => state.conversations.conversations[conversation]?.readUntil ?? '');
  const scroller = useRef<HTMLDivElement>(null);
  const [atEnd, setAtEnd] = useState(true);
  const newest = list.at(-1);
  const lastOwn = list.findLast(message => message.from === self && message.delivery)?.id;
  const [firstNew] = useState(
    () => list.find(m => m.time > readUntil && m.from !== self && countsAsUnread(m.content))?.id,
  );
  const wanted = query.trim().toLowerCase();
  const shown = useMemo(() => (wanted ? list.filter(message => matches(message, wanted)) : list), [list, wanted]);

  useStayAtEnd(scroller, newest, atEnd || newest?.from === self);
  useMarkRead(conversation, newest, atEnd);

  const onScroll = () => {
    const box = scroller.current;
    if (box) setAtEnd(box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX);
  };
  const older = () => {
    const box = scroller.current;
    const height = box?.scrollHeight ?? 0;
    void commands.loadOlder(conversation).then(() => {
      requestAnimationFrame(() => {
        if (box) box.scrollTop += box.scrollHeight - height;
      });
    });
  };
  return (
    <div className="messages-frame">
      <section
        className="messages"
        ref={scroller}
        onScroll={onScroll}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by the keyboard
        tabIndex={0}
        aria-label={t('conversation.messages')}
      >
        {complete ? null : (
          <button type="button" className="button small older" onClick={older} data-testid="older">
            {t('conversation.older')}
          </button>
        )}
        {complete && !wanted ? <p className="begin hint">{t('conversation.begin')}</p> : null}
        {wanted && shown.length === 0 ? <p className="empty hint">{t('conversation.search.none')}</p> : null}
        {list.length === 0 ? <p className="empty hint">{t('conversation.empty')}</p> : null}
        <ol className="message-list" data-testid="messages" aria-live="polite" aria-relevant="additions">
          {shown.map((message, at) => {
            const previous = shown[at - 1];
            const newDay = !previous || dayName(previous.time) !== dayName(message.time);
            return (
              <Fragment key={message.id}>
                {newDay ? (
                  <li className="day" aria-hidden="true">
                    <span>{dayName(message.time)}</span>
                  </li>
                ) : null}
                {message.id === firstNew && !wanted ? (
                  <li className="new-line">
                    <span>{t('conversation.new')}</span>
                  </li>
                ) : null}
                <MessageItem
                  message={message}
                  own={message.from === self}
                  follows={!newDay && message.id !== firstNew && together(previous, message)}
                  last={message.id === lastOwn}
                  hit={wanted !== ''}
                  onFocus={onFocus}
                />
              </Fragment>
            );
          })}
        </ol>
      </section>
      {atEnd ? null : (
        <button
          type="button"
          className="to-end"
          onClick={() => scroller.current?.scrollTo({ top: scroller.current.scrollHeight, behavior: 'smooth' })}
          aria-label={t('conversation.latest')}
        >
          <Icon name="back" />
        </button>
      )}
    </div>
  );
}

const matches = ({ content }: Message, wanted: string): boolean =>
  (content.kind === 'text' && content.text.toLowerCase().includes(wanted)) ||
  (content.kind === 'file' && (content.name ?? '').toLowerCase().includes(wanted));

const together = (previous: Message | undefined, message: Message): boolean =>
  previous !== undefined &&
  previous.from === message.from &&
  previous.content.kind !== 'system' &&
  message.content.kind !== 'system' &&
  Date.parse(message.time) - Date.parse(previous.time) < TOGETHER_MS;

/** Keeps the newest in sight while the end is, also when pictures grow. */
function useStayAtEnd(box: React.RefObject<HTMLDivElement | null>, newest: Message | undefined, stay: boolean) {
  const staying = useRef(stay);
  staying.current = stay;
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new message is the reason
  useLayoutEffect(() => {
    if (staying.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [newest?.id, newest?.time]);
  useEffect(() => {
    const list = box.current?.querySelector('.message-list');
    if (!list) return;
    const observer = new ResizeObserver(() => {
      if (staying.current && box.current) box.current.scrollTop = box.current.scrollHeight;
    });
    observer.observe(list);
    return () => observer.disconnect();
  }, [box]);
}

/** What is in sight, in a tab that is looked at, was read. */
function useMarkRead(conversation: Key, newest: Message | undefined, atEnd: boolean) {
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new message is the reason
  useEffect(() => {
    const mark = () => {
      if (!atEnd || document.visibilityState !== 'visible' || !document.hasFocus()) return;
      void commands.markRead(conversation).catch(() => undefined);
    };
    mark();
    addEventListener('focus', mark);
    document.addEventListener('visibilitychange', mark);
    return () => {
      removeEventListener('focus', mark);
      document.removeEventListener('visibilitychange', mark);
    };
  }, [conversation, newest?.id, atEnd]);
}
