/**
 * Requests to the server: JSON in and out, its errors, the reader's key, and streams of events.
 *
 * The key is kept in this tab's session and goes into a header, never into an address.
 */

const KEY = "penstock.key";

/** An answer that is no success, or none at all.
 *
 * `kind` says what the page can do about it: `refused` and `starting` come with `retryAfterS`, a time to ask again;
 * `expired` found no answer in its time; `key` wants a sign-in; `denied` is a key that may not; `missing` has gone;
 * `invalid` is the request's own fault; `offline` got no answer; `broken` is the server's fault.
 */
export class ApiError extends Error {
  constructor(kind, detail, { status = 0, code = "", field = "", retryAfterS = null, requestId = "" } = {}) {
    super(detail);
    Object.assign(this, { kind, detail, status, code, field, retryAfterS, requestId });
  }
}

const KINDS = { 401: "key", 403: "denied", 404: "missing", 429: "refused", 503: "refused", 504: "expired" };

const storage = (() => {
  try {
    sessionStorage.getItem(KEY);
    return sessionStorage;
  } catch {
    const kept = new Map();
    return { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value), removeItem: (name) => kept.delete(name) };
  }
})();

/** The sign-in: whether there is a key, and why one is asked for. Views subscribe with `session.subscribe`. */
export const session = {
  /** `null`, or why a key is wanted. */
  wanted: null,
  listeners: new Set(),
  get key() { return storage.getItem(KEY) ?? ""; },
  subscribe(listener) { this.listeners.add(listener); return () => this.listeners.delete(listener); },
  changed() { for (const listener of this.listeners) listener(); },
  signIn(key) { storage.setItem(KEY, key); this.wanted = null; this.changed(); },
  signOut() { storage.removeItem(KEY); this.wanted = "You have signed out."; this.changed(); },
  ask(reason) {
    if (this.wanted === reason) return;
    this.wanted = reason;
    this.changed();
  },
};

/** The server's time less this machine's, in ms: a clock that is wrong by a day says nothing wrong here. */
let skewMs = 0;
/** The time by the server's clock, in ms since the epoch. */
export const serverNow = () => Date.now() + skewMs;

function noteClock(response) {
  const said = Date.parse(response.headers.get("date") ?? "");
  // The header is whole seconds: a difference below two is no difference.
  if (!Number.isNaN(said)) skewMs = Math.abs(said - Date.now()) < 2000 ? 0 : said - Date.now();
}

async function errorOf(response) {
  let problem = {};
  try { problem = await response.json(); } catch { /* not ours: a proxy's page */ }
  const retryAfter = Number.parseFloat(response.headers.get("retry-after"));
  return new ApiError(KINDS[response.status] ?? (response.status >= 500 ? "broken" : "invalid"),
    problem.detail || problem.title || `The server answered ${response.status} ${response.statusText}.`, {
      status: response.status, code: problem.code, field: problem.field,
      retryAfterS: Number.isFinite(retryAfter) ? retryAfter : null,
      requestId: response.headers.get("x-request-id") ?? "",
    });
}

async function open(path, { method = "GET", body, headers = {}, signal, key = session.key } = {}) {
  const sent = { accept: "application/json", ...headers };
  if (key) sent.authorization = `Bearer ${key}`;
  if (body !== undefined) sent["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "The server does not answer. It may be restarting, or the connection is gone.");
  }
  noteClock(response);
  if (response.ok) return response;
  const error = await errorOf(response);
  if (error.kind === "key" && session.key === key) session.ask(key ? `${error.detail}.`.replace("..", ".") : "This server asks for a key.");
  throw error;
}

/**
 * Ask the server, and return its JSON (`null` for an empty answer). A `key` is tried in the place of the session's.
 *
 * @throws {ApiError} Also where nothing answers. An `AbortError` of `signal` passes as it is.
 */
export async function ask(path, options) {
  const response = await open(path, options);
  try {
    const text = await response.text();
    return text ? JSON.parse(text) : null;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "The answer broke off.");
  }
}

/**
 * Read a stream of server-sent events until it ends: `onEvent(name, data)`, with data as parsed JSON.
 *
 * `EventSource` cannot send a key in a header, so the stream is read by hand (HTML Living Standard §9.2.6).
 */
export async function follow(path, { onEvent, signal }) {
  const response = await open(path, { headers: { accept: "text/event-stream" }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
        const lines = rest.slice(0, end).split("\n");
        rest = rest.slice(end + 2);
        const field = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2)).join("\n");
        const data = field("data");
        if (data) onEvent(field("event") || "message", JSON.parse(data));
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "The connection to the server is gone.");
  }
}

/** Wait, in ms; ends early, with an `AbortError`, when `signal` says so. */
export const pause = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(new DOMException("aborted", "AbortError")); }, { once: true });
});
