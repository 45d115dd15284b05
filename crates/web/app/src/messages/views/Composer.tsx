import {
  type ClipboardEvent,
  type DragEvent,
  type KeyboardEvent,
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
} from 'react';
import type { Focus } from '../../conversations/views/ConversationView';
import { t } from '../../i18n/text';
import type { Key } from '../../model';
import { domainOf } from '../../model';
import { Icon } from '../../ui/Icon';
import { Avatar, DomainBadge, IconButton, useHelp } from '../../ui/parts';
import { commands, engine, nameOf, useApp } from '../../ui/store';
import { mentionBefore, mentionsIn } from '../mentions';
import { previewOf } from '../preview';

interface ComposerProps {
  conversation: Key;
  title: string;
  focus: Focus;
  onFocus: (focus: Focus) => void;
}

const EMOJIS = [...'😀😄😂🙂😉😍🤔😎😴😢😮😡👍👎👏🙏💪👋🎉🔥❤️✅❌🚀💡☕'].filter(part => part !== '\ufe0f');
const OPTIONS = 6;
/** What is typed in a conversation stays there until it is sent. */
const drafts = new Map<Key, string>();

export function Composer({ conversation, title, focus, onFocus }: ComposerProps) {
  const [text, setText] = useState(drafts.get(conversation) ?? '');
  const [cursor, setCursor] = useState(0);
  const [chosen, setChosen] = useState<{ name: string; user: Key }[]>([]);
  const [emojis, setEmojis] = useState(false);
  const [option, setOption] = useState(0);
  const area = useRef<HTMLTextAreaElement>(null);
  const files = useRef<HTMLInputElement>(null);
  const { failed } = useHelp();
  const { edit, reply } = focus;
  const options = useMentionOptions(conversation, text, cursor);

  useEffect(() => {
    if (edit?.content.kind === 'text') {
      setText(edit.content.text);
      const state = engine.state();
      setChosen(edit.content.mentions.map(({ user }) => ({ name: nameOf(state, user), user })));
    }
    area.current?.focus();
  }, [edit]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: to answer is to write
  useEffect(() => area.current?.focus(), [reply, conversation]);
  useEffect(() => {
    if (!edit) drafts.set(conversation, text);
  }, [conversation, edit, text]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the text makes it grow
  useLayoutEffect(() => {
    const box = area.current;
    if (!box) return;
    box.rows = 1;
    const line = Number.parseFloat(getComputedStyle(box).lineHeight) || 22;
    box.rows = Math.max(1, Math.min(8, Math.floor((box.scrollHeight - 16) / line)));
  }, [text]);

  const clear = () => {
    setText('');
    setChosen([]);
    onFocus({});
  };
  const send = () => {
    const written = text.trim();
    if (!written) return;
    const mentions = mentionsIn(written, chosen);
    clear();
    void commands.typing(conversation, false).catch(() => undefined);
    const work = edit
      ? commands.edit(conversation, edit.id, written, mentions)
      : commands.sendText(conversation, { text: written, mentions, quote: reply?.id });
    void work.catch(failed);
  };
  const change = (value: string) => {
    setText(value);
    setOption(0);
    setCursor(area.current?.selectionStart ?? value.length);
    if (!edit) void commands.typing(conversation, value.length > 0).catch(() => undefined);
  };
  const insert = (added: string, from = cursor) => {
    const next = text.slice(0, from) + added + text.slice(cursor);
    setText(next);
    const place = from + added.length;
    setCursor(place);
    requestAnimationFrame(() => {
      area.current?.focus();
      area.current?.setSelectionRange(place, place);
    });
  };
  const mention = (user: Key) => {
    const name = nameOf(engine.state(), user);
    const at = mentionBefore(text, cursor);
    if (!at) return;
    setChosen([...chosen, { name, user }]);
    insert(`@${name} `, at.start);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.nativeEvent.isComposing) return;
    const picked = options[option];
    if (picked && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) {
      event.preventDefault();
      setOption((option + (event.key === 'ArrowDown' ? 1 : options.length - 1)) % options.length);
    } else if (picked && (event.key === 'Enter' || event.key === 'Tab')) {
      event.preventDefault();
      mention(picked);
    } else if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      send();
    } else if (event.key === 'Escape' && (edit || reply)) {
      clear();
    } else if (event.key === 'ArrowUp' && text === '') {
      editLast(conversation, onFocus);
    }
  };
  const sendFiles = (list: Iterable<File>) => {
    for (const file of list) {
      void sizeOf(file).then(size => commands.sendFile(conversation, file, size).catch(failed));
    }
  };
  const onPaste = (event: ClipboardEvent) => {
    if (event.clipboardData.files.length === 0) return;
    event.preventDefault();
    sendFiles(event.clipboardData.files);
  };
  const onDrop = (event: DragEvent) => {
    event.preventDefault();
    sendFiles(event.dataTransfer.files);
  };
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: files can be dropped here, and chosen by a button as well
    <div className="composer" data-testid="composer" onDrop={onDrop} onDragOver={event => event.preventDefault()}>
      <Context focus={focus} onCancel={clear} />
      {options.length > 0 ? (
        <div className="mention-options" role="listbox" aria-label={t('compose.mention', { name: '' })}>
          {options.map((user, at) => (
            <MentionOption key={user} user={user} current={at === option} onPick={() => mention(user)} />
          ))}
        </div>
      ) : null}
      {emojis ? (
        <div className="emojis">
          {EMOJIS.map(emoji => (
            <button
              key={emoji}
              type="button"
              onClick={() => {
                insert(emoji);
                setEmojis(false);
              }}
            >
              {emoji}
            </button>
          ))}
        </div>
      ) : null}
      <div className="composer-row">
        <input
          ref={files}
          type="file"
          multiple
          className="sr-only"
          tabIndex={-1}
          aria-label={t('compose.attach')}
          onChange={event => {
            sendFiles([...(event.target.files ?? [])]);
            event.target.value = '';
          }}
          data-testid="composer-file"
        />
        <IconButton
          icon="attach"
          label={t('compose.attach')}
          onClick={() => files.current?.click()}
          testid="composer-attach"
        />
        <IconButton
          icon="smile"
          label={t('compose.emoji')}
          onClick={() => setEmojis(!emojis)}
          pressed={emojis}
          testid="composer-emoji"
        />
        <textarea
          ref={area}
          value={text}
          rows={1}
          onChange={event => change(event.target.value)}
          onKeyDown={onKeyDown}
          onSelect={event => setCursor(event.currentTarget.selectionStart)}
          onPaste={onPaste}
          placeholder={t('compose.placeholder')}
          aria-label={t('compose.label', { name: title })}
          data-testid="composer-text"
        />
        <IconButton
          icon="ping"
          label={t('compose.ping')}
          onClick={() => void commands.sendPing(conversation).catch(failed)}
          testid="composer-ping"
        />
        <button
          type="button"
          className="send"
          onClick={send}
          disabled={!text.trim()}
          aria-label={edit ? t('compose.save') : t('compose.send')}
          data-testid="composer-send"
        >
          <Icon name={edit ? 'check' : 'send'} />
        </button>
      </div>
    </div>
  );
}

