import { type FormEvent, useEffect, useState } from 'react';
import { explainLabel } from '../../federation/explain';
import { type BackendView, backendsOf } from '../../federation/selectors';
import { isAway } from '../../federation/state';
import { sinceTime, t } from '../../i18n/text';
import { domainOf, type Key } from '../../model';
import { Avatar, DomainBadge, Field, IconButton, PersonName, Toggle, useHelp } from '../../ui/parts';
import { commands, nameOf, otherIn, useApp, useNow } from '../../ui/store';
import { ContactChoice } from './GroupForm';

export function Details({ conversation: key, onClose }: { conversation: Key; onClose: () => void }) {
  const entry = useApp(state => state.conversations.conversations[key]);
  const { failed, ask } = useHelp();
  if (!entry) return null;
  const other = otherIn(entry);
  const tried = (work: Promise<unknown>) => work.catch(failed);
  const admin = entry.kind === 'group' && entry.member && entry.role === 'wire_admin';
  return (
    <aside className="details" aria-label={t('details.title')} data-testid="details">
      <header className="pane-header">
        <h2 className="grow">{t('details.title')}</h2>
        <IconButton icon="close" label={t('details.close')} onClick={onClose} testid="details-close" />
      </header>
      <div className="details-body">
        <Backends conversation={key} />
        {entry.kind === 'group' ? <Members conversation={key} admin={admin} /> : null}
        {admin ? <Rename key={entry.name} conversation={key} name={entry.name ?? ''} /> : null}
        <section className="details-actions">
          {admin ? (
            <Toggle
              label={t('details.receipts')}
              on={entry.receipts}
              onChange={on => tried(commands.setReceipts(key, on))}
              testid="receipts"
            />
          ) : null}
          <Toggle
            label={t('details.mute')}
            on={entry.muted}
            onChange={on => tried(commands.mute(key, on))}
            testid="mute"
          />
          <Toggle
            label={t('details.archive')}
            on={entry.archived}
            onChange={on => tried(commands.archive(key, on))}
            testid="archive"
          />
          {other ? (
            <button
              type="button"
              className="button danger-quiet"
              onClick={() => tried(commands.answer(other, 'blocked'))}
              data-testid="block"
            >
              {t('people.block')}
            </button>
          ) : null}
          {entry.kind === 'group' && entry.member ? <Leave conversation={key} ask={ask} tried={tried} /> : null}
        </section>
      </div>
    </aside>
  );
}

interface LeaveProps {
  conversation: Key;
  ask: (question: string) => Promise<boolean>;
  tried: (work: Promise<unknown>) => Promise<unknown>;
}

function Leave({ conversation, ask, tried }: LeaveProps) {
  const self = useApp(state => state.session.self?.key ?? '');
  const leave = async () => {
    if (await ask(t('details.leave.sure'))) tried(commands.removeMember(conversation, self));
  };
  return (
    <button type="button" className="button danger-quiet" onClick={leave} data-testid="leave">
      {t('details.leave')}
    </button>
  );
}

function Backends({ conversation: key }: { conversation: Key }) {
  const entry = useApp(state => state.conversations.conversations[key]);
  const self = useApp(state => state.session.self?.key ?? '');
  const federation = useApp(state => state.federation);
  const messages = useApp(state => state.messages.messages[key]);
  const now = useNow(1000);
  const unasked = entry
    ? backendsOf(entry, self, federation, [], now)
        .filter(backend => backend.state === 'unknown')
        .map(backend => backend.domain)
        .join(' ')
    : '';
  useEffect(() => {
    for (const domain of unasked.split(' ').filter(Boolean)) void commands.probe(domain).catch(() => undefined);
  }, [unasked]);
  if (!entry) return null;
  return (
    <section>
      <h3>{t('details.backends')}</h3>
      <ul className="list">
        {backendsOf(entry, self, federation, messages ?? [], now).map(backend => (
          <Backend key={backend.domain} backend={backend} />
        ))}
      </ul>
    </section>
  );
}

