/** Search: a box, filters, hits as one types, and the one that is chosen beside them. */

import { ask, pause, session } from "./api.js";
import { bestWindow, Snippet, useLines } from "./code.js";
import { EditorSetting, readEditor } from "./editor.js";
import { Preview } from "./preview.js";
import { fromAddress, isAsked, toAddress, useSearch } from "./query.js";
import { ago, count, duration, ErrorNotice, html, Icon, Notice, some, useEffect, useLayoutEffect, useMemo, useRef, useState, visible } from "./ui.js";

/** What an answer had to do without, in words. */
const DEGRADED = {
  no_dense: "meaning was left out: that arm did not answer", no_sparse: "words were left out: that arm did not answer",
  one_arm: "only one arm was asked, because of load", no_rerank: "the order is rougher than usual: candidates were not rescored",
  rerank_reduced: "fewer candidates were rescored, because of load", cached: "a kept answer, because of load: it may be a little old",
  query_truncated: "only the beginning of this query was read", hits_truncated: "the last hits were left out: together they are too large",
  collection_left_out: "a collection could not be searched", page_shifted: "the order has changed since the page before",
};

/** Collections searched at once at most, as the API has it. */
const COLLECTIONS_MAX = 16;

/** Lines of a hit in the list. */
const SNIPPET_LINES = 4;

/** The collections and sources, read again while vectors are pending. */
function useStock() {
  const [stock, setStock] = useState({ collections: null, sources: [], error: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController(), { signal } = abort;
    (async () => {
      for (;;) {
        if (!document.hidden) {
          const [{ collections }, { sources }] = await Promise.all([ask("/v1/collections", { signal }), ask("/v1/sources", { signal })]);
          setStock({ collections, sources, error: null });
          if (!collections.some((one) => one.pending) && collections.some((one) => one.documents)) return;
        }
        await pause(2000, signal);
      }
    })().catch((error) => error.name !== "AbortError" && setStock((before) => ({ ...before, error })));
    return () => abort.abort();
  }, [turn]);
  return { ...stock, reload: () => setTurn((n) => n + 1) };
}

function Hit({ hit, index, active, choose }) {
  const lines = useLines(hit.text, hit.language, hit.highlights);
  const [from, best] = bestWindow(lines, SNIPPET_LINES);
  const element = useRef(null);
  useLayoutEffect(() => { if (active && index) element.current.scrollIntoView({ block: "nearest" }); }, [active]);
  const [, folder, file] = /^(.*\/)?([^/]*)$/s.exec(hit.path || hit.id) ?? [null, "", hit.id];
  return html`<li id=${`hit-${index}`} ref=${element} role="option" aria-selected=${active} class="hit" onClick=${choose}>
    <p class="hit-name"><span class="soft">${visible(folder ?? "")}</span><b>${visible(file)}</b><span class="soft num">:${hit.start_line}</span>
      ${hit.collection && html`<span class="badge">${visible(hit.collection)}</span>`}${hit.others_total > 0 && html`<span class="badge">+${hit.others_total}</span>`}</p>
    ${hit.symbol && html`<p class="hit-symbol mono">${visible(hit.symbol)}</p>`}
    <${Snippet} lines=${best} first=${hit.start_line + from} /></li>`;
}

function Filter({ name, values, chosen, change, show = visible }) {
  const listed = [...values, ...chosen.filter((value) => !values.some((one) => one.value === value)).map((value) => ({ value, count: null }))];
  if (listed.length < 2 && !chosen.length) return null;
  return html`<fieldset><legend>${name}</legend>${listed.slice(0, 12).map(({ value, count: n }) => html`
    <label key=${value} class="check"><input type="checkbox" checked=${chosen.includes(value)}
      onChange=${(event) => change(event.target.checked ? [...chosen, value] : chosen.filter((one) => one !== value))} />
      <span class="check-name">${show(value)}</span>${n !== null && html`<span class="soft num">${n}</span>`}</label>`)}</fieldset>`;
}

function Filters({ asked, set, facets, collections, selected }) {
  const of = (field) => facets?.find((one) => one.field === field)?.values ?? [];
  const folders = of("folder").filter((one) => one.value && one.value !== asked.folder);
  return html`<div class="filters">
    ${collections.length > 1 && html`<${Filter} name="Collections" values=${collections.map((one) => ({ value: one.name, count: of("collection").find((c) => c.value === one.name)?.count ?? null }))}
      chosen=${selected} change=${(next) => set({ collections: next.length === collections.length ? [] : next })} />`}
    <${Filter} name="Language" values=${of("language")} chosen=${asked.language} change=${(language) => set({ language })} show=${(value) => visible(value) || "none"} />
    <${Filter} name="Source" values=${of("source")} chosen=${asked.source} change=${(source) => set({ source })} />
    ${(asked.folder || folders.length > 1) && html`<fieldset><legend>Folder</legend>
      ${asked.folder && html`<button type="button" class="chip" onClick=${() => set({ folder: asked.folder.split("/").slice(0, -2).map((part) => `${part}/`).join("") })}><${Icon} name="close" /> <span class="hidden">Leave</span>${visible(asked.folder)}</button>`}
      ${folders.slice(0, 10).map(({ value, count: n }) => html`<button key=${value} type="button" class="folder" onClick=${() => set({ folder: value })}><span class="check-name">${visible(value)}</span><span class="soft num">${n}</span></button>`)}</fieldset>`}
  </div>`;
}

