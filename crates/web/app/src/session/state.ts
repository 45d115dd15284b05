import type { Key } from '../model';

export interface Self {
  key: Key;
  name: string;
  handle?: string;
  email?: string;
  accent: number;
  /** The own client. */
  client?: string;
}

export type Stage =
  | 'starting'
  | 'logged-out'
  /** Logged in, but this browser needs the password to become a device. */
  | 'password-needed'
  /** There are too many devices: one has to go. */
  | 'too-many-devices'
  | 'loading'
  | 'ready';

export interface Device {
  id: string;
  label?: string;
  model?: string;
  class?: string;
  time?: string;
  last_active?: string | null;
}

export interface SessionState {
  stage: Stage;
  /** The domain of the backend. */
  domain: string;
  registration: boolean;
  self?: Self;
  link: 'online' | 'connecting' | 'offline';
  devices: Device[];
  /** Why the last session ended, when it was not the user's wish. */
  ended?: 'expired' | 'removed';
  /** The label of what kept the last log-in from succeeding. */
  problem?: string;
  settings: Settings;
}

export interface Settings {
  theme: 'system' | 'light' | 'dark';
  /** Whether others learn that their messages were read. */
  readReceipts: boolean;
  notifications: boolean;
}

export const noSession: SessionState = {
  stage: 'starting',
  domain: '',
  registration: true,
  link: 'connecting',
  devices: [],
  settings: { theme: 'system', readReceipts: true, notifications: false },
};

export type SessionAction =
  | { type: 'session/stage'; stage: Stage; ended?: SessionState['ended']; problem?: string }
  | { type: 'session/backend'; domain: string; registration: boolean }
  | { type: 'session/self'; self: Self }
  | { type: 'session/link'; link: SessionState['link'] }
  | { type: 'session/devices'; devices: Device[] }
  | { type: 'session/settings'; settings: Partial<Settings> };

export function reduceSession(state: SessionState, action: SessionAction): SessionState {
  switch (action.type) {
    case 'session/stage':
      return { ...state, stage: action.stage, ended: action.ended, problem: action.problem };
    case 'session/backend':
      return { ...state, domain: action.domain, registration: action.registration };
    case 'session/self':
      return { ...state, self: action.self };
    case 'session/link':
      return state.link === action.link ? state : { ...state, link: action.link };
    case 'session/devices':
      return { ...state, devices: action.devices };
    case 'session/settings':
      return { ...state, settings: { ...state.settings, ...action.settings } };
  }
}
