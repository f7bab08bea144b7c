/** Pieces that every view uses: numbers and times in words, icons, notices, dialogs. */

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { serverNow } from "./api.js";

export { html, useEffect, useRef, useState };
export { useLayoutEffect, useMemo } from "./vendor/preact.js";

const numbers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const small = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });

/** A count: `12,345`. */
export const count = (n) => numbers.format(n);
/** A count where room is short: `12.3k`. */
export const short = (n) => (n < 1000 ? (n < 10 && n % 1 ? small.format(n) : numbers.format(n)) : n < 1e6 ? `${small.format(n / 1e3)}k` : `${small.format(n / 1e6)}M`);
/** Some of a thing: `1 hit`, `2 hits`. */
export const some = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
/** Bytes: `12 MB`. */
export function bytes(n) {
  const step = n < 1e3 ? 0 : n < 1e6 ? 1 : n < 1e9 ? 2 : 3;
  return `${small.format(n / 1000 ** step)} ${["B", "kB", "MB", "GB"][step]}`;
}
/** A duration: `340 ms`, `1.2 s`, `4 min`. */
export function duration(ms) {
  if (ms < 1000) return `${ms < 10 ? small.format(ms) : Math.round(ms)} ms`;
  if (ms < 60e3) return `${small.format(ms / 1e3)} s`;
  if (ms < 3600e3) return `${Math.round(ms / 60e3)} min`;
  return ms < 86400e3 ? `${Math.round(ms / 3600e3)} h` : some(Math.round(ms / 86400e3), "day");
}
/** How long ago a time in RFC 3339 is by the server's clock: `4 min ago`. */
export const ago = (time) => (time ? `${duration(Math.max(1000, serverNow() - Date.parse(time)))} ago` : "never");

