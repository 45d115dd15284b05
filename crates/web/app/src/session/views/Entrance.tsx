import { type FormEvent, type ReactNode, useState } from 'react';
import { DeviceList } from '../../devices/views/DeviceList';
import { explain, explainLabel } from '../../federation/explain';
import { t } from '../../i18n/text';
import { Field } from '../../ui/parts';
import { commands, useApp } from '../../ui/store';

function Frame({ title, children }: { title: string; children: ReactNode }) {
  return (
    <main className="entrance">
      <div className="entrance-brand">
        <img src="/app/lamp.svg" alt="" width="56" height="56" />
        <p className="brand">{t('name')}</p>
        <p className="tagline">{t('tagline')}</p>
      </div>
      <section className="card">
        <h1>{title}</h1>
        {children}
      </section>
    </main>
  );
}

/** A form that does one thing at a time and says what went wrong. */
function useForm(work: () => Promise<void>) {
  const [busy, setBusy] = useState(false);
  const problemBefore = useApp(state => state.session.problem);
  const [error, setError] = useState(problemBefore && explainLabel(problemBefore));
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    setError(undefined);
    try {
      await work();
    } catch (failure) {
      setError(explain(failure));
    } finally {
      setBusy(false);
    }
  };
  const problem = (
    <p className="form-error" role="alert" data-testid={error ? 'form-error' : undefined}>
      {error}
    </p>
  );
  return { busy, submit, problem };
}

export function Login({ onRegister }: { onRegister: () => void }) {
  const { domain, registration, ended } = useApp(state => state.session);
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const { busy, submit, problem } = useForm(() => commands.login(user.trim().replace(/^@/, ''), password));
  return (
    <Frame title={t('login.title', { domain })}>
      {ended ? <p className="note">{t(`login.ended.${ended}`)}</p> : null}
      <form onSubmit={submit} data-testid="login">
        <Field
          label={t('login.user')}
          value={user}
          onChange={setUser}
          testid="login-user"
          autoComplete="username"
          autoFocus
        />
        <Field
          label={t('login.password')}
          value={password}
          onChange={setPassword}
          testid="login-password"
          type="password"
          autoComplete="current-password"
        />
        {problem}
        <button type="submit" className="button primary wide" disabled={busy} data-testid="login-submit">
          {busy ? t('login.busy') : t('login.submit')}
        </button>
      </form>
      {registration ? (
        <button type="button" className="link" onClick={onRegister} data-testid="to-register">
          {t('login.to-register')}
        </button>
      ) : null}
    </Frame>
  );
}

export function Register({ onLogin }: { onLogin: () => void }) {
  const domain = useApp(state => state.session.domain);
  const [sentTo, setSentTo] = useState<string>();
  const [email, setEmail] = useState('');
  const [code, setCode] = useState('');
  const [name, setName] = useState('');
  const [password, setPassword] = useState('');
  const { busy, submit, problem } = useForm(async () => {
    if (sentTo) return commands.register({ email: sentTo, code: code.trim(), name: name.trim(), password });
    await commands.sendCode(email.trim());
    setSentTo(email.trim());
  });
  return (
    <Frame title={t('register.title', { domain })}>
      <form onSubmit={submit} data-testid="register">
        {sentTo ? (
          <>
            <p className="note">{t('register.sent', { email: sentTo })}</p>
            <Field
              label={t('register.code')}
              value={code}
              onChange={setCode}
              testid="register-code"
              inputMode="numeric"
              autoComplete="one-time-code"
              autoFocus
            />
            <Field
              label={t('register.name')}
              value={name}
              onChange={setName}
              testid="register-name"
              autoComplete="name"
              maxLength={128}
            />
            <Field
              label={t('register.password')}
              value={password}
              onChange={setPassword}
              testid="register-password"
              type="password"
              autoComplete="new-password"
              minLength={8}
            />
          </>
        ) : (
          <Field
            label={t('register.email')}
            value={email}
            onChange={setEmail}
            testid="register-email"
            type="email"
            autoComplete="email"
            autoFocus
          />
        )}
        {problem}
        <button
          type="submit"
          className="button primary wide"
          disabled={busy}
          data-testid={sentTo ? 'register-submit' : 'register-send'}
        >
          {sentTo ? t('register.submit') : t('register.send')}
        </button>
      </form>
      <button type="button" className="link" onClick={onLogin} data-testid="to-login">
        {t('register.to-login')}
      </button>
    </Frame>
  );
}

export function PasswordNeeded() {
  const [password, setPassword] = useState('');
  const { busy, submit, problem } = useForm(() => commands.confirmPassword(password));
  return (
    <Frame title={t('device.password.title')}>
      <p className="note">{t('device.password.text')}</p>
      <form onSubmit={submit} data-testid="password-needed">
        <Field
          label={t('login.password')}
          value={password}
          onChange={setPassword}
          testid="password-again"
          type="password"
          autoComplete="current-password"
          autoFocus
        />
        {problem}
        <button type="submit" className="button primary wide" disabled={busy} data-testid="password-submit">
          {t('login.submit')}
        </button>
      </form>
      <LogoutLink />
    </Frame>
  );
}

export function TooManyDevices() {
  return (
    <Frame title={t('device.full.title')}>
      <p className="note">{t('device.full.text')}</p>
      <div data-testid="too-many-devices">
        <DeviceList remove={commands.replaceDevice} />
      </div>
      <LogoutLink />
    </Frame>
  );
}

const LogoutLink = () => (
  <button type="button" className="link" onClick={() => void commands.logout(false)}>
    {t('settings.logout')}
  </button>
);

export function Waiting({ text }: { text: string }) {
  return (
    <main className="waiting" aria-busy="true">
      <img src="/app/lamp.svg" alt="" width="64" height="64" className="pulse" />
      <h1>{text}</h1>
    </main>
  );
}
