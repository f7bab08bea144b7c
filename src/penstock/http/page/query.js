/** A search as an address, as a request, and as it runs while somebody types. */

import { ask, pause } from "./api.js";
import { useEffect, useState } from "./ui.js";

/** The search that an address names; `toAddress` is its inverse. */
export function fromAddress(search) {
  const said = new URLSearchParams(search);
  const every = (name) => [...new Set(said.getAll(name))];
  const like = said.get("like");
  return {
    q: said.get("q") ?? "", like: like && { id: like, chunk: Number(said.get("chunk") ?? 0) },
    collections: every("in"), language: every("language"), source: every("source"), folder: said.get("folder") ?? "",
    why: said.has("why"),
  };
}

export function toAddress({ q, like, collections, language, source, folder, why }) {
  const said = new URLSearchParams();
  if (like) { said.set("like", like.id); said.set("chunk", like.chunk); } else if (q) said.set("q", q);
  for (const name of collections) said.append("in", name);
  for (const value of language) said.append("language", value);
  for (const value of source) said.append("source", value);
  if (folder) said.set("folder", folder);
  if (why) said.set("why", "1");
  const text = said.toString();
  return text ? `/?${text}` : "/";
}

/** Hits on a page. */
const LIMIT = 20;
/** A pause in the typing after which a search is sent, and one after which its facets are counted. */
const TYPED_MS = 90, SETTLED_MS = 400;
/** A search that is sent while somebody types has no longer: the next letter makes it worthless. */
const TYPED_DEADLINE_MS = 700;

const requested = ({ like }, q) => (like ? { like } : { query: q });

function body(asked, collections) {
  const filter = {};
  if (asked.language.length) filter.language = asked.language;
  if (asked.source.length) filter.source = asked.source;
  if (asked.folder) filter.path_prefix = asked.folder;
  return { ...requested(asked, asked.q), ...(collections.length > 1 && { collections }), filter, limit: LIMIT, highlights: !asked.like, group: "document", ...(asked.why && { explain: true }) };
}

/** Whether there is something to look for. */
export const isAsked = ({ q, like }) => Boolean(like || q.trim());

const NOTHING = { answer: null, error: null, busy: false, of: "" };

/**
 * Run a search whenever it changes: soon with a short deadline while somebody types, then once more, when the typing
 * has paused, with facets and the server's own deadline. The one before is cancelled, also on the server.
 *
 * @returns `{ answer, error, busy, more, retry }`; the last answer stays until there is another one.
 */
export function useSearch(asked, collections) {
  const [state, setState] = useState(NOTHING);
  const [turn, setTurn] = useState(0);
  const path = collections.length === 1 ? `/v1/collections/${encodeURIComponent(collections[0])}/search` : "/v1/search";
  const wanted = isAsked(asked) && collections.length ? JSON.stringify([path, body(asked, collections)]) : "";

  useEffect(() => {
    if (!wanted) { setState(NOTHING); return undefined; }
    const abort = new AbortController(), { signal } = abort;
    const [, request] = JSON.parse(wanted);
    const send = (more) => ask(path, { method: "POST", body: { ...request, ...more }, signal });
    const facets = ["language", "source", "folder", ...(collections.length > 1 ? ["collection"] : [])];
    (async () => {
      setState((before) => ({ ...before, busy: true, error: turn ? before.error : null }));
      await pause(turn ? 0 : TYPED_MS, signal);
      try {
        const answer = await send({ timeout_ms: TYPED_DEADLINE_MS });
        setState((before) => ({ answer: { ...answer, facets: before.answer?.facets }, error: null, busy: true, of: wanted }));
      } catch (error) {
        // Too slow for a keystroke is not yet too slow.
        if (error.kind !== "expired") throw error;
      }
      await pause(SETTLED_MS, signal);
      setState({ answer: await send({ facets }), error: null, busy: false, of: wanted });
    })().catch((error) => {
      if (error.name !== "AbortError") setState((before) => ({ ...before, error, busy: false, of: wanted }));
    });
    return () => abort.abort();
  }, [wanted, turn]);

  /** Add the next page. */
  async function more() {
    setState((before) => ({ ...before, busy: true }));
    try {
      const next = await ask(path, { method: "POST", body: { ...JSON.parse(wanted)[1], cursor: state.answer.next } });
      setState((before) => (before.of !== wanted ? before : { ...before, busy: false, answer: { ...before.answer, next: next.next, hits: before.answer.hits.concat(next.hits) } }));
    } catch (error) {
      setState((before) => ({ ...before, error, busy: false }));
    }
  }
  return { ...state, fresh: state.of === wanted, more, retry: () => setTurn((n) => n + 1) };
}
