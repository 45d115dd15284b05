import type { Key } from '../model';

export interface Mention {
  start: number;
  length: number;
  user: Key;
}

/** Where the encrypted bytes of a file are, and how to read them. */
export interface RemoteFile {
  key: string;
  domain: string;
  token?: string;
  /** AES key. */
  secret: Uint8Array;
  sha256: Uint8Array;
  algorithm: 'cbc' | 'gcm';
}

export interface FileContent {
  kind: 'file';
  mime: string;
  size: number;
  name?: string;
  image?: { width: number; height: number };
  remote?: RemoteFile;
  /** The sender gave up. */
  failed?: boolean;
}

export interface TextContent {
  kind: 'text';
  text: string;
  mentions: Mention[];
  quote?: string;
}

/** What the backend told about a conversation, shown among its messages. */
export type SystemContent = {
  kind: 'system';
  event: 'created' | 'renamed' | 'joined' | 'left' | 'removed' | 'connected' | 'receipts' | 'missed';
  users?: Key[];
  name?: string;
};

/** What a message shows. */
export type Content =
  | TextContent
  | FileContent
  | SystemContent
  | { kind: 'ping' }
  | { kind: 'location'; latitude: number; longitude: number; name?: string }
  | { kind: 'deleted' }
  | { kind: 'unreadable'; reason: 'undecryptable' | 'unknown' };

/** What a decrypted message asks for: to be shown, or to change another one. */
export type Incoming =
  | { act: 'show'; id: string; content: Content; expectsRead: boolean; expiresAfter?: number }
  | { act: 'edit'; id: string; target: string; text: string; mentions: Mention[] }
  | { act: 'delete'; target: string }
  | { act: 'hide'; conversation: Key; target: string }
  | { act: 'react'; target: string; emojis: string[] }
  | { act: 'confirm'; targets: string[]; read: boolean }
  | { act: 'last-read'; conversation: Key; until: string }
  | { act: 'reset-session' }
  | { act: 'ignore' };
