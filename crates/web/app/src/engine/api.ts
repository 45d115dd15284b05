/** A request that was refused, or that did not get through (`status` 0, label `offline`). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly label: string,
    message: string,
    // biome-ignore lint/suspicious/noExplicitAny: bodies of refusals have many shapes
    readonly body: any = {},
  ) {
    super(message);
  }

  /** The other backend that a federation failure is about. */
  get domain(): string | undefined {
    return typeof this.body?.data?.domain === 'string' ? this.body.data.domain : undefined;
  }
}

export interface Call {
  query?: Record<string, string | undefined>;
  json?: unknown;
  body?: BodyInit;
  type?: string;
  headers?: Record<string, string>;
  /** Answers that are not failures, besides 2xx. */
  expect?: number[];
  anonymous?: boolean;
  timeoutMs?: number;
}

const LOWEST_VERSION = 8;
const HIGHEST_VERSION = 13;
const TIMEOUT_MS = 60_000;
const RETRIES_WHEN_THROTTLED = 6;
/** The access token is renewed this long before it expires. */
const RENEW_BEFORE_MS = 30_000;

const sleep = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

/** The client API of the backend that this page comes from. */
export class Api {
  #prefix = '';
  #token?: string;
  #expiresAt = 0;
  #client?: string;
  #renewal?: Promise<void>;

  /** Told when the session is over for good. */
  onSessionOver: () => void = () => {};

  /** Agrees on a version. Answers the backend's domain. */
  async negotiate(): Promise<string> {
    const { supported, domain } = await this.#plain('GET', '/api-version', { anonymous: true });
    const common = (supported as number[]).filter(v => v >= LOWEST_VERSION && v <= HIGHEST_VERSION);
    if (common.length === 0) throw new ApiError(0, 'unsupported-version', 'no common version');
    this.#prefix = `/v${Math.max(...common)}`;
    return domain;
  }