const NARROW = matchMedia("(max-width: 52rem)");

/** Filters, folded where there is little room: hits come first. */
function Folded({ children }) {
  const [narrow, setNarrow] = useState(NARROW.matches);
  useEffect(() => {
    const changed = () => setNarrow(NARROW.matches);
    NARROW.addEventListener("change", changed);
    return () => NARROW.removeEventListener("change", changed);
  }, []);
  return narrow ? html`<details class="setting"><summary>Filters</summary>${children}</details>` : children;
}

/** Nothing is asked yet: what there is, and how to ask. */
function Welcome({ collections, sources }) {
  const documents = collections.reduce((sum, one) => sum + one.documents, 0);
  if (!documents) {
    return html`<${Notice} title="Nothing is indexed yet"><p>On the machine with your files: <code>penstock index PATH</code>. This page notices by itself.</p><//>`;
  }
  return html`<div class="welcome">
    <p class="welcome-count"><b>${count(documents)}</b> ${documents === 1 ? "document" : "documents"} in ${collections.length === 1 ? html`<b>${visible(collections[0].name)}</b>` : some(collections.length, "collection")}</p>
    <p>Say what you look for in your own words, or type a name from the text. Both are searched at once.</p>
    <p class="keys soft"><kbd>/</kbd> search <kbd>↑</kbd> <kbd>↓</kbd> choose <kbd>Enter</kbd> read <kbd>Ctrl</kbd> <kbd>Enter</kbd> open in editor <kbd>Esc</kbd> back</p>
    ${sources.length > 0 && html`<ul class="stock">${sources.slice(0, 8).map((one) => html`<li key=${`${one.collection} ${one.name}`}><b>${visible(one.name)}</b>
      <span class="soft">${some(one.documents, "document")}, ${one.completed_at ? html`as of <time datetime=${one.completed_at}>${ago(one.completed_at)}</time>` : "being read"}</span></li>`)}</ul>`}
  </div>`;
}

function Status({ result, asked, slow }) {
  const { answer, busy, error } = result;
  const words = [...new Set(answer?.degraded ?? [])];
  const leftOut = answer?.left_out ?? [];
  const n = answer?.hits.length;
  return html`<div class="answer-line">
    <p role="status">${error ? "" : answer ? (n ? html`${some(n, "hit")}${answer.next && " and more"} in <span class="num">${duration(answer.took_ms)}</span>` : "No hits") : busy && slow ? "The server takes its time …" : ""}</p>
    ${answer && words.length > 0 && html`<ul class="degraded">${words.map((word) => html`<li key=${word} class="badge warn">${DEGRADED[word] ?? word.replaceAll("_", " ")}</li>`)}</ul>`}
    ${leftOut.map((one) => html`<p key=${one.collection} class="warn">${visible(one.collection)}: ${one.detail}</p>`)}
    ${answer && !n && html`<p class="soft">${asked.language.length + asked.source.length || asked.folder ? "Nothing fits the filters. Take one away." : "Try other words."}</p>`}</div>`;
}

/** True once `busy` has lasted a while. */
function useSlow(busy) {
  const [slow, setSlow] = useState(false);
  useEffect(() => {
    setSlow(false);
    const timer = busy && setTimeout(() => setSlow(true), 500);
    return () => clearTimeout(timer);
  }, [busy]);
  return slow;
}

