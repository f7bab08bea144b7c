/** Administration: collections, sources, tasks, keys, alerts, snapshots. What destroys asks for the name. */

import { Keys } from "./admin_keys.js";
import { Act, Rows, Section, usePolled } from "./admin_parts.js";
import { ask } from "./api.js";
import { ago, bytes, ConfirmDestroy, count, Dialog, ErrorNotice, html, Notice, some, useEffect, useState, visible } from "./ui.js";

/** A name as a part of a path. */
const name_ = (name) => encodeURIComponent(name);

function Collections() {
  const polled = usePolled("/v1/collections");
  const [gone, setGone] = useState(null);
  return html`<${Section} title="Collections" says="What is searched, each by itself or several at once." polled=${polled}
      action=${html`<${NewCollection} done=${polled.reload} />`}>${({ collections }) => html`
    ${collections.length === 0 ? html`<p class="empty">There is none yet. <code>penstock index PATH</code> makes one.</p>` : html`<${Rows} label="Collections" head=${["Name", "Documents", "Chunks", "On disk", "State", "Made", ""]}>
      ${collections.map((one) => html`<tr key=${one.name}>
        <th scope="row">${visible(one.name)}</th><td class="num" data-label="Documents">${count(one.documents)}</td><td class="num" data-label="Chunks">${count(one.chunks)}</td>
        <td class="num" data-label="On disk">${bytes(one.disk_bytes)}</td>
        <td data-label="State"><${CollectionState} one=${one} /></td><td class="soft" data-label="Made">${ago(one.created_at)}</td>
        <td class="right">${(one.text < 2 || one.renewing) && html`<${Act} path=${`/v1/collections/${name_(one.name)}/renew?wait=false`}>Renew</${Act}> `}
          <button type="button" class="outline" aria-label=${`Delete ${visible(one.name)}`} onClick=${() => setGone(one)}>Delete</button></td></tr>`)}<//>`}
    ${gone && html`<${ConfirmDestroy} title="Delete a collection" name=${gone.name} action=${() => ask(`/v1/collections/${name_(gone.name)}`, { method: "DELETE" })} onClose=${() => { setGone(null); polled.reload(); }}>
      <p>Its ${some(gone.documents, "document")} and their vectors are deleted. Files stay where they are, and can be indexed again.</p><//>`}`}<//>`;
}

function CollectionState({ one }) {
  if (one.state === "damaged") return html`<span class="badge bad">damaged</span><p class="soft">${one.reason}</p>`;
  const share = one.chunks ? 1 - one.pending / one.chunks : 1;
  if (one.pending) return html`<span class="badge warn">making vectors</span><div class="bar" role="progressbar" aria-label="Chunks with vectors" aria-valuenow=${Math.round(100 * share)} aria-valuemin="0" aria-valuemax="100"><span style=${{ width: `${100 * share}%` }}></span></div><p class="soft num">${count(one.pending)} of ${count(one.chunks)} to go</p>`;
  if (one.upkeep) return html`<span class="badge">${one.upkeep}</span>`;
  return html`<span class="badge good">${one.state === "closed" ? "ready, opened when used" : "ready"}</span>${one.text < 2 && html`<p class="soft">of an earlier version; renew it to find words of every script</p>`}`;
}

function NewCollection({ done }) {
  const [name, setName] = useState("");
  const [error, setError] = useState(null);
  async function submit(event) {
    event.preventDefault();
    try {
      await ask(`/v1/collections/${name_(name)}`, { method: "PUT", body: {} });
      setName("");
      setError(null);
      done();
    } catch (failed) { setError(failed); }
  }
  return html`<form class="inline" onSubmit=${submit}><label>New collection <input value=${name} onInput=${(event) => setName(event.target.value)} spellcheck="false" autocomplete="off" maxlength="64" required /></label>
    <button disabled=${!name}>Create</button>${error && html`<p class="bad" role="alert">${error.detail}</p>`}</form>`;
}

const WATCHES = { starting: "warn", indexing: "warn", watching: "good", waiting: "warn", failed: "bad" };

