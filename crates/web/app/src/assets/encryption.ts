import { type Bytes, plain, randomBytes, sameBytes } from '../engine/bytes';

const IV_BYTES = 16;

export interface Encrypted {
  bytes: Bytes;
  secret: Bytes;
  /** Of the encrypted bytes. */
  sha256: Bytes;
}

/** AES-256-CBC, the initialisation vector in front. */
export async function encryptBytes(bytes: BufferSource): Promise<Encrypted> {
  const secret = randomBytes(32);
  const iv = randomBytes(IV_BYTES);
  const key = await crypto.subtle.importKey('raw', secret, 'AES-CBC', false, ['encrypt']);
  const ciphertext = new Uint8Array(await crypto.subtle.encrypt({ name: 'AES-CBC', iv }, key, bytes));
  const whole = new Uint8Array(IV_BYTES + ciphertext.length);
  whole.set(iv);
  whole.set(ciphertext, IV_BYTES);
  return { bytes: whole, secret, sha256: new Uint8Array(await crypto.subtle.digest('SHA-256', whole)) };
}

/** The opposite. Refuses bytes that are not those that the hash is of; an empty or missing hash is not compared. */
export async function decryptBytes(
  whole: Bytes,
  secret: Uint8Array,
  sha256: Uint8Array | undefined,
  algorithm: 'cbc' | 'gcm' = 'cbc',
): Promise<ArrayBuffer> {
  if (sha256 && sha256.length > 0) {
    const actual = new Uint8Array(await crypto.subtle.digest('SHA-256', whole));
    if (!sameBytes(actual, sha256)) throw new Error('the file is not the one that was sent');
  }
  const name = algorithm === 'gcm' ? 'AES-GCM' : 'AES-CBC';
  const key = await crypto.subtle.importKey('raw', plain(secret), name, false, ['decrypt']);
  const iv = whole.subarray(0, IV_BYTES);
  return crypto.subtle.decrypt({ name, iv }, key, whole.subarray(IV_BYTES));
}