/** Characters that draw nothing, or change what stands around them: controls, marks of direction, joiners without width. */
const HARMFUL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
/** A text from outside, with what would hide or turn it written as escapes: `a\\u202eb`. */
export const visible = (text) => text.replace(HARMFUL, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

const PATHS = {
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13m4.8 11.3L21 21",
  file: "M6 3h8l5 5v13H6zM13 3v6h6",
  open: "M14 4h6v6M20 4l-9 9M18 14v6H4V6h6",
  like: "M8 8h12v12H8zM4 16V4h12",
  why: "M4 20V10M10 20V4M16 20v-7M21 20H3",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  close: "M6 6l12 12M18 6 6 18",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  key: "M15 9a4 4 0 1 1-4-4 4 4 0 0 1 4 4m-7 3-5 5v4h4v-3h3v-3",
  gear: "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6m8 3-2-1 0-2-2-1-2 1-1-2h-2l-1 2-2-1-2 1 0 2-2 1 2 2 0 2 2 1 2-1 1 2h2l1-2 2 1 2-1 0-2z",
};
/** A line drawing beside a word; it says nothing by itself. */
export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;

/** Seconds until something, counted down; `onEnd` at 0. */
export function Countdown({ seconds, onEnd }) {
  const [left, setLeft] = useState(Math.ceil(seconds));
  const ended = useRef(onEnd);
  ended.current = onEnd;
  useEffect(() => {
    // The monotonic clock: it is not set, unlike the clock on the wall.
    const at = performance.now() + seconds * 1000;
    setLeft(Math.ceil(seconds));
    const timer = setInterval(() => {
      const rest = Math.ceil((at - performance.now()) / 1000);
      if (rest > 0) return setLeft(rest);
      clearInterval(timer);
      setLeft(0);
      ended.current();
    }, 200);
    return () => clearInterval(timer);
  }, [seconds]);
  return html`<span class="countdown" role="timer">${left} s</span>`;
}

/** A state of the page in words: `kind` is `info`, `wait`, `warn` or `bad`. */
export const Notice = ({ kind = "info", title, children }) =>
  html`<div class="notice ${kind}"><p class="notice-title">${title}</p>${children && html`<div>${children}</div>`}</div>`;

/** What an error means to the reader, with a second try where one helps. */
export function ErrorNotice({ error, retry }) {
  const again = retry && html`<button type="button" class="plain" onClick=${retry}>Try again now</button>`;
  const id = error.requestId && html`<p class="soft">Request <code>${error.requestId}</code></p>`;
  switch (error.kind) {
    case "refused": {
      const seconds = error.retryAfterS ?? 5;
      return html`<${Notice} kind="wait" title="The server has too much to do just now">
        <p>${error.detail}. ${retry && html`Trying again in <${Countdown} key=${error} seconds=${Math.max(1, seconds)} onEnd=${retry} />.`}</p>${again}<//>`;
    }
    case "offline":
      return html`<${Notice} kind="wait" title="No connection to the server">
        <p>${error.detail} ${retry && html`Trying again in <${Countdown} key=${error} seconds=${3} onEnd=${retry} />.`}</p>${again}<//>`;
    case "expired":
      return html`<${Notice} kind="warn" title="No answer in time"><p>${error.detail}.</p>${again}${id}<//>`;
    case "denied":
      return html`<${Notice} kind="warn" title="Your key may not do this"><p>${error.detail}.</p><//>`;
    case "key":
      return html`<${Notice} kind="info" title="A key is needed"><p>Sign in to go on.</p><//>`;
    case "missing":
      return html`<${Notice} kind="warn" title="It is not there any more"><p>${error.detail}.</p>${again}<//>`;
    case "invalid":
      return html`<${Notice} kind="warn" title="The server did not take this"><p>${error.detail}.</p><//>`;
    default:
      return html`<${Notice} kind="bad" title="Something broke"><p>${error.detail}.</p>${again}${id}<//>`;
  }
}

/** A modal dialog, open while it is rendered. Escape and the browser's own means close it. */
export function Dialog({ title, onClose, children, closable = true }) {
  const element = useRef(null);
  const left = useRef(false);
  useEffect(() => {
    const dialog = element.current;
    dialog.showModal();
    return () => {
      left.current = true;
      // The focus goes back to where it was.
      dialog.close();
    };
  }, []);
  // Escape must not reach what lies behind, not even while a browser closes the dialog against the page's will.
  const pressed = (event) => {
    if (event.key !== "Escape" || closable) return;
    event.preventDefault();
    event.stopPropagation();
  };
  const closed = () => {
    if (left.current) return;
    if (closable) onClose();
    else element.current.showModal();
  };
  return html`<dialog ref=${element} aria-labelledby="dialog-title" onClose=${closed} onKeyDown=${pressed} onCancel=${(event) => { event.preventDefault(); if (closable) onClose(); }}>
    <div class="dialog-head"><h2 id="dialog-title">${title}</h2>
      ${closable && html`<button type="button" class="plain square" aria-label="Close" onClick=${onClose}><${Icon} name="close" /></button>`}</div>
    ${children}</dialog>`;
}

/** A question before something is destroyed: its name has to be typed. `action` returns a promise. */
export function ConfirmDestroy({ title, name, children, verb = "Delete", action, onClose }) {
  const [typed, setTyped] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  async function submit(event) {
    event.preventDefault();
    if (typed !== name || busy) return;
    setBusy(true);
    try { await action(); onClose(true); } catch (failed) { setError(failed); setBusy(false); }
  }
  return html`<${Dialog} title=${title} onClose=${() => onClose(false)}>
    <form onSubmit=${submit}>
      ${children}
      <label>Type <code>${name}</code> to confirm
        <input value=${typed} onInput=${(event) => setTyped(event.target.value)} autocomplete="off" spellcheck="false" autofocus /></label>
      ${error && html`<${ErrorNotice} error=${error} />`}
      <div class="dialog-foot"><button type="button" class="plain" onClick=${() => onClose(false)}>Keep it</button>
        <button class="danger" disabled=${typed !== name || busy}>${busy ? "Working …" : verb}</button></div>
    </form><//>`;
}
