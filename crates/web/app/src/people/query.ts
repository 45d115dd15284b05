/** What somebody typed to find people: `@handle@domain`, `handle@domain`, `@handle`, or any text. */
export function splitQuery(query: string): { text: string; domain?: string } {
  const trimmed = query.trim();
  const match = /^@?([^@\s]+)@([^@\s]+\.[^@\s]+)$/.exec(trimmed);
  if (match?.[1] && match[2]) return { text: match[1].toLowerCase(), domain: match[2].toLowerCase() };
  return { text: trimmed.replace(/^@/, '') };
}
