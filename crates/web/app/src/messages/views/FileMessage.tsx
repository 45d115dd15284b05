import { useCallback, useEffect, useState } from 'react';
import { explain } from '../../federation/explain';
import { fileSize, t } from '../../i18n/text';
import { Icon } from '../../ui/Icon';
import { commands, useApp } from '../../ui/store';
import type { FileContent } from '../content';
import type { Message } from '../state';

/** Pictures up to this size are shown without being asked for. */
const SHOWN_UP_TO = 5 * 1024 * 1024;
const SHOWABLE = ['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif'];

/** Addresses of decrypted pictures, for as long as the page lives. */
const shown = new Map<string, string>();
const KEPT_PICTURES = 60;

function keep(id: string, blob: Blob): string {
  const address = URL.createObjectURL(blob);
  shown.set(id, address);
  if (shown.size > KEPT_PICTURES) {
    for (const [oldest, old] of shown) {
      URL.revokeObjectURL(old);
      shown.delete(oldest);
      break;
    }
  }
  return address;
}

interface FileMessageProps {
  message: Message;
  content: FileContent;
  own: boolean;
}

export function FileMessage({ message, content, own }: FileMessageProps) {
  const progress = useApp(state => state.messages.progress[message.id]);
  const name = content.name ?? t('message.file');
  const isImage = SHOWABLE.includes(content.mime) && content.size <= SHOWN_UP_TO;
  return (
    <div className="file-message">
      {isImage && content.remote ? (
        <Picture message={message} content={content} name={name} />
      ) : (
        <FileCard message={message} content={content} name={name} own={own} />
      )}
      {progress === undefined ? null : (
        <div className="progress" data-testid="file-progress">
          <progress value={progress} max={1} aria-label={name} />
          <span>
            {t(content.remote ? 'message.downloading' : 'message.uploading', { percent: Math.round(progress * 100) })}
          </span>
        </div>
      )}
    </div>
  );
}

function Picture({ message, content, name }: { message: Message; content: FileContent; name: string }) {
  const [address, setAddress] = useState(shown.get(message.id));
  const [error, setError] = useState<string>();
  const { conversation, id } = message;
  const load = useCallback(() => {
    setError(undefined);
    commands.download(conversation, id).then(
      blob => setAddress(keep(id, blob)),
      failure => setError(explain(failure)),
    );
  }, [conversation, id]);
  useEffect(() => {
    if (!shown.has(id)) load();
  }, [id, load]);
  if (error) {
    return (
      <div className="picture-error">
        <p>{t('message.file.error', { reason: error })}</p>
        <button type="button" className="button small" onClick={load} data-testid="file-retry">
          {t('message.file.retry')}
        </button>
      </div>
    );
  }
  const { width = 320, height = 240 } = content.image ?? {};
  if (!address) {
    return (
      <svg
        className="picture placeholder"
        viewBox={`0 0 ${width} ${height}`}
        width={width}
        height={height}
        aria-hidden="true"
      />
    );
  }
  return (
    <a href={address} target="_blank" rel="noreferrer" aria-label={t('message.file.open', { name })}>
      <img
        className="picture"
        src={address}
        width={width}
        height={height}
        alt={t('message.image', { name })}
        data-testid="message-image"
      />
    </a>
  );
}

function FileCard({ message, content, name, own }: FileMessageProps & { name: string }) {
  const [error, setError] = useState<string>();
  const save = async () => {
    setError(undefined);
    try {
      const blob = await commands.download(message.conversation, message.id);
      const address = URL.createObjectURL(blob);
      const link = document.createElement('a');
      link.href = address;
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (failure) {
      setError(explain(failure));
    }
  };
  const waiting = content.failed ? t('message.file.failed') : own ? '' : t('message.file.waiting');
  return (
    <div className="file-card">
      <span className="file-icon">
        <Icon name="file" />
      </span>
      <span className="grow clip">
        <span className="name clip">{name}</span>
        <span className="hint">{content.remote ? fileSize(content.size) : waiting || fileSize(content.size)}</span>
        {error ? <span className="warn-text">{t('message.file.error', { reason: error })}</span> : null}
      </span>
      {content.remote ? (
        <button
          type="button"
          className="button small"
          onClick={() => void save()}
          aria-label={t('message.file.download', { name })}
          data-testid="file-download"
        >
          ↓
        </button>
      ) : null}
    </div>
  );
}
