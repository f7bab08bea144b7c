/** The hit that is chosen: its text, its file, how it came to its place, and what can be done with it. */

import { ask, pause } from "./api.js";
import { Code, useLines } from "./code.js";
import { editorLink } from "./editor.js";
import { Explain } from "./explain.js";
import { ErrorNotice, html, Icon, useEffect, useLayoutEffect, useRef, useState, visible } from "./ui.js";

/** Chunks of a file that are read at once, and together: a file may have thousands. */
const CHUNKS_PER_READ = 200, CHUNKS_MAX = 1000;

const document_ = (collection, id, more, signal) => ask(`/v1/collections/${encodeURIComponent(collection)}/document?${new URLSearchParams({ id, ...more })}`, { signal });

/** The lines of chunks, which may overlap: `{ first, text }`; a gap is told by a line. */
function joined(chunks) {
  const lines = [];
  const first = chunks[0]?.start_line ?? 1;
  let next = first;
  for (const chunk of chunks) {
    const own = chunk.text.split("\n");
    while (next < chunk.start_line) { lines.push(""); next++; }
    for (let i = 0; i <= chunk.end_line - chunk.start_line; i++) {
      if (chunk.start_line + i < next) continue;
      lines.push(own[i] ?? "");
      next++;
    }
  }
  return { first, text: lines.join("\n") };
}

async function wholeFile(collection, id) {
  const chunks = [];
  let next = 0;
  while (next !== null && chunks.length < CHUNKS_MAX) {
    const page = await document_(collection, id, { chunk: next, limit: CHUNKS_PER_READ });
    chunks.push(...page.chunks);
    next = page.next;
  }
  return { ...joined(chunks), cut: next !== null };
}

/** Chunks on either side of a hit that are shown with it, and after what pause: arrow keys pass over many hits. */
const AROUND = 2, REST_MS = 250;

/** A hit with the text around it; its matches move along. */
async function surroundings(collection, hit, signal) {
  await pause(REST_MS, signal);
  const { chunks } = await document_(collection, hit.id, { chunk: Math.max(0, hit.chunk - AROUND), limit: 2 * AROUND + 1 }, signal);
  const { first, text } = joined(chunks);
  const before = text.split("\n").slice(0, hit.start_line - first).map((line) => `${line}\n`).join("");
  // The document may have been written since it was found.
  if (text.slice(before.length, before.length + hit.text.length) !== hit.text) return null;
  const shift = [...before].length;
  return { first, text, highlights: (hit.highlights ?? []).map((range) => range.map((at) => at + shift)), hit: [hit.start_line, hit.end_line], around: true };
}

export function Preview({ hit, hits, collection, why, setWhy, like, root, editor, close }) {
  /** Another place of the file, or all of it. */
  const [shown, setShown] = useState(null);
  const [around, setAround] = useState(null);
  const [error, setError] = useState(null);
  const [copied, setCopied] = useState(false);
  const section = useRef(null);
  const own = shown ?? around ?? { first: hit.start_line, text: hit.text, highlights: hit.highlights, hit: null };
  const lines = useLines(own.text, hit.language, own.highlights);
  const name = hit.path || hit.id;
  const line = shown?.hit?.[0] ?? hit.start_line;
  const link = hit.path && editorLink(editor, root, hit.path, line);

  useEffect(() => {
    const abort = new AbortController();
    // Without it there is the hit itself.
    surroundings(collection, hit, abort.signal).then(setAround, () => {});
    return () => abort.abort();
  }, []);
  useLayoutEffect(() => {
    const code = section.current.querySelector(".code"), line = code.querySelector(".line.chosen");
    if (line) code.scrollTop = line.offsetTop - code.offsetTop - Math.min(96, code.clientHeight / 4);
  }, [shown, around]);

  async function show(load) {
    setError(null);
    try { setShown(await load()); } catch (failed) { setError(failed); }
  }
  const showAll = () => show(async () => ({ ...(await wholeFile(collection, hit.id)), all: true, hit: [hit.start_line, hit.end_line] }));
  const showOther = (other) => show(async () => {
    const { chunks: [chunk] } = await document_(collection, hit.id, { chunk: other.chunk, limit: 1 });
    return { first: chunk.start_line, text: chunk.text, chunk: other.chunk, hit: [chunk.start_line, chunk.end_line] };
  });
  async function copy() {
    try {
      await navigator.clipboard.writeText(`${hit.path || hit.id}:${line}`);
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    } catch { setCopied(false); }
  }

  const place = (one) => (one.start_line === one.end_line ? `line ${one.start_line}` : `lines ${one.start_line} to ${one.end_line}`);
  return html`<section class="preview card" ref=${section} aria-labelledby="preview-title" tabindex="-1">
    <div class="preview-head">
      <div class="preview-name"><h2 id="preview-title" class="mono">${visible(name)}</h2>
        <p class="soft">${hit.symbol && html`<span class="mono">${visible(hit.symbol)}</span> · `}${place(hit)}${hit.language && ` · ${hit.language}`}${hit.collection && ` · ${visible(hit.collection)}`}</p></div>
      <button type="button" class="plain square only-narrow" aria-label="Back to the hits" onClick=${close}><${Icon} name="close" /></button>
    </div>
    <div class="tools">
      ${link && html`<a class="tool" href=${link}><${Icon} name="open" />Open in editor</a>`}
      <button type="button" class="tool" aria-pressed=${why} onClick=${() => setWhy(!why)}><${Icon} name="why" />Why this?</button>
      <button type="button" class="tool" onClick=${like}><${Icon} name="like" />More like this</button>
      ${shown ? html`<button type="button" class="tool" onClick=${() => setShown(null)}><${Icon} name="file" />Only the hit</button>`
        : html`<button type="button" class="tool" onClick=${showAll}><${Icon} name="file" />Whole document</button>`}
      <button type="button" class="tool" onClick=${copy}><${Icon} name="copy" />${copied ? "Copied" : "Copy place"}</button>
      <span class="hidden" role="status">${copied ? "Copied" : ""}</span>
    </div>
    ${why && (hit.explain ? html`<${Explain} hit=${hit} hits=${hits} />` : html`<p class="soft pad" role="status">Asking the server how it ranked this …</p>`)}
    ${error && html`<${ErrorNotice} error=${error} retry=${() => setError(null)} />`}
    <${Code} lines=${lines} first=${own.first} hit=${own.hit} label=${`Text of ${visible(name)}`} />
    ${own.cut && html`<p class="soft pad">The document goes on; this page shows its first ${CHUNKS_MAX} chunks.</p>`}
    ${hit.others?.length > 0 && html`<div class="others"><h3>Elsewhere in it</h3><p>${hit.others.map((other) => html`<button key=${other.chunk} type="button" class="chip" aria-pressed=${shown?.chunk === other.chunk} onClick=${() => showOther(other)}>${other.start_line}–${other.end_line}</button>`)}
      ${hit.others_total > hit.others.length && html`<span class="soft"> and ${hit.others_total - hit.others.length} more</span>`}</p></div>`}
  </section>`;
}
