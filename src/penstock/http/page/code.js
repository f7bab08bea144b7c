/** Source text for the eye: syntax, matches, line numbers. Text becomes text nodes, whatever it holds. */

import { tokenizer } from "./vendor/tokenize.js";
import { html, useEffect, useMemo, useState, visible } from "./ui.js";

/** Grammars by the server's names of languages, where they differ. */
const GRAMMARS = {
  python: "py", javascript: "js", jsx: "js", typescript: "ts", tsx: "ts", rust: "rs", shell: "bash", sh: "bash", zsh: "bash", cpp: "c",
  csharp: "java", kotlin: "java", scala: "java", swift: "rs", markdown: "md", dockerfile: "docker", perl: "pl", makefile: "make", php: "js", vue: "html",
};
const KNOWN = new Set("bash c css diff docker go html ini java js jsdoc json lua make md pl py regex rs sql todo toml ts uri xml yaml".split(" "));

/** Text beyond these is shown without syntax: some rules of the grammars take time with the square of a line. */
const LINE_CHARACTERS_MAX = 1000;
const TEXT_CHARACTERS_MAX = 60_000;

/** Characters of a line that are shown. */
const SHOWN_CHARACTERS_MAX = 2000;

const loaded = new Map();
const loading = new Map();

function load(name) {
  if (!loading.has(name)) {
    loading.set(name, import(`./vendor/languages/${name}.js`).then((module) => loaded.set(name, module.default), () => loaded.set(name, [])));
  }
  return loading.get(name);
}

/** Pieces of a text, `[text, type]`, and the grammars that are missing for more. */
function tokens(text, language) {
  const name = GRAMMARS[language] ?? language;
  if (!KNOWN.has(name) || text.length > TEXT_CHARACTERS_MAX || text.split("\n").some((line) => line.length > LINE_CHARACTERS_MAX)) return { pieces: [[text, ""]], missing: [] };
  const pieces = [], missing = [];
  const steps = tokenizer(text, name, (piece, type) => piece && pieces.push([piece, type ?? ""]));
  for (let step = steps.next(); !step.done;) {
    const wanted = step.value;
    if (KNOWN.has(wanted) && !loaded.has(wanted)) missing.push(wanted);
    step = steps.next(loaded.get(wanted) ?? []);
  }
  return { pieces, missing };
}

/** Ranges in code points as ranges in the units of a JavaScript string. */
function inUnits(text, ranges) {
  if (!/[\ud800-\udfff]/.test(text)) return ranges;
  const offsets = [0];
  for (const character of text) offsets.push(offsets.at(-1) + character.length);
  return ranges.map(([from, to]) => [offsets[from] ?? text.length, offsets[to] ?? text.length]);
}

/**
 * Lines of a text, each a list of `{ text, type, match }`.
 *
 * @param ranges What matches, in code points, in order.
 */
function linesOf(text, language, ranges) {
  const { pieces, missing } = tokens(text, language);
  const matches = inUnits(text, ranges).slice();
  const lines = [[]];
  let at = 0;
  for (const [piece, type] of pieces) {
    let rest = piece;
    while (rest) {
      while (matches.length && matches[0][1] <= at) matches.shift();
      const [from, to] = matches[0] ?? [Infinity, Infinity];
      const match = at >= from;
      const newline = rest.indexOf("\n");
      let size = Math.min(rest.length, match ? to - at : from - at);
      if (newline >= 0) size = Math.min(size, newline === 0 ? 1 : newline);
      const part = rest.slice(0, size);
      if (part === "\n") lines.push([]);
      else lines.at(-1).push({ text: part, type, match });
      at += size;
      rest = rest.slice(size);
    }
  }
  return { lines, missing };
}

const NONE = [];

