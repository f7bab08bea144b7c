/**
 * Rates between the frames of the flow, and the last ten minutes of them. Nothing here draws or asks.
 *
 * Counts are since the server's start. Two frames make rates; a count that went back makes none, so a restart is never
 * seen as a negative number. What is not known is `null`, never 0.
 */

/** The history reaches so far back. */
export const HISTORY_S = 600;
/** Two frames that lie further apart make no rates: the mean of what was not seen says nothing about now. */
const APART_S_MAX = 5;
/** Refusals are remembered for so long after the last one, so that what is read does not flicker. */
export const RECENT_S = 10;

/** Series of the history. */
export const SERIES = ["goodput", "refused", "waiting", "degraded", "lag"];

const rate = (before, after, seconds) => (before === undefined || after === undefined || after < before ? null : (after - before) / seconds);

function eachRate(before = {}, after = {}, seconds) {
  const found = {};
  for (const [name, number] of Object.entries(after)) {
    const perSecond = rate(before[name] ?? 0, number, seconds);
    if (perSecond) found[name] = perSecond;
  }
  return found;
}

/** The sum of rates by name. */
export const total = (byName) => Object.values(byName).reduce((sum, one) => sum + one, 0);

/**
 * Rates a second between two frames; `null` where another process gave the second, or too much time lies between them.
 */
export function ratesBetween(before, after) {
  const seconds = before ? after.uptime_s - before.uptime_s : 0;
  if (seconds <= 0 || seconds > APART_S_MAX) return null;
  const was = before.traffic, now = after.traffic;
  const topics = {};
  for (const topic of after.topics) {
    const old = before.topics.find((one) => one.name === topic.name);
    if (!old) continue;
    const dropped = (one) => one.expired + one.discarded;
    topics[topic.name] = {
      offered: rate(old.offered, topic.offered, seconds),
      answered: rate(old.answered, topic.answered, seconds),
      failed: rate(old.failed, topic.failed, seconds),
      dropped: rate(dropped(old), dropped(topic), seconds),
      refused: eachRate(old.refused, topic.refused, seconds),
    };
  }
  const clients = {};
  for (const client of after.clients) {
    const old = before.clients.find((one) => one.client === client.client);
    if (old) clients[client.client] = { requests: rate(old.requests, client.requests, seconds), refused: rate(old.refused, client.refused, seconds) };
  }
  const { none: _none, ...degraded } = eachRate(was.degraded, now.degraded, seconds);
  return {
    seconds, topics, clients, degraded,
    goodput: rate(was.in_time, now.in_time, seconds),
    tooLate: rate(was.too_late, now.too_late, seconds),
    gone: rate(was.client_gone, now.client_gone, seconds),
    cutOff: rate(was.cut_off, now.cut_off, seconds),
    refused: eachRate(was.refused, now.refused, seconds),
    requests: rate(before.requests, after.requests, seconds),
    requestsRefused: rate(before.requests_refused, after.requests_refused, seconds),
  };
}

/** Messages that wait, in all topics. */
export const waiting = (frame) => frame.topics.reduce((sum, topic) => sum + topic.waiting, 0);

/** The last ten minutes, a point a second; `null` in a series is a gap. It outlives the view. */
export class History {
  constructor() {
    this.frame = null;
    this.rates = null;
    this.at = [];
    for (const name of SERIES) this[name] = [];
    /** When each reason for a refusal was last seen, in s of the server's time. */
    this.refusedAt = new Map();
  }

  /** Take in a frame. */
  take(frame) {
    const before = this.frame, at = Date.parse(frame.at) / 1000;
    this.rates = ratesBetween(before, frame);
    this.frame = frame;
    const last = this.at.at(-1);
    // The server's clock was set back, or it is another server: what was before cannot stand beside this.
    if (last !== undefined && at < last - 1) { this.at.length = 0; for (const name of SERIES) this[name].length = 0; }
    else if (last !== undefined && !this.rates) this.#push(Math.max(last, at - 1) + 0.001, null);
    this.#push(at, {
      goodput: this.rates?.goodput ?? null,
      refused: this.rates ? total(this.rates.refused) : null,
      degraded: this.rates ? total(this.rates.degraded) : null,
      waiting: waiting(frame),
      lag: frame.loop_lag_ms,
    });
    for (const reason of Object.keys(this.rates?.refused ?? {})) this.refusedAt.set(reason, at);
    while (this.at.length && this.at[0] < at - HISTORY_S) { this.at.shift(); for (const name of SERIES) this[name].shift(); }
  }

  #push(at, point) {
    this.at.push(at);
    for (const name of SERIES) this[name].push(point ? point[name] : null);
  }

  /** Reasons for which requests were refused in the last seconds. */
  recentReasons() {
    const now = this.at.at(-1) ?? 0;
    return [...this.refusedAt].filter(([, at]) => now - at <= RECENT_S && at <= now).map(([reason]) => reason);
  }
}
