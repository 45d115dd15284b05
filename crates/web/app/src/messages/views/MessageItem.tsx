import { memo, type ReactNode, useEffect, useRef, useState } from 'react';
import type { Focus } from '../../conversations/views/ConversationView';
import { clockTime, fullTime, t } from '../../i18n/text';
import { domainOf, type Key } from '../../model';
import { Icon } from '../../ui/Icon';
import { Avatar, DomainBadge, useHelp } from '../../ui/parts';
import { commands, nameOf, useApp } from '../../ui/store';
import { previewOf, systemText } from '../preview';
import type { Message } from '../state';
import { Delivery, DeliveryDialog } from './Delivery';
import { FileMessage } from './FileMessage';
import { RichText } from './RichText';

const QUICK = ['👍', '❤️', '😂', '🎉', '😮', '😢'];

interface MessageItemProps {
  message: Message;
  own: boolean;
  /** It stands together with the one before, of the same person. */
  follows: boolean;
  /** The newest own one: its state is said in words. */
  last: boolean;
  hit: boolean;
  onFocus: (focus: Focus) => void;
}

export const MessageItem = memo(function MessageItem({ message, own, follows, last, hit, onFocus }: MessageItemProps) {
  const { content } = message;
  const name = useApp(state => nameOf(state, message.from));
  const [info, setInfo] = useState(false);
  const attributes = {
    'data-testid': 'message',
    'data-id': message.id,
    'data-from': message.from,
    'data-own': own,
    'data-kind': content.kind,
    'data-state': message.delivery?.state,
    'data-hit': hit || undefined,
  };
  if (content.kind === 'system') {
    return (
      <li className="system" {...attributes}>
        <SystemLine message={message} />
      </li>
    );
  }
  return (
    <li className={`message${own ? ' own' : ''}${follows ? ' follows' : ''}`} {...attributes}>
      {own ? null : (
        <span className="avatar-place">{follows ? null : <Avatar of={message.from} label={name} small />}</span>
      )}
      <div className="message-column">
        {own || follows ? null : (
          <div className="message-head">
            <span className="name">{name}</span>
            <DomainBadge domain={domainOf(message.from)} />
          </div>
        )}
        <div className="bubble-row">
          <div className={`bubble bubble-${content.kind}`}>
            {own ? <span className="sr-only">{t('people.you')}: </span> : <span className="sr-only">{name}: </span>}
            <Body message={message} name={name} own={own} />
            <span className="meta">
              {message.edited ? <span data-testid="message-edited">{t('message.edited')} · </span> : null}
              <time dateTime={message.time} title={fullTime(message.time)}>
                {clockTime(message.time)}
              </time>
            </span>
          </div>
          {content.kind === 'deleted' ? null : (
            <Actions message={message} own={own} onFocus={onFocus} onInfo={() => setInfo(true)} />
          )}
        </div>
        {Object.keys(message.reactions).length > 0 ? <Reactions message={message} /> : null}
        {own && message.delivery ? <Delivery message={message} inWords={last} onInfo={() => setInfo(true)} /> : null}
      </div>
      {info ? <DeliveryDialog message={message} onClose={() => setInfo(false)} /> : null}
    </li>
  );
});

function SystemLine({ message }: { message: Message }) {
  const text = useApp(state =>
    message.content.kind === 'system' ? systemText(state, message.from, message.content) : '',
  );
  return (
    <span>
      {text} <time className="faint">{clockTime(message.time)}</time>
    </span>
  );
}

function Body({ message, name, own }: { message: Message; name: string; own: boolean }): ReactNode {
  const { content } = message;
  switch (content.kind) {
    case 'text':
      return (
        <>
          {content.quote ? <Quote conversation={message.conversation} id={content.quote} /> : null}
          <RichText text={content.text} mentions={content.mentions} />
        </>
      );
    case 'file':
      return <FileMessage message={message} content={content} own={own} />;
    case 'ping':
      return (
        <span className="ping">
          <Icon name="ping" /> {own ? t('message.ping.own') : t('message.ping', { name })}
        </span>
      );
    case 'location':
      return (
        <span>{t('message.location', { name: content.name ?? `${content.latitude}, ${content.longitude}` })}</span>
      );
    case 'deleted':
      return <em>{t('message.deleted')}</em>;
    case 'unreadable':
      return <em>{content.reason === 'unknown' ? t('message.unknown') : t('message.unreadable', { name })}</em>;
    default:
      return null;
  }
}

