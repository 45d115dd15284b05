import { useEffect, useState } from 'react';
import { ConversationView } from '../conversations/views/ConversationView';
import { GroupForm } from '../conversations/views/GroupForm';
import { Sidebar } from '../conversations/views/Sidebar';
import { VISIBLE_LOCK } from '../engine/engine';
import { t } from '../i18n/text';
import { previewOf } from '../messages/preview';
import type { Key } from '../model';
import { PeopleView } from '../people/views/PeopleView';
import { Login, PasswordNeeded, Register, TooManyDevices, Waiting } from '../session/views/Entrance';
import { SettingsDialog } from '../settings/views/SettingsDialog';
import { HelpProvider } from './parts';
import { engine, nameOf, titleOf, useApp } from './store';

export function App() {
  const stage = useApp(state => state.session.stage);
  const [registering, setRegistering] = useState(false);
  useTheme();
  useVisibility();
  useEffect(() => {
    if (stage === 'ready') setRegistering(false);
  }, [stage]);
  return (
    <HelpProvider>
      {stage === 'starting' ? <Waiting text={t('starting')} /> : null}
      {stage === 'loading' ? <Waiting text={t('loading')} /> : null}
      {stage === 'logged-out' && !registering ? <Login onRegister={() => setRegistering(true)} /> : null}
      {stage === 'logged-out' && registering ? <Register onLogin={() => setRegistering(false)} /> : null}
      {stage === 'password-needed' ? <PasswordNeeded /> : null}
      {stage === 'too-many-devices' ? <TooManyDevices /> : null}
      {stage === 'ready' ? <Main /> : null}
    </HelpProvider>
  );
}

type Pane = { view: 'none' } | { view: 'people' } | { view: 'conversation'; key: Key };

function Main() {
  const [pane, setPane] = useState<Pane>(paneOfAddress);
  const [dialog, setDialog] = useState<'settings' | 'group'>();
  const link = useApp(state => state.session.link);
  const show = (next: Pane) => {
    history.replaceState(
      null,
      '',
      next.view === 'conversation' ? `#${next.key}` : next.view === 'people' ? '#people' : '#',
    );
    setPane(next);
  };
  const open = (key: Key) => show({ view: 'conversation', key });
  useNotices(open);
  useTitle();
  return (
    <div className="app" data-testid="app" data-link={link} data-pane={pane.view}>
      <a className="skip" href="#main">
        {t('nav.skip')}
      </a>
      <Sidebar
        open={pane.view === 'conversation' ? pane.key : undefined}
        onOpen={open}
        onPeople={() => show({ view: 'people' })}
        onSettings={() => setDialog('settings')}
        onNewGroup={() => setDialog('group')}
        banner={<LinkBanner />}
      />
      <main className="pane" id="main" tabIndex={-1}>
        {pane.view === 'conversation' ? (
          <ConversationView
            key={pane.key}
            conversation={pane.key}
            onBack={() => show({ view: 'none' })}
            onOpen={open}
          />
        ) : null}
        {pane.view === 'people' ? <PeopleView onBack={() => show({ view: 'none' })} onOpen={open} /> : null}
        {pane.view === 'none' ? (
          <div className="welcome">
            <img src="/app/lamp.svg" alt="" width="72" height="72" />
            <h1>{t('welcome.title')}</h1>
            <p className="hint">{t('welcome.text')}</p>
          </div>
        ) : null}
      </main>
      {dialog === 'settings' ? <SettingsDialog onClose={() => setDialog(undefined)} /> : null}
      {dialog === 'group' ? <GroupForm onClose={() => setDialog(undefined)} onOpen={open} /> : null}
    </div>
  );
}

function paneOfAddress(): Pane {
  const key = decodeURIComponent(location.hash.slice(1));
  if (key === 'people') return { view: 'people' };
  return engine.state().conversations.conversations[key] ? { view: 'conversation', key } : { view: 'none' };
}

const LINK_PATIENCE_MS = 1500;

/** Says that there is no connection, once that lasts. */
function LinkBanner() {
  const link = useApp(state => state.session.link);
  const domain = useApp(state => state.session.domain);
  const [late, setLate] = useState(false);
  useEffect(() => {
    setLate(false);
    if (link === 'online') return;
    const timer = setTimeout(() => setLate(true), LINK_PATIENCE_MS);
    return () => clearTimeout(timer);
  }, [link]);
  return (
    <div role="status">
      {late ? (
        <p className={`link-banner ${link}`} data-testid="link">
          {link === 'offline' ? t('link.offline', { domain }) : t('link.connecting')}
        </p>
      ) : null}
    </div>
  );
}

function useTheme() {
  const theme = useApp(state => state.session.settings.theme);
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
}

/** Lets the leading tab know that somebody looks at one of the tabs. */
function useVisibility() {
  useEffect(() => {
    let release: (() => void) | undefined;
    const update = () => {
      const visible = document.visibilityState === 'visible' && document.hasFocus();
      if (!visible) {
        release?.();
        release = undefined;
      } else if (!release) {
        const held = new Promise<void>(resolve => {
          release = resolve;
        });
        void navigator.locks.request(VISIBLE_LOCK, { mode: 'shared' }, () => held);
      }
    };
    update();
    const events = ['focus', 'blur', 'visibilitychange'];
    for (const name of events) addEventListener(name, update);
    return () => {
      for (const name of events) removeEventListener(name, update);
      release?.();
    };
  }, []);
}

function useNotices(open: (key: Key) => void) {
  useEffect(() => {
    engine.onNotice = (key, from, message) => {
      if (!('Notification' in window) || Notification.permission !== 'granted') return;
      const state = engine.state();
      const conversation = state.conversations.conversations[key];
      const name = nameOf(state, from);
      const title = conversation?.kind === 'group' ? `${name} · ${titleOf(state, conversation)}` : name;
      const body = message ? previewOf(state, message) : t('notice.message');
      const notice = new Notification(title, { body, tag: key, icon: '/app/lamp.svg' });
      notice.onclick = () => {
        window.focus();
        open(key);
      };
    };
  });
}

/** The number of unread conversations in the title of the page. */
function useTitle() {
  const conversations = useApp(state => state.conversations.conversations);
  const messages = useApp(state => state.messages.messages);
  const self = useApp(state => state.session.self?.key);
  useEffect(() => {
    const unread = Object.values(conversations).filter(entry => {
      const newest = messages[entry.key]?.at(-1);
      return newest && newest.from !== self && newest.time > entry.readUntil && !entry.muted && !entry.archived;
    });
    document.title = unread.length > 0 ? `(${unread.length}) ${t('name')}` : t('name');
  }, [conversations, messages, self]);
}
