import { useEffect, useState } from 'react';
import { isUnavailable } from '../../federation/selectors';
import { t } from '../../i18n/text';
import type { Message } from '../../messages/state';
import { Composer } from '../../messages/views/Composer';
import { MessageList } from '../../messages/views/MessageList';
import { domainOf, type Key } from '../../model';
import { Avatar, DomainBadge, IconButton } from '../../ui/parts';
import { nameOf, otherIn, titleOf, useApp, useNow } from '../../ui/store';
import type { Conversation } from '../state';
import { Details } from './Details';
import { GroupBadges } from './Sidebar';

interface ConversationViewProps {
  conversation: Key;
  onBack: () => void;
  onOpen: (key: Key) => void;
}

/** What is being written about: a message to answer, or an own one to change. */
export interface Focus {
  reply?: Message;
  edit?: Message;
}

export function ConversationView({ conversation: key, onBack }: ConversationViewProps) {
  const entry = useApp(state => state.conversations.conversations[key]);
  const title = useApp(state => (entry ? titleOf(state, entry) : ''));
  const unavailable = useApp(state => entry !== undefined && isUnavailable(entry, state.federation));
  const [details, setDetails] = useState(false);
  const [searching, setSearching] = useState(false);
  const [query, setQuery] = useState('');
  const [focus, setFocus] = useState<Focus>({});
  useEffect(() => {
    if (!searching) setQuery('');
  }, [searching]);
  if (!entry) return null;
  const other = otherIn(entry);
  return (
    <div className="conversation-layout">
      <section className="conversation" aria-label={title}>
        <header className="pane-header">
          <IconButton icon="back" label={t('nav.back')} onClick={onBack} className="only-phone" testid="back" />
          <Avatar of={other ?? key} label={title} />
          <div className="grow clip">
            <h1 className="clip" data-testid="conversation-title">
              {title}
            </h1>
            <div className="row tight">
              {entry.kind === 'group' ? (
                <>
                  <span className="hint">{peopleIn(entry)}</span>
                  <GroupBadges entry={entry} />
                </>
              ) : (
                <DomainBadge domain={domainOf(other ?? key)} />
              )}
            </div>
          </div>
          <IconButton
            icon="search"
            label={t('conversation.search')}
            onClick={() => setSearching(!searching)}
            pressed={searching}
            testid="search-toggle"
          />
          <IconButton
            icon="info"
            label={t('conversation.details')}
            onClick={() => setDetails(!details)}
            pressed={details}
            testid="details-toggle"
          />
        </header>
        {searching ? (
          <div className="search-bar">
            <input
              type="search"
              // biome-ignore lint/a11y/noAutofocus: it was just asked for
              autoFocus
              value={query}
              onChange={event => setQuery(event.target.value)}
              onKeyDown={event => event.key === 'Escape' && setSearching(false)}
              placeholder={t('conversation.search')}
              aria-label={t('conversation.search')}
              data-testid="search"
            />
          </div>
        ) : null}
        {unavailable ? (
          <p className="pane-note warn" role="status" data-testid="conversation-unavailable">
            {t('conversation.unavailable.text', { domain: domainOf(key) })}
          </p>
        ) : null}
        <MessageList conversation={key} query={query} onFocus={setFocus} />
        <Typing conversation={key} />
        {entry.member ? (
          <Composer conversation={key} title={title} focus={focus} onFocus={setFocus} />
        ) : (
          <p className="pane-note">{t('conversation.left')}</p>
        )}
      </section>
      {details ? <Details conversation={key} onClose={() => setDetails(false)} /> : null}
    </div>
  );
}

function peopleIn({ members, member }: Conversation): string {
  const count = Object.keys(members).length + (member ? 1 : 0);
  return count === 1 ? t('conversation.people.one') : t('conversation.people', { count });
}

function Typing({ conversation }: { conversation: Key }) {
  const typing = useApp(state => state.conversations.typing[conversation]);
  const now = useNow(1000);
  const who = Object.entries(typing ?? {}).filter(([, until]) => until > now);
  const name = useApp(state => (who[0] ? nameOf(state, who[0][0]) : ''));
  const text =
    who.length === 1 ? t('conversation.typing.one', { name }) : t('conversation.typing.more', { count: who.length });
  return (
    <p className="typing" aria-live="polite" data-testid={who.length > 0 ? 'typing' : undefined}>
      {who.length > 0 ? text : ''}
    </p>
  );
}