function Quote({ conversation, id }: { conversation: Key; id: string }) {
  const quoted = useApp(state => state.messages.messages[conversation]?.find(message => message.id === id));
  const text = useApp(state => (quoted ? previewOf(state, quoted) : t('message.quote.gone')));
  const name = useApp(state => (quoted ? nameOf(state, quoted.from) : ''));
  return (
    <blockquote className="quote" data-testid="message-quote">
      {name ? <strong>{name}</strong> : null}
      <span className="clip">{text}</span>
    </blockquote>
  );
}

function Reactions({ message }: { message: Message }) {
  const state = useApp(whole => whole);
  const { failed } = useHelp();
  const self = state.session.self?.key ?? '';
  const byEmoji = new Map<string, Key[]>();
  for (const [user, emojis] of Object.entries(message.reactions)) {
    for (const emoji of emojis) byEmoji.set(emoji, [...(byEmoji.get(emoji) ?? []), user]);
  }
  if (byEmoji.size === 0) return null;
  return (
    <div className="reactions">
      {[...byEmoji].map(([emoji, users]) => {
        const names = users.map(user => (user === self ? t('people.you') : nameOf(state, user))).join(', ');
        const label = t('message.reaction', { emoji, count: users.length, names });
        return (
          <button
            key={emoji}
            type="button"
            className="reaction"
            aria-pressed={users.includes(self)}
            aria-label={label}
            title={names}
            onClick={() => void commands.react(message.conversation, message.id, emoji).catch(failed)}
            data-testid="reaction"
            data-emoji={emoji}
            data-count={users.length}
            data-own={users.includes(self)}
          >
            {emoji} {users.length}
          </button>
        );
      })}
    </div>
  );
}

interface ActionsProps {
  message: Message;
  own: boolean;
  onFocus: (focus: Focus) => void;
  onInfo: () => void;
}

function Actions({ message, own, onFocus, onInfo }: ActionsProps) {
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const { failed, ask } = useHelp();
  useEffect(() => {
    if (!open) return;
    box.current?.querySelector<HTMLElement>('.menu button')?.focus();
    const close = (event: Event) => {
      if (!box.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener('pointerdown', close);
    document.addEventListener('focusin', close);
    return () => {
      document.removeEventListener('pointerdown', close);
      document.removeEventListener('focusin', close);
    };
  }, [open]);
  const { conversation, id, content } = message;
  const done = (work: () => unknown) => () => {
    setOpen(false);
    work();
  };
  const item = (text: string, testid: string, work: () => unknown) => (
    <button type="button" className="menu-item" onClick={done(work)} data-testid={testid}>
      {text}
    </button>
  );
  const remove = async () => {
    if (await ask(t('message.delete.sure'))) await commands.deleteForAll(conversation, id).catch(failed);
  };
  const sent = !message.delivery || message.delivery.state === 'sent';
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: Escape closes the menu from anywhere in it
    <div className="actions" ref={box} onKeyDown={event => event.key === 'Escape' && setOpen(false)}>
      <button
        type="button"
        className="icon-button actions-button"
        aria-label={t('message.actions')}
        aria-expanded={open}
        onClick={() => setOpen(!open)}
        data-testid="message-actions"
      >
        <Icon name="more" />
      </button>
      {open ? (
        <div className="menu">
          {sent ? (
            <div className="quick">
              {QUICK.map(emoji => (
                <button
                  key={emoji}
                  type="button"
                  aria-label={t('message.react', { emoji })}
                  onClick={done(() => commands.react(conversation, id, emoji).catch(failed))}
                  data-testid="react"
                  data-emoji={emoji}
                >
                  {emoji}
                </button>
              ))}
            </div>
          ) : null}
          {sent ? item(t('message.reply'), 'action-reply', () => onFocus({ reply: message })) : null}
          {own && sent && content.kind === 'text'
            ? item(t('message.edit'), 'action-edit', () => onFocus({ edit: message }))
            : null}
          {content.kind === 'text'
            ? item(t('message.copy'), 'action-copy', () => navigator.clipboard.writeText(content.text).catch(failed))
            : null}
          {own ? item(t('message.info'), 'action-info', onInfo) : null}
          {own && sent ? item(t('message.delete'), 'action-delete', remove) : null}
        </div>
      ) : null}
    </div>
  );
}
