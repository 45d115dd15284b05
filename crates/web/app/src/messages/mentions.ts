import type { Key } from '../model';
import type { Mention } from './content';

/** The `@` and what follows it, right before the cursor. */
export function mentionBefore(text: string, cursor: number): { start: number; query: string } | undefined {
  const match = /(^|\s)@([^\s@]{0,40})$/.exec(text.slice(0, cursor));
  if (!match) return undefined;
  const query = match[2] ?? '';
  return { start: cursor - query.length - 1, query: query.toLowerCase() };
}

/** Where the chosen people are named in a text, in the order of the text. Names that were changed since are not. */
export function mentionsIn(text: string, chosen: { name: string; user: Key }[]): Mention[] {
  const found: Mention[] = [];
  for (const { name, user } of [...chosen].sort((a, b) => b.name.length - a.name.length)) {
    const wanted = `@${name}`;
    for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + 1)) {
      const overlaps = found.some(other => at < other.start + other.length && other.start < at + wanted.length);
      if (!overlaps) found.push({ start: at, length: wanted.length, user });
    }
  }
  return found.sort((a, b) => a.start - b.start);
}
