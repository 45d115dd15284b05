import { ApiError } from '../engine/api';
import { isText, t } from '../i18n/text';

/** What went wrong and what the person can do, in a sentence. */
export function explain(error: unknown): string {
  if (!(error instanceof ApiError)) return t('error.unknown', { label: 'unknown' });
  const list = (domains: unknown) => (Array.isArray(domains) ? domains.join(', ') : '');
  if (error.body?.unreachable_backends) {
    return t('error.unreachable-backends', { domains: list(error.body.unreachable_backends) });
  }
  if (error.body?.non_federating_backends) {
    return t('error.non-federating-backends', { domains: list(error.body.non_federating_backends) });
  }
  return explainLabel(error.label, error.domain);
}

/** The same for a label that was kept. */
export function explainLabel(label: string, domain = 'The other organisation'): string {
  const key = `error.${label}`;
  return isText(key) ? t(key, { domain }) : t('error.unknown', { label });
}
