/** What the sections of the administration share: reading again and again, headings, tables, buttons that ask. */

import { ask, pause } from "./api.js";
import { ErrorNotice, html, useEffect, useState } from "./ui.js";

/** What changes by itself is read again so often, while somebody looks. */
const PERIOD_MS = 2000;

/**
 * What a path of the API says, read again and again.
 *
 * @returns `{ data, error, reload }`; the last data stays while there is an error.
 */
export function usePolled(path) {
  const [state, setState] = useState({ data: null, error: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController(), { signal } = abort;
    (async () => {
      for (;;) {
        if (!document.hidden) setState({ data: await ask(path, { signal }), error: null });
        await pause(PERIOD_MS, signal);
      }
    })().catch((error) => error.name !== "AbortError" && setState((before) => ({ ...before, error })));
    return () => abort.abort();
  }, [path, turn]);
  return { ...state, reload: () => setTurn((n) => n + 1) };
}

/** A section: its heading, what went wrong, and its content once there is some. */
export function Section({ title, says, action, polled, children }) {
  return html`<section aria-labelledby="section-title">
    <div class="section-head"><div><h1 id="section-title">${title}</h1><p class="soft">${says}</p></div>${action}</div>
    ${polled.error && html`<${ErrorNotice} error=${polled.error} retry=${polled.reload} />`}
    ${polled.data === null ? !polled.error && html`<p class="empty" role="status">Asking the server …</p>` : children(polled.data)}
  </section>`;
}

/** A table whose rows become cards where there is little room; `head` are its columns. */
export const Rows = ({ label, head, children }) => html`<div class="card rows"><table><caption class="hidden">${label}</caption>
  <thead><tr>${head.map((name) => html`<th key=${name} scope="col">${name || html`<span class="hidden">Actions</span>`}</th>`)}</tr></thead><tbody>${children}</tbody></table></div>`;

/** A button that asks the server; while it does it is off, and what goes wrong stands below it. */
export function Act({ path, method = "POST", body, done, children, ...rest }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  async function act() {
    setBusy(true);
    setError(null);
    try { done?.(await ask(path, { method, body })); } catch (failed) { setError(failed); }
    setBusy(false);
  }
  return html`<button type="button" class="outline" disabled=${busy} onClick=${act} ...${rest}>${children}</button>
    ${error && html`<p class="bad" role="alert">${error.detail}</p>`}`;
}
