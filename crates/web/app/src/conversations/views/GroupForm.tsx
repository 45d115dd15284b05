import { type FormEvent, useState } from 'react';
import { explain } from '../../federation/explain';
import { t } from '../../i18n/text';
import type { Key } from '../../model';
import { Avatar, Dialog, Field, PersonName } from '../../ui/parts';
import { commands, nameOf, useApp } from '../../ui/store';

export function GroupForm({ onClose, onOpen }: { onClose: () => void; onOpen: (key: Key) => void }) {
  const [name, setName] = useState('');
  const [chosen, setChosen] = useState<Key[]>([]);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string>();
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    try {
      onOpen(await commands.createGroup(name.trim(), chosen));
      onClose();
    } catch (failure) {
      setError(explain(failure));
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog title={t('group.title')} onClose={onClose} testid="group-form">
      <form onSubmit={submit}>
        <Field label={t('group.name')} value={name} onChange={setName} testid="group-name" maxLength={256} autoFocus />
        <ContactChoice chosen={chosen} onChange={setChosen} testid="group-member" />
        <p className="form-error" role="alert" data-testid={error ? 'form-error' : undefined}>
          {error}
        </p>
        <div className="row end">
          <button type="submit" className="button primary" disabled={busy || !name.trim()} data-testid="group-create">
            {t('group.create')}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

interface ContactChoiceProps {
  chosen: Key[];
  onChange: (chosen: Key[]) => void;
  testid: string;
  without?: Key[];
}

/** People one is connected with, to be ticked. */
export function ContactChoice({ chosen, onChange, testid, without = [] }: ContactChoiceProps) {
  const state = useApp(whole => whole);
  const contacts = Object.values(state.people.connections)
    .filter(entry => entry.status === 'accepted' && !without.includes(entry.user))
    .map(entry => entry.user)
    .sort((a, b) => nameOf(state, a).localeCompare(nameOf(state, b)));
  return (
    <fieldset className="choice">
      <legend>{t('group.members')}</legend>
      {contacts.length === 0 ? <p className="hint">{t('group.no-contacts')}</p> : null}
      {contacts.map(user => (
        <label key={user} className="choice-item">
          <input
            type="checkbox"
            checked={chosen.includes(user)}
            onChange={event =>
              onChange(event.target.checked ? [...chosen, user] : chosen.filter(other => other !== user))
            }
            data-testid={testid}
            data-key={user}
          />
          <Avatar of={user} label={nameOf(state, user)} small />
          <PersonName user={user} />
        </label>
      ))}
    </fieldset>
  );
}
