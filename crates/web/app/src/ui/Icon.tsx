const PATHS = {
  back: 'M15 5l-7 7 7 7',
  people:
    'M9 11a3.5 3.5 0 100-7 3.5 3.5 0 000 7zM2.5 20c0-3.6 2.9-6 6.5-6s6.5 2.4 6.5 6M16 4.5a3.5 3.5 0 010 6.5M18 14.5c2.2.8 3.5 2.7 3.5 5.5',
  settings: 'M4 7h10M18 7h2M4 17h2M10 17h10M16 9a2 2 0 100-4 2 2 0 000 4zM8 19a2 2 0 100-4 2 2 0 000 4zM4 12h16',
  plus: 'M12 5v14M5 12h14',
  search: 'M11 18a7 7 0 100-14 7 7 0 000 14zM16 16l4.5 4.5',
  info: 'M12 21a9 9 0 100-18 9 9 0 000 18zM12 11v5M12 7.6v.1',
  send: 'M4 12l16-8-5 16-3.5-6.5L4 12z',
  attach: 'M20 11.5l-8 8a5 5 0 01-7-7l8.5-8.5a3.4 3.4 0 014.8 4.8l-8.4 8.4a1.7 1.7 0 01-2.4-2.4l7.6-7.6',
  ping: 'M12 4a6 6 0 016 6c0 5 2 6 2 6H4s2-1 2-6a6 6 0 016-6zM10 20h4',
  smile: 'M12 21a9 9 0 100-18 9 9 0 000 18zM8.5 14.5c1.8 2.3 5.2 2.3 7 0M9 9.5v.1M15 9.5v.1',
  more: 'M6 12h.1M12 12h.1M18 12h.1',
  close: 'M6 6l12 12M18 6L6 18',
  check: 'M5 12.5l4.5 4.5L19 7',
  checks: 'M2.5 12.5L7 17l8.5-9.5M11.5 16l1 1L21.5 7.5',
  clock: 'M12 21a9 9 0 100-18 9 9 0 000 18zM12 7v5l3.5 2',
  star: 'M12 4l2.4 5.2 5.6.7-4.1 3.9 1.1 5.6-5-2.8-5 2.8 1.1-5.6L4 9.9l5.6-.7L12 4z',
  warn: 'M12 4l9 16H3l9-16zM12 10v4.5M12 17.2v.1',
  eye: 'M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 14.5a2.5 2.5 0 100-5 2.5 2.5 0 000 5z',
  mute: 'M5 9v6h4l5 4V5L9 9H5zM18 9l4 6M22 9l-4 6',
  archive: 'M4 4h16v4H4zM5.5 8v12h13V8M10 12h4',
  file: 'M7 3h7l5 5v13H7zM14 3v5h5',
  reply: 'M9 7L4 12l5 5M4 12h9c4 0 6 2 7 6',
  device: 'M3 5h18v11H3zM9 20h6M12 16v4',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
