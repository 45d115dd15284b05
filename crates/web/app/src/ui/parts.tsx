import {
  createContext,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useId,
  useMemo,
  useRef,
  useState,
} from 'react';
import { explain } from '../federation/explain';
import { t } from '../i18n/text';
import { domainOf, type Key } from '../model';
import { Icon, type IconName } from './Icon';
import { nameOf, useApp } from './store';

const HUES = 8;

/** One of a few colours, always the same for the same text. */
export function hueOf(text: string): number {
  let sum = 0;
  for (let at = 0; at < text.length; at += 1) sum = (sum * 31 + text.charCodeAt(at)) >>> 0;
  return sum % HUES;
}

/** The domain of a person or a conversation. The own one is plain. */
export function DomainBadge({ domain }: { domain: string }) {
  const own = useApp(state => state.session.domain);
  const look = domain === own ? 'badge badge-own' : `badge hue-${hueOf(domain)}`;
  return (
    <span className={look} data-testid="domain-badge" data-domain={domain}>
      <span className="sr-only">{t('domain.label', { domain: '' })}</span>
      {domain}
    </span>
  );
}

export function Avatar({ of, label, small }: { of: string; label: string; small?: boolean }) {
  const initials = [...label.trim()].slice(0, 1).join('').toUpperCase() || '?';
  return (
    <span className={`avatar hue-${hueOf(of)}${small ? ' avatar-small' : ''}`} aria-hidden="true">
      {initials}
    </span>
  );
}

export function PersonName({ user }: { user: Key }) {
  const name = useApp(state => nameOf(state, user));
  return (
    <span className="person-name">
      <span className="name">{name}</span> <DomainBadge domain={domainOf(user)} />
    </span>
  );
}

interface IconButtonProps {
  icon: IconName;
  label: string;
  onClick?: () => void;
  testid?: string;
  pressed?: boolean;
  disabled?: boolean;
  count?: number;
  className?: string;
}

export function IconButton({
  icon,
  label,
  onClick,
  testid,
  pressed,
  disabled,
  count,
  className = '',
}: IconButtonProps) {
  return (
    <button
      type="button"
      className={`icon-button ${className}`}
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      disabled={disabled}
      onClick={onClick}
      data-testid={testid}
      data-count={count}
    >
      <Icon name={icon} />
      {count ? <span className="count">{count}</span> : null}
    </button>
  );
}

interface DialogProps {
  title: string;
  onClose: () => void;
  testid: string;
  closeTestid?: string;
  children: ReactNode;
}

export function Dialog({ title, onClose, testid, closeTestid = 'dialog-close', children }: DialogProps) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    if (ref.current && !ref.current.open) ref.current.showModal();
  }, []);
  return (
    <dialog ref={ref} className="dialog" aria-labelledby={id} onClose={onClose} data-testid={testid}>
      <header className="dialog-header">
        <h2 id={id}>{title}</h2>
        <IconButton icon="close" label={t('close')} onClick={() => ref.current?.close()} testid={closeTestid} />
      </header>
      <div className="dialog-body">{children}</div>
    </dialog>
  );
}

interface Help {
  /** Says in a sentence what went wrong. */
  failed(error: unknown): void;
  say(text: string): void;
  /** Asks before something that cannot be undone. */
  ask(question: string): Promise<boolean>;
}

const HelpContext = createContext<Help>({ failed: () => {}, say: () => {}, ask: async () => false });
export const useHelp = (): Help => useContext(HelpContext);

const TOAST_MS = 8000;

export function HelpProvider({ children }: { children: ReactNode }) {
  const [toast, setToast] = useState<{ text: string; id: number }>();
  const [question, setQuestion] = useState<{ text: string; answer: (yes: boolean) => void }>();
  const say = useCallback((text: string) => setToast({ text, id: Date.now() }), []);
  const help = useMemo<Help>(
    () => ({
      say,
      failed: error => say(explain(error)),
      ask: text => new Promise(answer => setQuestion({ text, answer })),
    }),
    [say],
  );
  useEffect(() => {
    if (!toast) return;
    const timer = setTimeout(() => setToast(undefined), TOAST_MS);
    return () => clearTimeout(timer);
  }, [toast]);
  const settle = (yes: boolean) => {
    question?.answer(yes);
    setQuestion(undefined);
  };
  return (
    <HelpContext value={help}>
      {children}
      <div className="toasts" role="alert">
        {toast ? (
          <div className="toast" key={toast.id} data-testid="toast">
            <span>{toast.text}</span>
            <IconButton icon="close" label={t('close')} onClick={() => setToast(undefined)} />
          </div>
        ) : null}
      </div>
      {question ? (
        <Dialog title={question.text} onClose={() => settle(false)} testid="confirm">
          <div className="row end">
            <button type="button" className="button" onClick={() => settle(false)} data-testid="confirm-no">
              {t('confirm.no')}
            </button>
            <button type="button" className="button danger" onClick={() => settle(true)} data-testid="confirm-yes">
              {t('confirm.yes')}
            </button>
          </div>
        </Dialog>
      ) : null}
    </HelpContext>
  );
}

interface FieldProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
  testid: string;
  type?: string;
  hint?: string;
  autoComplete?: string;
  autoFocus?: boolean;
  minLength?: number;
  maxLength?: number;
  inputMode?: 'numeric' | 'email';
}

export function Field({ label, value, onChange, testid, type = 'text', hint, autoFocus, ...rest }: FieldProps) {
  const id = useId();
  const ref = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (autoFocus) ref.current?.focus();
  }, [autoFocus]);
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        {...rest}
        id={id}
        ref={ref}
        type={type}
        value={value}
        required
        aria-describedby={hint ? `${id}-hint` : undefined}
        onChange={event => onChange(event.target.value)}
        data-testid={testid}
      />
      {hint ? (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      ) : null}
    </div>
  );
}

interface ToggleProps {
  label: string;
  on: boolean;
  onChange: (on: boolean) => Promise<unknown> | undefined;
  testid: string;
}

/** A switch that moves at once, and back when the change was refused. */
export function Toggle({ label, on, onChange, testid }: ToggleProps) {
  const [wanted, setWanted] = useState<boolean>();
  const change = (next: boolean) => {
    setWanted(next);
    void Promise.resolve(onChange(next)).finally(() => setWanted(undefined));
  };
  return (
    <label className="toggle">
      <input
        type="checkbox"
        checked={wanted ?? on}
        onChange={event => change(event.target.checked)}
        data-testid={testid}
      />
      <span>{label}</span>
    </label>
  );
}
