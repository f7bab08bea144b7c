/** The page's frame: navigation between the views, the sign-in, colours. */

import { render } from "./vendor/preact.js";
import { ask, session } from "./api.js";
import { Dialog, ErrorNotice, html, Icon, useEffect, useState } from "./ui.js";
import { Search } from "./search.js";

/** Views by their address; what is not looked at is not loaded. */
const VIEWS = [
  { path: "/", name: "Search", load: async () => Search },
  { path: "/flow", name: "Flow", load: async () => (await import("./flow.js")).Flow },
  { path: "/admin", name: "Admin", load: async () => (await import("./admin.js")).Admin },
];

const THEMES = { "": "dark", dark: "light", light: "" };

function readTheme() {
  return document.documentElement.dataset.theme ?? "";
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  try {
    if (theme) localStorage.setItem("penstock.theme", theme);
    else localStorage.removeItem("penstock.theme");
  } catch { /* storage is off: until this tab is closed */ }
}

function ThemeButton() {
  const [theme, change] = useState(readTheme());
  const next = THEMES[theme];
  const says = { "": "as the system", dark: "dark", light: "light" };
  return html`<button type="button" class="plain square" title=${`Colours: ${says[theme]}`}
    aria-label=${`Colours are ${says[theme]}. Change to ${says[next]}`} onClick=${() => { setTheme(next); change(next); }}><${Icon} name="theme" /></button>`;
}

function SignIn({ reason, again }) {
  const [key, setKey] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  async function submit(event) {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await ask("/v1/collections", { key: key.trim() });
      session.signIn(key.trim());
      again();
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  }
  return html`<${Dialog} title="Sign in" closable=${false}>
    <form onSubmit=${submit}>
      <p>${reason}</p>
      <label>Key <input type="password" value=${key} onInput=${(event) => setKey(event.target.value)} autocomplete="off" spellcheck="false" required autofocus /></label>
      <p class="soft">It stays in this tab, until you sign out or close it. The server's owner makes keys with <code>penstock keys create</code>.</p>
      ${error && (error.kind === "key" ? html`<p class="bad" role="alert">${error.detail}</p>` : html`<${ErrorNotice} error=${error} />`)}
      <div class="dialog-foot"><button disabled=${busy || !key.trim()}>${busy ? "Checking …" : "Sign in"}</button></div>
    </form><//>`;
}

function App() {
  const [address, setAddress] = useState(location.pathname);
  const [View, setView] = useState(null);
  const [failed, setFailed] = useState(null);
  const [, redraw] = useState(0);
  // A view begins again when somebody has signed in.
  const [visit, setVisit] = useState(0);

  useEffect(() => session.subscribe(() => redraw((n) => n + 1)), []);
  useEffect(() => {
    const moved = () => setAddress(location.pathname);
    addEventListener("popstate", moved);
    return () => removeEventListener("popstate", moved);
  }, []);
  useEffect(() => {
    let current = true;
    const view = VIEWS.find((one) => one.path === address) ?? VIEWS[0];
    document.title = view.path === "/" ? "Penstock" : `${view.name} · Penstock`;
    setFailed(null);
    view.load().then((component) => current && setView(() => component), (error) => current && setFailed(error));
    return () => { current = false; };
  }, [address]);

  function visitView(event, path) {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    history.pushState(null, "", path);
    // The view that is shown may keep its state in the address too.
    dispatchEvent(new PopStateEvent("popstate"));
  }

  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header class="top">
      <a class="brand" href="/" onClick=${(event) => visitView(event, "/")}><img src="/assets/icon.svg" alt="" width="26" height="26" />Penstock</a>
      <nav aria-label="Views">${VIEWS.map((one) => html`<a key=${one.path} href=${one.path} aria-current=${one.path === address ? "page" : undefined} onClick=${(event) => visitView(event, one.path)}>${one.name}</a>`)}
        <a href="/docs">API</a></nav>
      <div class="top-end">
        ${session.key && html`<button type="button" class="plain" onClick=${() => session.signOut()}><${Icon} name="key" /> Sign out</button>`}
        <${ThemeButton} />
      </div>
    </header>
    <main id="main" tabindex="-1">${failed ? html`<${ErrorNotice} error=${{ kind: "offline", detail: "A part of this page could not be loaded." }} retry=${() => location.reload()} />`
      : View && html`<${View} key=${`${address}#${visit}`} />`}</main>
    ${session.wanted !== null && html`<${SignIn} reason=${session.wanted} again=${() => setVisit((n) => n + 1)} />`}`;
}

render(html`<${App} />`, document.getElementById("app"));