function Sources() {
  const polled = usePolled("/v1/sources");
  const [gone, setGone] = useState(null);
  return html`<${Section} title="Sources" says="Trees of files, and how they were last read." polled=${polled}>${({ sources }) => html`
    ${sources.length === 0 ? html`<p class="empty">There is none. <code>penstock index PATH</code> registers one; with <code>INDEX_ROOTS</code> the server reads and watches trees itself.</p>` : html`<${Rows} label="Sources" head=${["Name", "Collection", "Documents", "Last run", "From", ""]}>
      ${sources.map((one) => html`<tr key=${`${one.collection} ${one.name}`}>
        <th scope="row">${visible(one.name)}${one.watch && html` <span class=${`badge ${WATCHES[one.watch.state]}`}>${one.watch.state}</span>${one.watch.detail && html`<p class="soft">${visible(one.watch.detail)}</p>`}`}</th>
        <td data-label="Collection">${visible(one.collection)}</td><td class="num" data-label="Documents">${count(one.documents)}</td>
        <td data-label="Last run">${one.completed_at ? ago(one.completed_at) : "not completed yet"}${one.commit && html` <code title=${one.commit}>${one.commit.slice(0, 10)}</code>`}
          <p class="soft num">${count(one.run.indexed)} indexed, ${count(one.run.unchanged)} unchanged, ${count(one.run.removed)} removed</p>
          ${one.run.kept > 0 && html`<p class="warn">${some(one.run.kept, "document")} kept although too many files are gone</p>`}
          ${one.run.failed > 0 && html`<details><summary class="bad">${some(one.run.failed, "file")} failed</summary><ul>${one.run.failures.map((file) => html`<li key=${file.path}><code>${visible(file.path)}</code> ${file.code}</li>`)}</ul></details>`}</td>
        <td data-label="From">${one.roots.map((root) => html`<p key=${root.host} class="mono">${visible(root.host)}:${visible(root.path)}</p>`)}</td>
        <td class="right"><button type="button" class="outline" aria-label=${`Delete ${visible(one.name)}`} onClick=${() => setGone(one)}>Delete</button></td></tr>`)}<//>`}
    ${gone && html`<${ConfirmDestroy} title="Delete a source" name=${gone.name} action=${() => ask(`/v1/sources/${name_(gone.name)}?collection=${name_(gone.collection)}`, { method: "DELETE" })} onClose=${() => { setGone(null); polled.reload(); }}>
      <p>Its ${some(gone.documents, "document")} leave the collection ${visible(gone.collection)}. The files stay where they are.</p><//>`}`}<//>`;
}

const TASKS = { waiting: "", running: "warn", succeeded: "good", failed: "bad", cancelled: "" };

function Tasks() {
  const polled = usePolled("/v1/tasks");
  const [shown, setShown] = useState(null);
  return html`<${Section} title="Tasks" says="Operations that go on without a waiting request, the newest first." polled=${polled}>${({ tasks, next }) => html`
    ${tasks.length === 0 ? html`<p class="empty">There is none. Requests with <code>wait=false</code> become tasks.</p>` : html`<${Rows} label="Tasks" head=${["Task", "State", "Asked", "By", ""]}>
      ${tasks.map((one) => html`<tr key=${one.id}>
        <th scope="row">${one.kind.replaceAll("_", " ")}${one.collection && html` <span class="soft">in ${visible(one.collection)}</span>`}</th>
        <td data-label="State"><span class=${`badge ${TASKS[one.status]}`}>${one.status}</span>${one.attempts > 1 && html` <span class="soft">begun ${one.attempts} times</span>`}
          ${one.status === "running" && one.total > 0 && html`<div class="bar" role="progressbar" aria-label="Documents done" aria-valuenow=${one.done} aria-valuemin="0" aria-valuemax=${one.total}><span style=${{ width: `${(100 * one.done) / one.total}%` }}></span></div><p class="soft num">${count(one.done)} of ${count(one.total)}</p>`}
          ${one.error && html`<p class="bad">${visible(one.error.detail)}</p>`}</td>
        <td class="soft" data-label="Asked">${ago(one.accepted_at)}</td><td class="soft" data-label="By">${visible(one.client)}</td>
        <td class="right">${one.ended_at ? html`<button type="button" class="outline" onClick=${async () => setShown(await ask(`/v1/tasks/${one.id}`).catch((error) => ({ failed: error })))}>Result</button>` : html`<${Act} path=${`/v1/tasks/${one.id}/cancel`} done=${polled.reload}>Cancel</${Act}>`}</td></tr>`)}<//>
      ${next && html`<p class="soft">Older ones: <code>penstock tasks</code></p>`}`}
    ${shown && html`<${Dialog} title="Result" onClose=${() => setShown(null)}>${shown.failed ? html`<${ErrorNotice} error=${shown.failed} />` : html`<pre class="result" tabindex="0">${visible(JSON.stringify(shown.result ?? shown.error, null, 2))}</pre>`}<//>`}`}<//>`;
}