function Backend({ backend }: { backend: BackendView }) {
  const { domain, own, owner, people, state, since, label, waiting } = backend;
  const count = people.length;
  const roles = [
    own ? t('details.backend.own') : '',
    owner ? t('details.backend.owner') : '',
    count === 1 ? t('details.backend.people.one') : t('details.backend.people', { count }),
  ];
  const text = {
    reachable: t('details.backend.reachable'),
    unknown: t('details.backend.unknown'),
    unreachable: t('details.backend.unreachable', { time: since ? sinceTime(since) : '' }),
    'cut-off': t('details.backend.cut-off'),
  }[state];
  return (
    <li className="backend" data-testid="backend" data-domain={domain} data-state={state} data-waiting={waiting}>
      <div className="row">
        <span className={`dot dot-${state}`} aria-hidden="true" />
        <div className="grow">
          <DomainBadge domain={domain} />
          <div className="hint">{roles.filter(Boolean).join(' · ')}</div>
          <div className={state === 'unreachable' || state === 'cut-off' ? 'warn-text' : 'hint'}>
            {own ? '' : text}
            {label && state === 'unreachable' ? ` · ${explainLabel(label, domain)}` : ''}
          </div>
          {waiting > 0 ? (
            <div className="warn-text">
              {waiting === 1 ? t('details.backend.waiting.one') : t('details.backend.waiting', { count: waiting })}
            </div>
          ) : null}
          {state === 'unreachable' ? (
            <button
              type="button"
              className="button small"
              onClick={() => void commands.probe(domain).catch(() => undefined)}
              data-testid="backend-check"
            >
              {t('details.backend.check')}
            </button>
          ) : null}
        </div>
      </div>
    </li>
  );
}

function Members({ conversation: key, admin }: { conversation: Key; admin: boolean }) {
  const state = useApp(whole => whole);
  const { failed } = useHelp();
  const [adding, setAdding] = useState(false);
  const [chosen, setChosen] = useState<Key[]>([]);
  const entry = state.conversations.conversations[key];
  const self = state.session.self?.key ?? '';
  if (!entry) return null;
  const tried = (work: Promise<unknown>) => void work.catch(failed);
  const members = Object.entries(entry.members).sort(([a], [b]) => nameOf(state, a).localeCompare(nameOf(state, b)));
  const rows: [Key, string][] = entry.member ? [[self, entry.role], ...members] : members;
  const add = async (event: FormEvent) => {
    event.preventDefault();
    try {
      await commands.addMembers(key, chosen);
      setAdding(false);
      setChosen([]);
    } catch (error) {
      failed(error);
    }
  };
  return (
    <section>
      <h3>{t('details.members')}</h3>
      <ul className="list">
        {rows.map(([user, role]) => (
          <li key={user} className="row" data-testid="member" data-key={user}>
            <Avatar of={user} label={nameOf(state, user)} small />
            <div className="grow clip">
              <PersonName user={user} />
              <div className="hint clip">
                {state.people.people[user]?.unavailable || isAway(state.federation)(domainOf(user))
                  ? t('people.unavailable', { domain: domainOf(user) })
                  : ''}
                {role === 'wire_admin' ? t('details.admin') : ''}
              </div>
            </div>
            {admin && user !== self && role !== 'wire_admin' ? (
              <IconButton
                icon="star"
                label={t('details.make-admin', { name: nameOf(state, user) })}
                onClick={() => tried(commands.setRole(key, user, 'wire_admin'))}
                testid="member-admin"
              />
            ) : null}
            {admin && user !== self ? (
              <IconButton
                icon="close"
                label={t('details.remove', { name: nameOf(state, user) })}
                onClick={() => tried(commands.removeMember(key, user))}
                testid="member-remove"
              />
            ) : null}
          </li>
        ))}
      </ul>
      {admin ? (
        <button
          type="button"
          className="button small"
          onClick={() => setAdding(!adding)}
          aria-expanded={adding}
          data-testid="add-open"
        >
          {t('details.add')}
        </button>
      ) : null}
      {adding ? (
        <form onSubmit={add}>
          <ContactChoice
            chosen={chosen}
            onChange={setChosen}
            testid="add-member"
            without={Object.keys(entry.members)}
          />
          <button type="submit" className="button primary" disabled={chosen.length === 0} data-testid="add-submit">
            {t('details.add')}
          </button>
        </form>
      ) : null}
    </section>
  );
}

function Rename({ conversation, name: known }: { conversation: Key; name: string }) {
  const [name, setName] = useState(known);
  const { failed } = useHelp();
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void commands.rename(conversation, name.trim()).catch(failed);
  };
  return (
    <form onSubmit={submit} className="rename">
      <Field label={t('group.name')} value={name} onChange={setName} testid="rename" maxLength={256} />
      <button
        type="submit"
        className="button small"
        disabled={!name.trim() || name === known}
        data-testid="rename-submit"
      >
        {t('details.rename')}
      </button>
    </form>
  );
}