function Context({ focus, onCancel }: { focus: Focus; onCancel: () => void }) {
  const about = focus.edit ?? focus.reply;
  const text = useApp(state => (about ? previewOf(state, about) : ''));
  const name = useApp(state => (about ? nameOf(state, about.from) : ''));
  if (!about) return null;
  return (
    <div className="composer-context" data-testid="composer-context">
      <Icon name="reply" />
      <span className="grow clip">
        <strong>{focus.edit ? t('compose.editing') : t('compose.replying', { name })}</strong>
        <span className="hint clip">{text}</span>
      </span>
      <IconButton icon="close" label={t('compose.cancel')} onClick={onCancel} testid="composer-cancel" />
    </div>
  );
}

function MentionOption({ user, current, onPick }: { user: Key; current: boolean; onPick: () => void }) {
  const name = useApp(state => nameOf(state, user));
  return (
    <button
      type="button"
      role="option"
      aria-selected={current}
      className="mention-option"
      onClick={onPick}
      data-testid="mention-option"
      data-key={user}
    >
      <Avatar of={user} label={name} small />
      <span className="name">{name}</span>
      <DomainBadge domain={domainOf(user)} />
    </button>
  );
}

const NOBODY: Key[] = [];

function useMentionOptions(conversation: Key, text: string, cursor: number): Key[] {
  const members = useApp(state => state.conversations.conversations[conversation]?.members);
  const people = useApp(state => state.people.people);
  const at = mentionBefore(text, cursor);
  if (!at || !members) return NOBODY;
  return Object.keys(members)
    .filter(user => {
      const person = people[user];
      const names = [person?.name.toLowerCase() ?? '', person?.handle ?? ''];
      return names.some(name => name.startsWith(at.query));
    })
    .slice(0, OPTIONS);
}

function editLast(conversation: Key, onFocus: (focus: Focus) => void): void {
  const { messages, session } = engine.state();
  const own = (messages.messages[conversation] ?? []).findLast(
    message =>
      message.from === session.self?.key && message.content.kind === 'text' && message.delivery?.state === 'sent',
  );
  if (own) onFocus({ edit: own });
}

/** How large a picture is, so that others can keep its place free. */
async function sizeOf(file: File): Promise<{ width: number; height: number } | undefined> {
  if (!file.type.startsWith('image/')) return undefined;
  try {
    const bitmap = await createImageBitmap(file);
    const { width, height } = bitmap;
    bitmap.close();
    return { width, height };
  } catch {
    return undefined;
  }
}