  // biome-ignore lint/suspicious/noExplicitAny: answers are read where they are asked for
  async call(method: string, path: string, call: Call = {}): Promise<any> {
    if (!call.anonymous && this.#token && Date.now() > this.#expiresAt - RENEW_BEFORE_MS) await this.renew();
    try {
      return await this.#plain(method, this.#prefix + path, call);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401 || call.anonymous) throw error;
      await this.renew();
      return this.#plain(method, this.#prefix + path, call);
    }
  }

  /** Makes the cookie of the browser into an access token. Binds the session to a client when one is named. */
  async renew(client = this.#client): Promise<void> {
    this.#renewal ??= this.#access(client).finally(() => {
      this.#renewal = undefined;
    });
    return this.#renewal;
  }

  async #access(client?: string): Promise<void> {
    try {
      const answer = await this.#plain('POST', '/access', { query: { client_id: client } });
      this.accept(answer);
      this.#client = client;
    } catch (error) {
      if (error instanceof ApiError && error.status === 403) this.onSessionOver();
      throw error;
    }
  }

  /** Takes the token of a login. */
  accept(answer: { access_token: string; expires_in: number }): void {
    this.#token = answer.access_token;
    this.#expiresAt = Date.now() + answer.expires_in * 1000;
  }

  async logout(): Promise<void> {
    await this.#plain('POST', '/access/logout', {}).catch(() => undefined);
    this.forget();
  }

  forget(): void {
    this.#token = undefined;
    this.#client = undefined;
  }

  /** Where the socket of notifications is, with a token that is fresh. */
  async socketAddress(client: string): Promise<string> {
    if (Date.now() > this.#expiresAt - RENEW_BEFORE_MS) await this.renew();
    const address = new URL('/await', location.href);
    address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
    address.searchParams.set('access_token', this.#token ?? '');
    address.searchParams.set('client', client);
    return address.href;
  }

  /** Posts a body and tells how much of it has left, from 0 to 1. */
  async upload(path: string, body: Blob, type: string, onProgress: (part: number) => void) {
    if (Date.now() > this.#expiresAt - RENEW_BEFORE_MS) await this.renew();
    // biome-ignore lint/suspicious/noExplicitAny: as in `call`
    return new Promise<any>((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open('POST', this.#prefix + path);
      request.responseType = 'text';
      request.setRequestHeader('Content-Type', type);
      request.setRequestHeader('Authorization', `Bearer ${this.#token}`);
      request.upload.onprogress = ({ loaded, total }) => onProgress(total > 0 ? loaded / total : 0);
      request.onerror = () => reject(new ApiError(0, 'offline', 'not sent'));
      request.onload = () => {
        const answer = parse(request.responseText);
        if (request.status >= 200 && request.status < 300) resolve(answer);
        else reject(refusal(request.status, answer));
      };
      request.send(body);
    });
  }

  /** Fetches bytes and tells how much has come. */
  async download(path: string, headers: Record<string, string>, size: number, onProgress: (part: number) => void) {
    const response = await this.#send('GET', this.#prefix + path, { headers });
    if (!response.ok) throw refusal(response.status, parse(await response.text()));
    const reader = response.body?.getReader();
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let loaded = 0;
    while (reader) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value as Uint8Array<ArrayBuffer>);
      loaded += value.length;
      onProgress(Math.min(1, loaded / Math.max(1, size)));
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  }

  // biome-ignore lint/suspicious/noExplicitAny: as in `call`
  async #plain(method: string, path: string, call: Call): Promise<any> {
    for (let attempt = 0; ; attempt += 1) {
      const response = await this.#send(method, path, call);
      if (response.status === 420 && attempt < RETRIES_WHEN_THROTTLED) {
        await sleep(300 * 2 ** attempt);
        continue;
      }
      const answer = parse(await response.text());
      if (response.ok || call.expect?.includes(response.status)) return answer;
      throw refusal(response.status, answer);
    }
  }

  async #send(method: string, path: string, call: Call): Promise<Response> {
    const address = new URL(path, location.href);
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined) address.searchParams.set(name, value);
    }
    const headers = new Headers(call.headers);
    if (this.#token && !call.anonymous) headers.set('Authorization', `Bearer ${this.#token}`);
    if (call.json !== undefined) headers.set('Content-Type', 'application/json');
    else if (call.type) headers.set('Content-Type', call.type);
    try {
      return await fetch(address, {
        method,
        headers,
        body: call.json === undefined ? call.body : JSON.stringify(call.json),
        signal: AbortSignal.timeout(call.timeoutMs ?? TIMEOUT_MS),
      });
    } catch {
      throw new ApiError(0, 'offline', 'no answer');
    }
  }
}

// biome-ignore lint/suspicious/noExplicitAny: as in `call`
function parse(text: string): any {
  try {
    return text ? JSON.parse(text) : undefined;
  } catch {
    return undefined;
  }
}

// biome-ignore lint/suspicious/noExplicitAny: as in `call`
const refusal = (status: number, body: any) =>
  new ApiError(status, body?.label ?? `status-${status}`, body?.message ?? '', body ?? {});

/** A file as `/assets` wants it: what it is, and its bytes. */
export function assetForm(bytes: BlobPart & { byteLength: number }, isPublic: boolean): { body: Blob; type: string } {
  const boundary = `aldis${crypto.randomUUID().replaceAll('-', '')}`;
  const about = JSON.stringify({ public: isPublic, retention: 'persistent' });
  const head =
    `--${boundary}\r\nContent-Type: application/json;charset=utf-8\r\nContent-length: ${about.length}\r\n\r\n` +
    `${about}\r\n--${boundary}\r\nContent-Type: application/octet-stream\r\n` +
    `Content-length: ${bytes.byteLength}\r\n\r\n`;
  return { body: new Blob([head, bytes, `\r\n--${boundary}--\r\n`]), type: `multipart/mixed; boundary=${boundary}` };
}