/** Lines of a text; once its grammar is there, with syntax. */
export function useLines(text, language, ranges = NONE) {
  const [drawn, redraw] = useState(0);
  const { lines, missing } = useMemo(() => linesOf(text, language, ranges), [text, language, ranges, drawn]);
  useEffect(() => {
    let current = true;
    if (missing.length) Promise.all(missing.map(load)).then(() => current && redraw((n) => n + 1));
    return () => { current = false; };
  }, [missing]);
  return lines;
}

function Line({ parts }) {
  let left = SHOWN_CHARACTERS_MAX;
  const shown = [];
  for (const { text, type, match } of parts) {
    const part = visible(text.slice(0, left));
    left -= text.length;
    const inner = match ? html`<mark>${part}</mark>` : part;
    shown.push(type ? html`<span class=${`k-${type}`}>${inner}</span>` : inner);
    if (left <= 0) break;
  }
  const all = parts.reduce((sum, part) => sum + part.text.length, 0);
  return html`${shown}${all > SHOWN_CHARACTERS_MAX && html`<span class="cut"> … ${(all - SHOWN_CHARACTERS_MAX).toLocaleString("en")} more characters</span>`}`;
}

/**
 * Lines with their numbers.
 *
 * @param lines From `useLines`.
 * @param first Number of the first one.
 * @param hit First and last number of those to set off, if any.
 */
export const Code = ({ lines, first, hit, label }) => html`
  <pre class="code" tabindex="0" role="region" aria-label=${label}><code>${lines.map((parts, i) => {
    const number = first + i;
    const chosen = hit && number >= hit[0] && number <= hit[1];
    return html`<span key=${number} class=${chosen ? "line chosen" : "line"} data-line=${number}><span class="number" aria-hidden="true">${number}</span><span class="text"><${Line} parts=${parts} />${"\n"}</span></span>`;
  })}</code></pre>`;

/** The few lines of a text that hold most of what matches: `[index of the first, lines]`. */
export function bestWindow(lines, size) {
  const weights = lines.map((parts) => new Set(parts.filter((part) => part.match).map((part) => part.text.toLowerCase())).size);
  let best = 0, most = -1;
  for (let first = 0; first <= Math.max(0, lines.length - size); first++) {
    const weight = weights.slice(first, first + size).reduce((sum, n) => sum + n, 0);
    if (weight > most) [best, most] = [first, weight];
  }
  return [best, lines.slice(best, best + size)];
}

/** How far all lines are indented. */
function indentation(lines) {
  const own = lines.map((parts) => parts.map((part) => part.text).join("")).filter((text) => text.trim()).map((text) => /^[ \t]*/.exec(text)[0].length);
  return own.length ? Math.min(...own) : 0;
}

/** A short piece of code in a list: not indented, not scrolled; of a long line the part around its first match. */
export const Snippet = ({ lines, first }) => html`<span class="snippet">${dedented(lines).map((parts, i) => html`<span class="line"><span class="number" aria-hidden="true">${first + i}</span><span class="text"><${Line} parts=${nearMatch(parts)} /></span></span>`)}</span>`;

/** The parts of a line after its first `characters`. */
function after(parts, characters) {
  let drop = characters;
  const kept = [];
  for (const part of parts) {
    if (drop >= part.text.length) drop -= part.text.length;
    else { kept.push({ ...part, text: part.text.slice(drop) }); drop = 0; }
  }
  return kept;
}

function dedented(lines) {
  const indented = indentation(lines);
  return lines.map((parts) => after(parts, indented));
}

/** A long line from shortly before its first match on. */
function nearMatch(parts) {
  const before = parts.findIndex((part) => part.match);
  const skipped = parts.slice(0, Math.max(0, before)).reduce((sum, part) => sum + part.text.length, 0);
  if (skipped < 100) return clip(parts, 240);
  return [{ text: "… ", type: "", match: false }, ...clip(after(parts, skipped - 40), 240)];
}

function clip(parts, characters) {
  const kept = [];
  let left = characters;
  for (const part of parts) {
    if (left <= 0) break;
    kept.push({ ...part, text: part.text.slice(0, left) });
    left -= part.text.length;
  }
  return kept;
}
