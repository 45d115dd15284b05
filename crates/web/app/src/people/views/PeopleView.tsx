import { type FormEvent, useState } from 'react';
import { explain } from '../../federation/explain';
import { t } from '../../i18n/text';
import { domainOf, type Key } from '../../model';
import { Avatar, DomainBadge, IconButton, useHelp } from '../../ui/parts';
import { commands, nameOf, useApp } from '../../ui/store';
import { splitQuery } from '../query';
import type { ConnectionStatus, Person } from '../state';

export function PeopleView({ onBack, onOpen }: { onBack: () => void; onOpen: (key: Key) => void }) {
  const connections = useApp(state => state.people.connections);
  const [results, setResults] = useState<Person[]>();
  const withStatus = (...wanted: ConnectionStatus[]) =>
    Object.values(connections)
      .filter(entry => wanted.includes(entry.status))
      .map(entry => entry.user);
  const groups = [
    { title: t('people.requests'), users: withStatus('pending') },
    { title: t('people.sent'), users: withStatus('sent') },
    { title: t('people.contacts'), users: withStatus('accepted') },
    { title: t('people.blocked'), users: withStatus('blocked') },
  ].filter(group => group.users.length > 0);
  return (
    <section className="people" aria-label={t('people.title')} data-testid="people">
      <header className="pane-header">
        <IconButton icon="back" label={t('nav.back')} onClick={onBack} className="only-phone" testid="back" />
        <h1 className="grow">{t('people.title')}</h1>
      </header>
      <div className="people-body">
        <Search onResults={setResults} />
        {results && results.length > 0 ? (
          <section>
            <h2>{t('people.results')}</h2>
            <ul className="list">
              {results.map(person => (
                <PersonRow key={person.key} user={person.key} found={person} onOpen={onOpen} />
              ))}
            </ul>
          </section>
        ) : null}
        {groups.map(({ title, users }) => (
          <section key={title}>
            <h2>{title}</h2>
            <ul className="list">
              {users.map(user => (
                <PersonRow key={user} user={user} onOpen={onOpen} />
              ))}
            </ul>
          </section>
        ))}
        {groups.length === 0 && !results ? <p className="empty hint">{t('people.empty')}</p> : null}
      </div>
    </section>
  );
}

function Search({ onResults }: { onResults: (people: Person[]) => void }) {
  const own = useApp(state => state.session.domain);
  const [query, setQuery] = useState('');
  const [busy, setBusy] = useState(false);
  const [none, setNone] = useState<string>();
  const [error, setError] = useState<string>();
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const { text, domain } = splitQuery(query);
    if (!text) return;
    setBusy(true);
    setError(undefined);
    setNone(undefined);
    try {
      const { people, exactOnly } = await commands.search(text, domain);
      onResults(people);
      const where = domain ?? own;
      if (people.length === 0) {
        setNone(t('people.none', { domain: where }) + (exactOnly ? ` ${t('people.exact', { domain: where })}` : ''));
      }
    } catch (failure) {
      onResults([]);
      setError(explain(failure));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form onSubmit={submit} className="people-search">
      <label htmlFor="people-search">{t('people.search')}</label>
      <div className="row">
        <input
          id="people-search"
          type="search"
          value={query}
          onChange={event => setQuery(event.target.value)}
          placeholder="@bob@beta.test"
          aria-describedby="people-search-hint"
          autoCapitalize="none"
          data-testid="people-search"
        />
        <button type="submit" className="button primary" disabled={busy} data-testid="people-search-submit">
          {t('people.search.submit')}
        </button>
      </div>
      <p className="hint" id="people-search-hint">
        {t('people.search.hint')}
      </p>
      <div role="status">
        {none ? <p data-testid="people-none">{none}</p> : null}
        {error ? (
          <p className="form-error" data-testid="people-error">
            {error}
          </p>
        ) : null}
      </div>
    </form>
  );
}

interface PersonRowProps {
  user: Key;
  found?: Person;
  onOpen: (key: Key) => void;
}

function PersonRow({ user, found, onOpen }: PersonRowProps) {
  const known = useApp(state => state.people.people[user]);
  const knownName = useApp(state => nameOf(state, user));
  const connection = useApp(state => state.people.connections[user]);
  const { failed } = useHelp();
  const status = connection?.status ?? 'none';
  const tried = (work: Promise<unknown>) => void work.catch(failed);
  const name = known ? knownName : found?.name || knownName;
  const handle = known?.handle ?? found?.handle;
  const button = (text: string, testid: string, work: () => void, look = '') => (
    <button type="button" className={`button small ${look}`} onClick={work} data-testid={testid}>
      {text}
    </button>
  );
  return (
    <li
      className="person row"
      data-testid="person"
      data-key={user}
      data-status={status}
      data-unavailable={known?.unavailable ?? false}
    >
      <Avatar of={user} label={name} />
      <div className="grow clip">
        <div className="row tight">
          <span className="name clip">{name}</span>
          <DomainBadge domain={domainOf(user)} />
        </div>
        <div className="hint clip">
          {known?.unavailable ? t('people.unavailable', { domain: domainOf(user) }) : handle ? `@${handle}` : ''}
        </div>
      </div>
      <div className="row tight">
        {status === 'none' || status === 'cancelled' || status === 'ignored'
          ? button(t('people.connect'), 'person-connect', () => tried(commands.connect(user)), 'primary')
          : null}
        {status === 'pending' ? (
          <>
            {button(t('people.accept'), 'person-accept', () => tried(commands.answer(user, 'accepted')), 'primary')}
            {button(t('people.ignore'), 'person-ignore', () => tried(commands.answer(user, 'ignored')))}
          </>
        ) : null}
        {status === 'sent'
          ? button(t('people.cancel'), 'person-cancel', () => tried(commands.answer(user, 'cancelled')))
          : null}
        {status === 'accepted' && connection?.conversation
          ? button(t('people.open'), 'person-open', () => onOpen(connection.conversation ?? ''), 'primary')
          : null}
        {status === 'blocked'
          ? button(t('people.unblock'), 'person-unblock', () => tried(commands.answer(user, 'accepted')))
          : null}
        {status === 'accepted' || status === 'pending'
          ? button(t('people.block'), 'person-block', () => tried(commands.answer(user, 'blocked')), 'danger-quiet')
          : null}
      </div>
    </li>
  );
}
