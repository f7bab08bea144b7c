/** Words of the flow: what its topics, reasons, rungs and states are called on the page. */

/** Lanes in their order: a topic, its pool, and what does the work. */
export const LANES = [
  { topic: "search.request", pool: "search", name: "Searches", end: "store" },
  { topic: "index.request", pool: "index", name: "Writes", end: "store" },
  { topic: "index.chunk", pool: "chunk", name: "Documents", end: "chunkers" },
  { topic: "ml.embed", pool: "embed", name: "Meaning", end: "embed" },
  { topic: "ml.sparse", pool: "sparse", name: "Words", end: "sparse" },
  { topic: "ml.rerank", pool: "rerank", name: "Reranking", end: "rerank" },
];

/** What stands at the end of the lanes, with the part of the models that it is. */
export const ENDS = {
  store: { name: "Store", says: "keeps points and finds them" },
  chunkers: { name: "Chunkers", says: "cut documents into chunks" },
  embed: { name: "Dense model", says: "turns texts into vectors", part: "dense" },
  sparse: { name: "Sparse model", says: "weighs words", part: "sparse" },
  rerank: { name: "Reranker", says: "scores texts against a query", part: "rerank" },
};

const REASONS = {
  rate_limited: "asked too often",
  too_many_requests_in_flight: "too many at once",
  topic_full: "the queue is full",
  client_share: "one client has its share",
  hopeless: "could not end in time",
  overloaded: "too much to do",
  degraded: "wants full quality only",
  memory_short: "memory is short",
  draining: "shutting down",
  body_too_large: "body too large",
  slow_uploads: "uploads too slow",
  unavailable: "store or model away",
  key_missing: "no key",
  key_unknown: "unknown key",
  key_expired: "expired key",
  too_many_failed_attempts: "too many wrong keys",
};
/** Why a request was turned back. */
export const reasonName = (reason) => REASONS[reason] ?? reason.replaceAll("_", " ");

/** Rungs of the ladder, from the foot: name, and what a search is served without. */
export const RUNGS = [
  ["full", "Full quality", "nothing is left out"],
  ["fewer_candidates", "Fewer candidates", "some candidates of each arm are left out"],
  ["no_rerank", "No reranking", "the exact scores are left out"],
  ["one_arm", "One arm", "the dense arm is left out: words are found, meaning is not"],
  ["cached_only", "Cached only", "everything but remembered answers is left out"],
  ["refuse", "Refusing", "no answer is given"],
];

/** A breaker's state. */
export function breakerSays(breaker) {
  if (!breaker || breaker.state === "closed") return "connected";
  if (breaker.state === "half-open") return "being tried again";
  return breaker.retry_after_s >= 1 ? `left alone, tried in ${Math.ceil(breaker.retry_after_s)} s` : "left alone";
}

/** A model's name without its hash or settings. */
export const modelName = (model) => model.name.replace(/-[0-9a-f]{16}$/, "").replace(/-Bm25Settings\(.*$/, "");

/** A number a second: `0`, `0.4`, `12`, `1.2k`. */
export function perSecond(n) {
  if (n === null || n === undefined) return "–";
  if (n > 0 && n < 0.1) return "<0.1";
  return n < 10 ? n.toFixed(n % 1 >= 0.05 && n % 1 < 0.95 ? 1 : 0) : n < 1000 ? n.toFixed(0) : `${(n / 1000).toPrecision(3)}k`;
}

/** The whole in one sentence, as somebody beside the screen would say it, and how serious it is. */
export function summary(frame, rates, reasons) {
  const open = frame.breakers.filter((one) => one.state !== "closed");
  const worst = frame.ladder.reduce((most, one) => (one.level > most.level ? one : most), { level: 0 });
  const refused = rates ? Object.values(rates.refused).reduce((sum, one) => sum + one, 0) : 0;
  if (frame.draining) return ["storm", "The server shuts down: it ends what it has begun, and takes nothing new."];
  if (open.length) return ["storm", `${open.map((one) => ENDS[one.dependency]?.name ?? one.dependency).join(", ")} ${open.length > 1 ? "do" : "does"} not answer. The others go on.`];
  if (refused >= 0.5 || reasons.length) {
    const most = Object.entries(rates?.refused ?? {}).sort((a, b) => b[1] - a[1])[0]?.[0] ?? reasons[0];
    return ["storm", `More comes than can be done. ${refused >= 0.5 ? `${perSecond(refused)} a second are turned back` : "Some were turned back just now"}: ${reasonName(most)}.`];
  }
  if (worst.level) return ["strained", `Much to do. Some searches are served with less: ${RUNGS[worst.level][2]}.`];
  if (frame.topics.some((one) => one.level !== "calm" || one.congested)) return ["strained", "Much to do. Work waits, and all of it is taken."];
  const busy = (rates?.goodput ?? 0) >= 0.5 || frame.pools.some((one) => one.active);
  return busy ? ["busy", "All is well. What comes is done."] : ["calm", "All is calm. Nothing waits."];
}
