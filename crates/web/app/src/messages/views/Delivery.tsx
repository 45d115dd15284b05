import { explainLabel } from '../../federation/explain';
import { PASSING } from '../../federation/selectors';
import { isAway } from '../../federation/state';
import { clockTime, sinceTime, t } from '../../i18n/text';
import { domainOf } from '../../model';
import { Icon, type IconName } from '../../ui/Icon';
import { Avatar, Dialog, DomainBadge, PersonName, useHelp } from '../../ui/parts';
import { commands, nameOf, useApp, useNow } from '../../ui/store';
import { type BackendProgress, type BackendState, type Message, type Progress, progressByBackend } from '../state';

const ICONS: Record<BackendState, IconName> = {
  sending: 'clock',
  failed: 'warn',
  sent: 'check',
  held: 'clock',
  waiting: 'clock',
  delivered: 'checks',
  read: 'eye',
  unsent: 'warn',
};

/** States that may still change, or need something done: always said in words. */
const OPEN: BackendState[] = ['failed', 'held', 'waiting', 'unsent'];

function wordsFor({ domain, state }: BackendProgress, message: Message): string {
  const time = sinceTime(message.time);
  switch (state) {
    case 'sending':
      return t('delivery.sending');
    case 'failed':
      return t('delivery.failed');
    default:
      return t(`delivery.${state}`, { domain, time });
  }
}

const SETTLED_MS = 3_600_000;

/** Whether everybody has it, so that nothing changes with time. */
const isSettled = ({ delivery }: Message): boolean =>
  Object.values(delivery?.people ?? {}).every(({ delivered, read }) => delivered || read);

interface DeliveryProps {
  message: Message;
  inWords: boolean;
  onInfo: () => void;
}

/** What became of an own message, per backend. */
export function Delivery({ message, inWords, onInfo }: DeliveryProps) {
  const now = useNow(isSettled(message) ? SETTLED_MS : 1000);
  const federation = useApp(state => state.federation);
  const { failed } = useHelp();
  const { delivery, conversation, id } = message;
  if (!delivery) return null;
  const progress = progressByBackend(message, now, isAway(federation));
  const notSent = delivery.state === 'failed';
  const missed = progress.some(entry => entry.unsent > 0) && delivery.state === 'sent';
  return (
    <div className="delivery">
      {notSent ? (
        <span className="delivery-chip delivery-failed" data-testid="delivery" data-domain="" data-state="failed">
          <Icon name="warn" />
          {t('delivery.failed')}: {explainLabel(delivery.error ?? 'unknown', domainOf(conversation))}{' '}
          {PASSING.includes(delivery.error ?? '') ? t('delivery.resumes') : ''}
        </span>
      ) : null}
      {delivery.state === 'sending' && progress.length === 0 ? (
        <span className="delivery-chip" data-testid="delivery" data-domain="" data-state="sending">
          <Icon name="clock" />
          {t('delivery.sending')}
        </span>
      ) : null}
      {notSent
        ? null
        : progress.map(entry => {
            const words = wordsFor(entry, message);
            return (
              <button
                key={entry.domain}
                type="button"
                className={`delivery-chip delivery-${entry.state}`}
                onClick={onInfo}
                title={words}
                data-testid="delivery"
                data-domain={entry.domain}
                data-state={entry.state}
              >
                <Icon name={ICONS[entry.state]} />
                <span className={inWords || OPEN.includes(entry.state) ? '' : 'sr-only'}>
                  {words}
                  {entry.delivered > 0 && entry.delivered < entry.people.length && entry.people.length > 1
                    ? ` (${entry.delivered}/${entry.people.length})`
                    : ''}
                </span>
              </button>
            );
          })}
      {notSent || missed ? (
        <button
          type="button"
          className="button small"
          onClick={() => void commands.sendAgain(conversation, id).catch(failed)}
          data-testid="retry"
        >
          {t('delivery.retry')}
        </button>
      ) : null}
      {notSent ? (
        <button
          type="button"
          className="button small"
          onClick={() => void commands.discard(conversation, id).catch(failed)}
          data-testid="discard"
        >
          {t('delivery.discard')}
        </button>
      ) : null}
    </div>
  );
}

type PersonState = 'read' | 'delivered' | 'unsent' | 'held' | 'none';

function personState({ read, delivered, trouble }: Progress): PersonState {
  if (read) return 'read';
  if (delivered) return 'delivered';
  return trouble ?? 'none';
}

export function DeliveryDialog({ message, onClose }: { message: Message; onClose: () => void }) {
  const now = useNow(1000);
  const federation = useApp(state => state.federation);
  const progress = progressByBackend(message, now, isAway(federation));
  return (
    <Dialog title={t('delivery.title')} onClose={onClose} testid="delivery-info">
      {progress.map(entry => (
        <section key={entry.domain}>
          <div className="row">
            <span className={`delivery-chip delivery-${entry.state}`}>
              <Icon name={ICONS[entry.state]} />
              {wordsFor(entry, message)}
            </span>
            <span className="grow" />
            <DomainBadge domain={entry.domain} />
          </div>
          <p className="hint">{whyOf(entry)}</p>
          <ul className="list">
            {entry.people.map(({ user, progress: state }) => (
              <Person key={user} user={user} progress={state} />
            ))}
          </ul>
        </section>
      ))}
    </Dialog>
  );
}

function whyOf({ domain, state }: BackendProgress): string {
  if (state === 'waiting' || state === 'held' || state === 'unsent') return t(`delivery.${state}.why`, { domain });
  return '';
}

function Person({ user, progress }: { user: string; progress: Progress }) {
  const name = useApp(state => nameOf(state, user));
  const state = personState(progress);
  const time = progress.read ?? progress.delivered;
  return (
    <li className="row" data-testid="delivery-person" data-key={user} data-state={state} data-domain={domainOf(user)}>
      <Avatar of={user} label={name} small />
      <div className="grow clip">
        <PersonName user={user} />
      </div>
      <span className="hint">{t(`delivery.person.${state}`, { time: time ? clockTime(time) : '' })}</span>
    </li>
  );
}
