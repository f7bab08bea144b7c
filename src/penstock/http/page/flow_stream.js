/** The stream of the flow: asked for while somebody looks, and asked for again when it breaks. */

import { ApiError, follow, pause, session } from "./api.js";
import { useEffect, useRef, useState } from "./ui.js";
import { History } from "./flow_rates.js";

/** Seconds between attempts, the last one from then on. */
const PAUSES_S = [1, 2, 5, 10, 15];
/** A connection on which nothing came for so long is given up. */
const SILENT_S_MAX = 15;
/** Without a frame for so long, what is shown is called old. */
export const OLD_S = 3.5;

/** What was seen so far; it outlives the view. */
const history = new History();

const now_s = () => performance.now() / 1000;

/** Read streams one after another until `signal` ends it; `say` is told each change of state. */
async function watch(signal, say) {
  let attempt = 0;
  for (;;) {
    const connection = new AbortController();
    const end = () => connection.abort();
    signal.addEventListener("abort", end, { once: true });
    let heard_s = now_s(), silent = false, frames = 0, error = null;
    const guard = setInterval(() => {
      if (now_s() - heard_s > SILENT_S_MAX) { silent = true; end(); }
    }, 1000);
    try {
      await follow("/v1/flow", {
        signal: connection.signal,
        onEvent: (name, frame) => {
          if (name !== "flow") return;
          heard_s = now_s();
          frames += 1;
          attempt = 0;
          history.take(frame);
          say({ phase: "live", seen_s: heard_s });
        },
      });
    } catch (failed) {
      if (signal.aborted) return;
      error = silent ? new ApiError("offline", "The server has fallen silent.") : failed;
    } finally {
      clearInterval(guard);
      signal.removeEventListener("abort", end);
    }
    if (error?.kind === "key" || error?.kind === "denied" || error?.kind === "missing") return say({ phase: error.kind, error });
    const draining = !error && history.frame?.draining;
    // A stream ends by itself after ten minutes.
    if (!error && frames && !draining) continue;
    const wait_s = error?.retryAfterS ?? PAUSES_S[Math.min(attempt, PAUSES_S.length - 1)];
    attempt += 1;
    say({ phase: draining ? "draining" : error?.kind === "refused" ? "refused" : "reconnecting", error, again_s: now_s() + wait_s });
    await pause(wait_s * 1000, signal);
  }
}

/**
 * The flow as it is now: `{ phase, error, again_s, seen_s, history }`.
 *
 * `phase` is `connecting`, `live`, `reconnecting`, `refused`, `draining`, `key`, `denied`, `missing` or `hidden`. Nothing is
 * asked for while the tab is hidden.
 */
export function useFlow() {
  const [state, setState] = useState({ phase: "connecting", seen_s: null });
  const [, tick] = useState(0);
  const key = useRef(session.key);
  useEffect(() => {
    let stop = null;
    const begin = () => {
      if (stop) return;
      stop = new AbortController();
      const own = stop;
      setState((before) => ({ ...before, phase: "connecting", error: null }));
      watch(own.signal, (said) => !own.signal.aborted && setState((before) => ({ ...before, error: null, again_s: null, ...said })))
        .catch((error) => { if (error.name !== "AbortError") throw error; });
    };
    const end = (phase) => {
      stop?.abort();
      stop = null;
      setState((before) => ({ ...before, phase }));
    };
    const turned = () => (document.hidden ? end("hidden") : begin());
    const signed = () => {
      if (session.key === key.current) return;
      key.current = session.key;
      end("key");
      if (session.key) turned();
    };
    document.addEventListener("visibilitychange", turned);
    const unsubscribe = session.subscribe(signed);
    // What is said of how old the data are goes on while nothing comes.
    const timer = setInterval(() => !document.hidden && tick((n) => n + 1), 1000);
    turned();
    return () => {
      document.removeEventListener("visibilitychange", turned);
      unsubscribe();
      clearInterval(timer);
      stop?.abort();
    };
  }, []);
  const age_s = state.seen_s === null ? null : now_s() - state.seen_s;
  return { ...state, history, age_s, old: state.phase !== "live" || age_s > OLD_S };
}

/** Seconds until another attempt. */
export const secondsUntil = (again_s) => Math.max(0, Math.ceil(again_s - now_s()));
