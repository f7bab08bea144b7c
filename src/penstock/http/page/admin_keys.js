/** Keys: who may do what. A secret is shown once, when it is made. */

import { Rows, Section, usePolled } from "./admin_parts.js";
import { ask, serverNow, session } from "./api.js";
import { ago, ConfirmDestroy, Dialog, ErrorNotice, html, Icon, Notice, useState, visible } from "./ui.js";

const SCOPES = { search: "search and read", write: "also index and delete documents", admin: "everything, keys too" };
const ENDS = { "": "never", 30: "in 30 days", 90: "in 90 days", 365: "in a year" };

/** The way from a key's id to its endpoint. */
const path = (id) => `/v1/keys/${encodeURIComponent(id)}`;

function NewKey({ first, made, close }) {
  const [said, setSaid] = useState({ name: "", scope: first ? "admin" : "search", collections: "", days: first ? "" : "90", rate: "", closes: false });
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (name) => (event) => setSaid({ ...said, [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  async function submit(event) {
    event.preventDefault();
    setBusy(true);
    const collections = said.collections.split(/[\s,]+/).filter(Boolean);
    const expires_at = said.days ? new Date(serverNow() + Number(said.days) * 86400e3).toISOString() : null;
    try {
      made(await ask("/v1/keys", { method: "POST", body: { name: said.name, scope: said.scope, collections, expires_at, rate: said.rate ? Number(said.rate) : null, close_server: said.closes } }));
    } catch (failed) { setError(failed); setBusy(false); }
  }
  return html`<${Dialog} title=${first ? "Make the first key" : "Make a key"} onClose=${close}><form onSubmit=${submit}>
    ${first && html`<${Notice} kind="warn" title="The first key closes the server"><p>From then on it serves only requests with a key, also those of programs that use it now. You will be signed in with this key.</p><//>`}
    <label>Name <input value=${said.name} onInput=${set("name")} placeholder="search-bot" spellcheck="false" autocomplete="off" required autofocus /></label>
    ${!first && html`<label>It may <select value=${said.scope} onChange=${set("scope")}>${Object.entries(SCOPES).map(([scope, says]) => html`<option key=${scope} value=${scope}>${scope}: ${says}</option>`)}</select></label>
      <label>Collections, as patterns; empty for all <input value=${said.collections} onInput=${set("collections")} placeholder="team-*, docs" spellcheck="false" autocomplete="off" /></label>
      <label>It ends <select value=${said.days} onChange=${set("days")}>${Object.entries(ENDS).map(([days, says]) => html`<option key=${days} value=${days}>${says}</option>`)}</select></label>
      <label>Requests a second; empty for the server's limit <input type="number" min="1" value=${said.rate} onInput=${set("rate")} /></label>`}
    ${first && html`<label class="check"><input type="checkbox" checked=${said.closes} onChange=${set("closes")} />Close the server to requests without a key</label>`}
    ${error && html`<${ErrorNotice} error=${error} />`}
    <div class="dialog-foot"><button type="button" class="plain" onClick=${close}>Cancel</button><button disabled=${busy || !said.name || (first && !said.closes)}>${busy ? "Making it …" : "Make the key"}</button></div>
  </form><//>`;
}

/** A new secret: it cannot be shown again. */
function Secret({ made, close }) {
  const [copied, setCopied] = useState(false);
  async function copy() {
    try { await navigator.clipboard.writeText(made.secret); setCopied(true); } catch { setCopied(false); }
  }
  return html`<${Dialog} title=${`The key ${visible(made.key.name)}`} closable=${false}>
    <${Notice} kind="warn" title="Keep it now: it is shown this once"><p>The server keeps only its digest.</p><//>
    <p class="secret"><code tabindex="0">${made.secret}</code></p>
    <div class="dialog-foot"><button type="button" class="outline" onClick=${copy}><${Icon} name="copy" /> ${copied ? "Copied" : "Copy"}</button><button type="button" onClick=${close}>I have kept it</button></div>
    <span class="hidden" role="status">${copied ? "Copied" : ""}</span><//>`;
}

export function Keys() {
  const polled = usePolled("/v1/keys");
  const [dialog, setDialog] = useState(null);
  const close = () => { setDialog(null); polled.reload(); };
  const open = polled.data?.open;
  const made = (key) => setDialog({ made: key, first: open });
  return html`<${Section} title="Keys" says="Who may do what. A key is for a program or a person, and can end at any time." polled=${polled}
      action=${polled.data && html`<button type="button" onClick=${() => setDialog({ making: true })}>${open ? "Make the first key" : "Make a key"}</button>`}>${({ keys, own }) => html`
    ${open && html`<${Notice} kind="info" title="This server is open"><p>It has no keys: whoever reaches it may do everything.</p><//>`}
    ${keys.length > 0 && html`<${Rows} label="Keys" head=${["Name", "It may", "Collections", "Ends", "Made", "Used", ""]}>
      ${keys.map((one) => html`<tr key=${one.id}><th scope="row">${visible(one.name)}${one.id === own && html` <span class="badge good">yours</span>`}<p class="soft mono">${one.id}</p></th>
        <td data-label="It may">${one.scope}${one.rate ? html` <span class="soft num">${one.rate}/s</span>` : ""}</td><td data-label="Collections">${one.collections.length ? one.collections.map(visible).join(", ") : "all"}</td>
        <td data-label="Ends">${one.expires_at ? html`<time datetime=${one.expires_at}>${one.expires_at.slice(0, 10)}</time>` : "never"}${one.expired && html` <span class="badge bad">ended</span>`}</td>
        <td class="soft" data-label="Made">${one.created_at ? ago(one.created_at) : ""}</td><td class="soft" data-label="Used">${one.used_at ? ago(one.used_at) : "not since the start"}</td>
        <td class="right">${one.place === "store" ? html`<button type="button" class="outline" aria-label=${`Rotate ${visible(one.name)}`} onClick=${() => setDialog({ rotating: one })}>Rotate</button>
          <button type="button" class="outline" aria-label=${`Revoke ${visible(one.name)}`} onClick=${() => setDialog({ revoking: one })}>Revoke</button>` : html`<span class="soft">kept in the ${one.place}</span>`}</td></tr>`)}<//>`}
    ${dialog?.making && html`<${NewKey} first=${open} made=${made} close=${close} />`}
    ${dialog?.made && html`<${Secret} made=${dialog.made} close=${() => { if (dialog.first) session.signIn(dialog.made.secret); close(); }} />`}
    ${dialog?.rotating && html`<${ConfirmDestroy} title="Rotate a key" verb="Rotate" name=${dialog.rotating.name} action=${async () => made(await ask(`${path(dialog.rotating.id)}/rotate`, { method: "POST", body: {} }))} onClose=${(done) => done || close()}>
      <p>There will be a new key of the same name. The former one goes on for a day.</p><//>`}
    ${dialog?.revoking && html`<${ConfirmDestroy} title="Revoke a key" verb="Revoke" name=${dialog.revoking.name} action=${() => ask(path(dialog.revoking.id), { method: "DELETE" })} onClose=${close}>
      <p>It ends at once, wherever it is used.${dialog.revoking.id === own ? " It is the key you are signed in with." : ""}</p><//>`}`}<//>`;
}
