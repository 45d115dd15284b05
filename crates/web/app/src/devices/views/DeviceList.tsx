import { type FormEvent, useState } from 'react';
import { explain } from '../../federation/explain';
import { longDate, t } from '../../i18n/text';
import type { Device } from '../../session/state';
import { Icon } from '../../ui/Icon';
import { Field } from '../../ui/parts';
import { useApp } from '../../ui/store';

type Remove = (id: string, password: string) => Promise<void>;

export function DeviceList({ remove }: { remove: Remove }) {
  const devices = useApp(state => state.session.devices);
  const own = useApp(state => state.session.self?.client);
  return (
    <ul className="list">
      {devices.map(device => (
        <DeviceItem key={device.id} device={device} own={device.id === own} remove={remove} />
      ))}
    </ul>
  );
}

function DeviceItem({ device, own, remove }: { device: Device; own: boolean; remove: Remove }) {
  const [asking, setAsking] = useState(false);
  const [password, setPassword] = useState('');
  const [error, setError] = useState<string>();
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    try {
      await remove(device.id, password);
    } catch (failure) {
      setError(explain(failure));
    }
  };
  return (
    <li className="device" data-testid="device" data-device={device.id} data-own={own}>
      <div className="row">
        <Icon name="device" />
        <div className="grow">
          <div className="name">{device.label || device.model || device.id}</div>
          <div className="hint">
            {own ? t('device.this') : device.time ? t('device.added', { date: longDate(device.time) }) : device.id}
          </div>
        </div>
        {own ? null : (
          <button type="button" className="button small" onClick={() => setAsking(!asking)} data-testid="device-remove">
            {t('device.remove')}
          </button>
        )}
      </div>
      {asking ? (
        <form onSubmit={submit}>
          <Field
            label={t('settings.device.password')}
            value={password}
            onChange={setPassword}
            type="password"
            testid="device-password"
            autoComplete="current-password"
            autoFocus
          />
          <p className="form-error" role="alert">
            {error}
          </p>
          <button type="submit" className="button danger" data-testid="device-remove-submit">
            {t('device.remove')}
          </button>
        </form>
      ) : null}
    </li>
  );
}
