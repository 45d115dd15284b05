import type { State } from '../engine/state';
import { t } from '../i18n/text';
import { nameOf } from '../ui/store';
import type { SystemContent } from './content';
import type { Message } from './state';

const PREVIEW = 200;

/** One line about a message. */
export function previewOf(state: State, message: Message): string {
  const own = message.from === state.session.self?.key;
  const { content } = message;
  const name = nameOf(state, message.from);
  switch (content.kind) {
    case 'text':
      return (own ? `${t('people.you')}: ` : '') + content.text.slice(0, PREVIEW);
    case 'file':
      return content.name ?? t('message.file');
    case 'ping':
      return own ? t('message.ping.own') : t('message.ping', { name });
    case 'location':
      return t('message.location', { name: content.name ?? '' });
    case 'deleted':
      return t('message.deleted');
    case 'unreadable':
      return content.reason === 'unknown' ? t('message.unknown') : t('message.unreadable', { name });
    case 'system':
      return systemText(state, message.from, content);
  }
}

export function systemText(state: State, from: string, content: SystemContent): string {
  const self = state.session.self?.key;
  const shown = (user: string) => (user === self ? t('people.you') : nameOf(state, user));
  const name = shown(from);
  const users = (content.users ?? []).map(shown).join(', ');
  switch (content.event) {
    case 'created':
      return t('system.created', { name });
    case 'renamed':
      return t('system.renamed', { name, title: content.name ?? '' });
    case 'joined':
      return t('system.joined', { name, users });
    case 'left':
      return t('system.left', { users });
    case 'removed':
      return t('system.removed', { name, users });
    case 'connected':
      return t('system.connected', { users: users || name });
    case 'receipts':
      return content.name === 'on' ? t('system.receipts.on', { name }) : t('system.receipts.off', { name });
    case 'missed':
      return t('system.missed');
  }
}
