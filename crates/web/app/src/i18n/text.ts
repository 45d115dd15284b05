import { en, type TextKey } from './en';

export type { TextKey } from './en';

/** A text, with what its braces name. */
export function t(key: TextKey, values: Record<string, string | number> = {}): string {
  return en[key].replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

export const isText = (key: string): key is TextKey => key in en;

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const weekday = new Intl.DateTimeFormat('en-GB', { weekday: 'long' });
const date = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'long' });
const dateWithYear = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'long', year: 'numeric' });
const full = new Intl.DateTimeFormat('en-GB', { dateStyle: 'full', timeStyle: 'short' });
const DAY_MS = 86_400_000;

export const clockTime = (iso: string): string => clock.format(new Date(iso));
export const fullTime = (iso: string): string => full.format(new Date(iso));
export const longDate = (iso: string): string => dateWithYear.format(new Date(iso));

const startOfDay = (time: Date): number => new Date(time).setHours(0, 0, 0, 0);

/** The day of a time as people say it. */
export function dayName(iso: string, now = new Date()): string {
  const days = Math.round((startOfDay(now) - startOfDay(new Date(iso))) / DAY_MS);
  if (days <= 0) return 'Today';
  if (days === 1) return 'Yesterday';
  if (days < 7) return weekday.format(new Date(iso));
  return new Date(iso).getFullYear() === now.getFullYear() ? date.format(new Date(iso)) : longDate(iso);
}

/** A time as short as it can be: the clock of today, else the day. */
export function shortTime(iso: string, now = new Date()): string {
  return startOfDay(now) === startOfDay(new Date(iso)) ? clockTime(iso) : dayName(iso, now);
}

/** When something began: the clock, with the day when it was not today. */
export function sinceTime(iso: string, now = new Date()): string {
  return startOfDay(now) === startOfDay(new Date(iso)) ? clockTime(iso) : `${dayName(iso, now)} ${clockTime(iso)}`;
}

export function fileSize(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1_000_000) return `${Math.round(bytes / 1000)} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}
