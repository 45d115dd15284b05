import { type ReactNode, useMemo, useState } from 'react';
import type { State } from '../../engine/state';
import { isUnavailable } from '../../federation/selectors';
import { shortTime, t } from '../../i18n/text';
import { previewOf } from '../../messages/preview';
import { unreadIn } from '../../messages/state';
import { domainOf, type Key } from '../../model';
import { Icon } from '../../ui/Icon';
import { Avatar, DomainBadge, IconButton } from '../../ui/parts';
import { engine, otherIn, titleOf, useApp } from '../../ui/store';
import type { Conversation } from '../state';

interface SidebarProps {
  open?: Key;
  onOpen: (conversation: Key) => void;
  onPeople: () => void;
  onSettings: () => void;
  onNewGroup: () => void;
  banner: ReactNode;
}

/** Conversations to show, the newest first. Those with blocked people, and ones that were left and emptied, are not. */
function listed(state: State, archived: boolean): Conversation[] {
  const blocked = new Set(
    Object.values(state.people.connections)
      .filter(entry => entry.status === 'blocked')
      .map(entry => entry.user),
  );
  return Object.values(state.conversations.conversations)
    .filter(entry => entry.archived === archived && (entry.kind === 'group' || entry.kind === 'one-to-one'))
    .filter(entry => !blocked.has(otherIn(entry) ?? ''))
    .filter(entry => entry.member || (state.messages.messages[entry.key] ?? []).length > 0)
    .sort((a, b) => b.activeAt.localeCompare(a.activeAt) || a.key.localeCompare(b.key));
}

export function Sidebar({ open, onOpen, onPeople, onSettings, onNewGroup, banner }: SidebarProps) {
  const state = useApp(whole => whole);
  const [filter, setFilter] = useState('');
  const [archive, setArchive] = useState(false);
  const { self } = state.session;
  const all = useMemo(() => listed(state, archive), [state, archive]);
  const archivedCount = useMemo(() => listed(state, true).length, [state]);
  const wanted = filter.trim().toLowerCase();
  const shown = all.filter(entry => titleOf(state, entry).toLowerCase().includes(wanted));
  const pending = Object.values(state.people.connections).filter(entry => entry.status === 'pending').length;
  return (
    <nav className="sidebar" aria-label={t('nav.conversations')}>
      <header className="sidebar-header">
        <div className="self" data-testid="self">
          <Avatar of={self?.key ?? ''} label={self?.name ?? ''} />
          <div className="grow clip">
            <div className="name">{self?.name}</div>
            <div className="hint clip">
              {self?.handle ? `@${self.handle}` : null}
              <span className="faint">@{state.session.domain}</span>
            </div>
          </div>
        </div>
        <IconButton
          icon="people"
          label={pending ? t('nav.people.pending', { count: pending }) : t('nav.people')}
          onClick={onPeople}
          testid="nav-people"
          count={pending}
        />
        <IconButton icon="plus" label={t('nav.new-group')} onClick={onNewGroup} testid="new-group" />
        <IconButton icon="settings" label={t('nav.settings')} onClick={onSettings} testid="nav-settings" />
      </header>
      {banner}
      <div className="filter">
        <Icon name="search" />
        <input
          type="search"
          value={filter}
          onChange={event => setFilter(event.target.value)}
          placeholder={t('nav.filter')}
          aria-label={t('nav.filter')}
          data-testid="filter"
        />
      </div>
      <ul className="conversations">
        {shown.map(entry => (
          <Entry key={entry.key} entry={entry} state={state} current={entry.key === open} onOpen={onOpen} />
        ))}
      </ul>
      {shown.length === 0 ? (
        <div className="empty">
          <p>{filter ? t('nav.no-match') : t('nav.empty')}</p>
          {filter || archive ? null : (
            <>
              <p className="hint">{t('nav.empty.hint')}</p>
              <button type="button" className="button primary" onClick={onPeople}>
                {t('nav.empty.action')}
              </button>
            </>
          )}
        </div>
      ) : null}
      {archivedCount > 0 || archive ? (
        <button
          type="button"
          className="link archive"
          onClick={() => setArchive(!archive)}
          data-testid="archive-toggle"
        >
          {archive ? t('nav.archive.back') : t('nav.archive', { count: archivedCount })}
        </button>
      ) : null}
    </nav>
  );
}

interface EntryProps {
  entry: Conversation;
  state: State;
  current: boolean;
  onOpen: (conversation: Key) => void;
}

function Entry({ entry, state, current, onOpen }: EntryProps) {
  const title = titleOf(state, entry);
  const list = state.messages.messages[entry.key];
  const unread = unreadIn(list, state.session.self?.key ?? '', entry.readUntil);
  const newest = list?.at(-1);
  const other = otherIn(entry);
  const domain = domainOf(other ?? entry.key);
  const unavailable = isUnavailable(entry, state.federation);
  return (
    <li>
      <button
        type="button"
        className="conversation-entry"
        aria-current={current ? 'page' : undefined}
        onClick={() => onOpen(entry.key)}
        data-testid="conversation"
        data-key={entry.key}
        data-name={title}
        data-unread={unread}
        data-unavailable={unavailable}
      >
        <Avatar of={other ?? entry.key} label={title} />
        <span className="grow clip">
          <span className="row tight">
            <span className={`name clip grow${unread ? ' strong' : ''}`}>{title}</span>
            {newest ? <time className="hint">{shortTime(newest.time)}</time> : null}
          </span>
          <span className="row tight">
            <span className="hint clip grow">
              {unavailable ? t('conversation.unavailable') : newest ? previewOf(state, newest) : ' '}
            </span>
            {entry.muted ? (
              <span className="faint" title={t('conversation.muted')}>
                <Icon name="mute" />
              </span>
            ) : null}
            {unread > 0 ? (
              <span className="count">
                {unread}
                <span className="sr-only"> {t('nav.unread', { count: '' })}</span>
              </span>
            ) : null}
          </span>
          <span className="row tight">
            {entry.kind === 'group' ? <GroupBadges entry={entry} /> : <DomainBadge domain={domain} />}
          </span>
        </span>
      </button>
    </li>
  );
}

const BADGES = 3;

/** The backends that take part in a group. */
export function GroupBadges({ entry }: { entry: Conversation }) {
  const own = domainOf(engine.state().session.self?.key ?? '@');
  const domains = [...new Set([own, domainOf(entry.key), ...Object.keys(entry.members).map(domainOf)])];
  return (
    <span className="badges">
      {domains.slice(0, BADGES).map(domain => (
        <DomainBadge key={domain} domain={domain} />
      ))}
      {domains.length > BADGES ? <span className="badge badge-own">+{domains.length - BADGES}</span> : null}
    </span>
  );
}
