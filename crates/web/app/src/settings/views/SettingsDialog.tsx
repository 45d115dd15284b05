import { type FormEvent, useEffect, useState } from 'react';
import { DeviceList } from '../../devices/views/DeviceList';
import { t } from '../../i18n/text';
import { Dialog, Field, Toggle, useHelp } from '../../ui/parts';
import { commands, useApp } from '../../ui/store';

export function SettingsDialog({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title={t('settings.title')} onClose={onClose} testid="settings" closeTestid="settings-close">
      <Profile />
      <Look />
      <Privacy />
      <section>
        <h3>{t('settings.devices')}</h3>
        <DeviceList remove={commands.removeDevice} />
        <Fingerprint />
      </section>
      <Logout />
    </Dialog>
  );
}

function Profile() {
  const self = useApp(state => state.session.self);
  const domain = useApp(state => state.session.domain);
  const [name, setName] = useState(self?.name ?? '');
  const [handle, setHandle] = useState(self?.handle ?? '');
  const { failed, say } = useHelp();
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    try {
      if (name.trim() !== self?.name) await commands.setName(name.trim());
      if (handle.trim() !== (self?.handle ?? '')) await commands.setHandle(handle.trim());
      say(t('settings.saved'));
    } catch (error) {
      failed(error);
    }
  };
  return (
    <section>
      <h3>{t('settings.profile')}</h3>
      <form onSubmit={submit}>
        <Field label={t('settings.name')} value={name} onChange={setName} testid="settings-name" maxLength={128} />
        <Field
          label={t('settings.handle')}
          value={handle}
          onChange={value => setHandle(value.toLowerCase())}
          testid="settings-handle"
          hint={t('settings.handle.hint', { handle: handle || '…', domain })}
        />
        <p className="hint">
          {t('settings.email')}: {self?.email}
        </p>
        <button type="submit" className="button" data-testid="settings-save">
          {t('settings.save')}
        </button>
      </form>
    </section>
  );
}

const THEMES = ['system', 'light', 'dark'] as const;

function Look() {
  const theme = useApp(state => state.session.settings.theme);
  return (
    <section>
      <h3>{t('settings.look')}</h3>
      <select
        value={theme}
        aria-label={t('settings.look')}
        onChange={event => void commands.setSettings({ theme: event.target.value as (typeof THEMES)[number] })}
        data-testid="settings-theme"
      >
        {THEMES.map(name => (
          <option key={name} value={name}>
            {t(`settings.theme.${name}`)}
          </option>
        ))}
      </select>
    </section>
  );
}

function Privacy() {
  const { readReceipts, notifications } = useApp(state => state.session.settings);
  const { failed, say } = useHelp();
  const notify = async (on: boolean) => {
    if (on && (!('Notification' in window) || (await Notification.requestPermission()) !== 'granted')) {
      say(t('settings.notifications.denied'));
      return;
    }
    await commands.setSettings({ notifications: on }).catch(failed);
  };
  return (
    <section>
      <h3>{t('settings.privacy')}</h3>
      <Toggle
        label={t('settings.receipts')}
        on={readReceipts}
        onChange={on => commands.setSettings({ readReceipts: on }).catch(failed)}
        testid="settings-receipts"
      />
      <Toggle
        label={t('settings.notifications')}
        on={notifications}
        onChange={notify}
        testid="settings-notifications"
      />
    </section>
  );
}

const GROUP = 4;

function Fingerprint() {
  const [fingerprint, setFingerprint] = useState('');
  useEffect(() => {
    void commands
      .fingerprint()
      .then(setFingerprint)
      .catch(() => undefined);
  }, []);
  const groups = fingerprint.match(new RegExp(`.{1,${GROUP}}`, 'g')) ?? [];
  return (
    <div className="fingerprint">
      <p className="hint">{t('device.fingerprint')}</p>
      <code>{groups.join(' ')}</code>
    </div>
  );
}

function Logout() {
  const [asking, setAsking] = useState(false);
  const [forget, setForget] = useState(false);
  const { failed } = useHelp();
  return (
    <section>
      <button
        type="button"
        className="button danger-quiet"
        onClick={() => setAsking(!asking)}
        aria-expanded={asking}
        data-testid="logout"
      >
        {t('settings.logout')}
      </button>
      {asking ? (
        <div className="logout">
          <Toggle
            label={t('settings.logout.forget')}
            on={forget}
            onChange={on => void setForget(on)}
            testid="logout-forget"
          />
          <button
            type="button"
            className="button danger"
            onClick={() => void commands.logout(forget).catch(failed)}
            data-testid="logout-submit"
          >
            {t('settings.logout')}
          </button>
        </div>
      ) : null}
    </section>
  );
}