export function Search() {
  const [asked, setAsked] = useState(() => fromAddress(location.search));
  const [active, setActive] = useState(0);
  const [reading, setReading] = useState(false);
  const [editor, setEditor] = useState(readEditor);
  const stock = useStock();
  const box = useRef(null), frame = useRef(null);
  const usable = useMemo(() => (stock.collections ?? []).filter((one) => one.state !== "damaged"), [stock.collections]);
  const all = usable.map((one) => one.name).slice(0, COLLECTIONS_MAX);
  const selected = asked.collections.length ? asked.collections : all;
  const result = useSearch(asked, selected);
  const slow = useSlow(result.busy && !result.answer);
  const hits = (isAsked(asked) && result.answer?.hits) || [];
  const hit = hits[Math.min(active, hits.length - 1)];
  const collection = hit?.collection ?? selected[0];

  useEffect(() => {
    const moved = () => { setAsked(fromAddress(location.search)); setActive(0); };
    const typed = (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(?:INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || session.wanted !== null) return;
      event.preventDefault();
      box.current.select();
    };
    addEventListener("popstate", moved);
    addEventListener("keydown", typed);
    if (matchMedia("(hover: hover)").matches) box.current.focus();
    return () => { removeEventListener("popstate", moved); removeEventListener("keydown", typed); };
  }, []);
  useEffect(() => { document.title = asked.q ? `${asked.q.slice(0, 60)} · Penstock` : "Penstock"; }, [asked.q]);
  useEffect(() => { if (result.error?.kind === "missing") stock.reload(); }, [result.error]);

  /** Change what is asked. The address follows; a step that can be taken back is a new entry of the history. */
  function set(part, { step = true } = {}) {
    const next = { ...asked, ...part };
    setAsked(next);
    if (!("why" in part)) setActive(0);
    history[step ? "pushState" : "replaceState"](null, "", toAddress(next));
  }
  function read() {
    setReading(true);
    frame.current.querySelector(".preview")?.focus();
  }
  function onKey(event) {
    const to = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + 5, PageUp: active - 5 }[event.key];
    if (to !== undefined && hits.length) { event.preventDefault(); setActive(Math.max(0, Math.min(hits.length - 1, to))); }
    else if (event.key === "Enter" && !event.isComposing && hit) {
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) frame.current.querySelector(".tools a")?.click();
      else read();
    } else if (event.key === "Escape" && (asked.q || asked.like)) { event.preventDefault(); set({ q: "", like: null }); }
  }
  function back() {
    setReading(false);
    box.current.focus();
  }

  const source = hit && hit.id.endsWith(`:${hit.path}`) ? hit.id.slice(0, -hit.path.length - 1) : null;
  const root = stock.sources.find((one) => one.name === source && one.collection === collection)?.roots[0]?.path;
  const pending = usable.filter((one) => selected.includes(one.name)).reduce((sum, one) => sum + one.pending, 0);
  const gone = asked.collections.filter((name) => stock.collections && !usable.some((one) => one.name === name));
  const failed = gone.length && result.error?.kind === "missing" ? null : (result.error ?? stock.error);
  return html`<div class=${`search ${reading && hit ? "reading" : ""}`} ref=${frame} onKeyDown=${(event) => event.key === "Escape" && event.target !== box.current && back()}>
    <h1 class="hidden">Search</h1>
    <form class="search-box" role="search" onSubmit=${(event) => { event.preventDefault(); if (hit) read(); }}>
      <${Icon} name="search" />
      <input ref=${box} type="text" inputmode="search" enterkeyhint="search" role="combobox" aria-label="Search" aria-autocomplete="list" aria-controls="hits" aria-expanded=${hits.length > 0}
        aria-activedescendant=${hit ? `hit-${hits.indexOf(hit)}` : undefined} autocomplete="off" autocapitalize="off" spellcheck="false" maxlength="20000"
        placeholder=${asked.like ? `Like ${visible(asked.like.id)}` : "What are you looking for?"} value=${asked.q}
        onInput=${(event) => { setReading(false); set({ q: event.target.value, like: null }, { step: false }); }} onKeyDown=${onKey} />
      ${asked.like && html`<button type="button" class="chip" onClick=${() => set({ like: null })}>Similar to a hit <${Icon} name="close" /></button>`}
      <span class=${`working ${result.busy ? "on" : ""}`} aria-hidden="true"></span>
    </form>
    ${pending > 0 && html`<p class="pending soft"><span class="bar"><span style=${{ width: `${100 - (100 * pending) / Math.max(1, usable.reduce((sum, one) => sum + one.chunks, 0))}%` }}></span></span> ${some(pending, "chunk")} without vectors yet: found by words until then.</p>`}
    ${gone.length > 0 && html`<${Notice} kind="warn" title=${`There is no collection ${gone.map(visible).join(", ")} any more`}><button type="button" class="plain" onClick=${() => set({ collections: [] })}>Search what there is</button><//>`}
    ${failed && session.wanted === null && html`<${ErrorNotice} error=${failed} retry=${() => { stock.reload(); result.retry(); }} />`}
    ${isAsked(asked) ? html`<${Status} result=${result} asked=${asked} slow=${slow} />` : stock.collections && html`<${Welcome} collections=${usable} sources=${stock.sources} />`}
    <div class=${`columns ${isAsked(asked) ? "" : "unasked"} ${result.error ? "stale" : ""}`}>
      <aside aria-label="Filters">${isAsked(asked) && html`<${Folded}><${Filters} asked=${asked} set=${set} facets=${result.answer?.facets} collections=${usable} selected=${selected} />
        <${EditorSetting} value=${editor} change=${setEditor} /><//>`}</aside>
      <div class="list"><ol id="hits" role="listbox" aria-label="Hits">${hits.map((one, i) => html`<${Hit} key=${`${one.collection ?? ""} ${one.id} ${one.chunk}`} hit=${one} index=${i} active=${one === hit} choose=${() => { setActive(i); setReading(true); }} />`)}</ol>
        ${result.answer?.next && hits.length > 0 && html`<button type="button" class="outline more" disabled=${result.busy} onClick=${result.more}>More hits</button>`}</div>
      ${hit && html`<${Preview} key=${`${collection} ${hit.id} ${hit.chunk}`} hit=${hit} hits=${hits} collection=${collection} why=${asked.why} setWhy=${(why) => set({ why }, { step: false })}
        like=${() => { set({ q: "", like: { id: hit.id, chunk: hit.chunk }, collections: [collection] }); box.current.focus(); }} root=${root} editor=${editor} close=${back} />`}
    </div>
  </div>`;
}