function Alerts() {
  const polled = usePolled("/v1/alerts");
  const list = (alerts) => html`<ul class="alert-list">${alerts.map((one) => html`<li key=${`${one.name} ${one.subject} ${one.since}`} class="card">
    <p><span class=${`badge ${one.active ? (one.severity === "critical" ? "bad" : "warn") : ""}`}>${one.active ? one.severity : "resolved"}</span> <b>${one.name.replaceAll("_", " ")}</b> <span class="soft">${visible(one.subject)}</span></p>
    <p>${visible(one.detail)}</p><p class="soft">since ${ago(one.since)}${one.until && `, until ${ago(one.until)}`}</p></li>`)}</ul>`;
  return html`<${Section} title="Alerts" says="What the server itself finds wrong." polled=${polled}>${({ alerts }) => {
    const active = alerts.filter((one) => one.active), resolved = alerts.filter((one) => !one.active);
    return html`${active.length ? list(active) : html`<p class="good"><b>✓ Nothing is wrong.</b></p>`}${resolved.length > 0 && html`<h2 class="later">Resolved</h2>${list(resolved)}`}`;
  }}<//>`;
}

function Snapshots() {
  const polled = usePolled("/v1/snapshots");
  const [asked, setAsked] = useState(null);
  const [begun, setBegun] = useState("");
  return html`<${Section} title="Snapshots" says="Copies of every collection, in the data directory." polled=${polled}
      action=${html`<div><${Act} class="" path="/v1/snapshots?wait=false" done=${() => setBegun("The snapshot is being made.")}>Make a snapshot</${Act}></div>`}>${({ snapshots }) => html`
    ${begun && html`<${Notice} title=${begun}><p>See <a href="#tasks">Tasks</a>.</p><//>`}
    ${snapshots.length === 0 ? html`<p class="empty">There is none yet.</p>` : html`<${Rows} label="Snapshots" head=${["Name", "Size", "Made", "Collections", ""]}>
      ${snapshots.map((one) => html`<tr key=${one.name}><th scope="row" class="mono">${visible(one.name)}</th><td class="num" data-label="Size">${bytes(one.bytes)}</td><td class="soft" data-label="Made">${ago(one.made_at)}</td>
        <td data-label="Collections">${one.collections.map(visible).join(", ")}${one.reason && html`<p class="bad">${visible(one.reason)}</p>`}</td>
        <td class="right"><button type="button" class="outline" disabled=${Boolean(one.reason)} aria-label=${`Restore ${visible(one.name)}`} onClick=${() => setAsked({ one, restore: true })}>Restore</button>
          <button type="button" class="outline" aria-label=${`Delete ${visible(one.name)}`} onClick=${() => setAsked({ one, restore: false })}>Delete</button></td></tr>`)}<//>`}
    ${asked && (asked.restore ? html`<${ConfirmDestroy} title="Restore a snapshot" verb="Restore" name=${asked.one.name} onClose=${(done) => { setAsked(null); if (done) setBegun("The snapshot is being restored."); }}
        action=${() => ask(`/v1/snapshots/${name_(asked.one.name)}/restore?wait=false`, { method: "POST", body: { force: true } })}><p>It takes the place of the collections ${asked.one.collections.map(visible).join(", ")} as they are now.</p><//>`
      : html`<${ConfirmDestroy} title="Delete a snapshot" name=${asked.one.name} onClose=${() => { setAsked(null); polled.reload(); }} action=${() => ask(`/v1/snapshots/${name_(asked.one.name)}`, { method: "DELETE" })}><p>The collections stay. The copy is gone.</p><//>`)}`}<//>`;
}

const SECTIONS = { collections: ["Collections", Collections], sources: ["Sources", Sources], tasks: ["Tasks", Tasks], keys: ["Keys", Keys], alerts: ["Alerts", Alerts], snapshots: ["Snapshots", Snapshots] };

export function Admin() {
  const read = () => (location.hash.slice(1) in SECTIONS ? location.hash.slice(1) : "collections");
  const [chosen, setChosen] = useState(read);
  useEffect(() => {
    const moved = () => setChosen(read());
    addEventListener("hashchange", moved);
    addEventListener("popstate", moved);
    return () => { removeEventListener("hashchange", moved); removeEventListener("popstate", moved); };
  }, []);
  const [, Shown] = SECTIONS[chosen];
  return html`<div class="admin"><nav aria-label="Administration">${Object.entries(SECTIONS).map(([key, [name]]) => html`<a key=${key} href=${`#${key}`} aria-current=${key === chosen ? "page" : undefined}>${name}</a>`)}</nav>
    <div class="admin-main"><${Shown} key=${chosen} /></div></div>`;
}
