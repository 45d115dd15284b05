/** A user or conversation, and the backend that owns it. */
export interface QualifiedId {
  id: string;
  domain: string;
}

/** A qualified id as one string, `id@domain`, for use as a key. */
export type Key = string;

export const keyOf = ({ id, domain }: QualifiedId): Key => `${id}@${domain}`;

export function fromKey(key: Key): QualifiedId {
  const at = key.indexOf('@');
  return { id: key.slice(0, at), domain: key.slice(at + 1) };
}

export const domainOf = (key: Key): string => key.slice(key.indexOf('@') + 1);

/** A table by key. What is not there is `undefined`. */
export type Table<T> = Readonly<Record<string, T>>;

/** `table` with one entry set, or without it when `value` is `undefined`. The same table when nothing changes. */
export function put<T>(table: Table<T>, key: string, value: T | undefined): Table<T> {
  if (table[key] === value) return table;
  const next: Record<string, T> = { ...table };
  if (value === undefined) delete next[key];
  else next[key] = value;
  return next;
}
