/** The diagram of the flow: gate, topics that fill, pools with their permits, models and store at the end. */

import { bytes, count, html, short, some } from "./ui.js";
import { breakerSays, ENDS, LANES, modelName, perSecond, reasonName } from "./flow_words.js";
import { total } from "./flow_rates.js";

/** A pool of more permits is drawn as a bar. */
const DOTS_MAX = 32;

/** How fast a pipe flows: nothing, a little, much, very much. */
const pace = (n) => (!n ? "" : n < 3 ? "slow" : n < 60 ? "quick" : "fast");

const Pipe = ({ rate, says, red }) => html`<div class=${`pipe ${pace(rate)} ${red ? "red" : ""}`} aria-hidden="true">${says && html`<span class="pipe-says num">${says}</span>`}<i></i></div>`;

const LEVELS = { calm: "", high: "filling", critical: "nearly full" };

function Vessel({ lane, topic, rates }) {
  const fill = topic.capacity ? topic.waiting / topic.capacity : 0;
  const refused = rates ? total(rates.refused) : 0;
  const dropped = rates?.dropped ?? 0;
  const why = Object.entries(rates?.refused ?? {}).sort((a, b) => b[1] - a[1])[0]?.[0];
  const state = topic.level !== "calm" ? LEVELS[topic.level] : topic.congested ? "waits long" : "";
  return html`<div class=${`vessel ${topic.level} ${topic.congested ? "congested" : ""}`}>
    <div class="tank" aria-hidden="true"><div class="water" style=${{ "--fill": topic.waiting ? Math.max(0.03, Math.min(1, fill)) : 0 }}></div><i class="mark"></i></div>
    <div class="vessel-text">
      <h4>${lane.name} <code>${topic.name}</code></h4>
      <p><b class="big num">${count(topic.waiting)}</b> <span class="soft">waiting of ${count(topic.capacity)}</span>
        ${state && html`<span class=${`badge ${topic.level === "critical" ? "bad" : "warn"}`}>${state}</span>`}</p>
      ${refused > 0 && html`<p class="bad back"><span aria-hidden="true">↩ </span>${perSecond(refused)}/s turned back: ${reasonName(why)}</p>`}
      ${dropped > 0 && html`<p class="warn back"><span aria-hidden="true">✕ </span>${perSecond(dropped)}/s came too late</p>`}
      ${topic.blocked > 0 && html`<p class="warn back">${some(topic.blocked, "publisher")} wait for room</p>`}
    </div>
  </div>`;
}

function Pool({ pool }) {
  if (!pool) return html`<div class="pool none"><p class="soft">no permits here</p></div>`;
  const full = pool.active >= pool.limit && pool.limit > 0;
  return html`<div class=${`pool ${full ? "full" : ""}`}>
    ${pool.limit <= DOTS_MAX
      ? html`<div class="permits" aria-hidden="true">${Array.from({ length: pool.limit }, (_, i) => html`<i key=${i} class=${i < pool.active ? "used" : ""}></i>`)}</div>`
      : html`<div class="bar" aria-hidden="true"><span style=${{ width: `${(100 * pool.active) / pool.limit}%` }}></span></div>`}
    <p><b class="num">${count(pool.active)}</b> <span class="soft">of ${some(pool.limit, "permit")} in use</span></p>
  </div>`;
}

/** A switch: closed, it carries what flows; open, it hangs down. */
const Switch = ({ state }) => html`<svg class=${`switch ${state}`} viewBox="0 0 44 20" aria-hidden="true"><path d="M1 10h9M34 10h9" /><circle cx="11" cy="10" r="2.6" /><circle cx="33" cy="10" r="2.6" /><path class="lever" d="M11 10H33" /></svg>`;

function End({ id, breaker, models, spans }) {
  const known = ENDS[id] ?? { name: id, says: "another server" };
  const model = known.part && models.find((one) => one.part === known.part);
  const state = breaker?.state ?? "closed";
  return html`<li class=${`end ${spans ? "spans" : ""} ${state}`}>
    <h4>${known.name}</h4>
    <p class="soft end-says" title=${model ? model.name : ""}>${model ? modelName(model) : known.says}</p>
    ${id !== "chunkers" && html`<p class="breaker"><${Switch} state=${state} /><span class=${state === "closed" ? "good" : state === "open" ? "bad" : "warn"}>${breakerSays(breaker)}</span></p>`}
  </li>`;
}

/** What the gate has turned back, by reason: a second now, and since the start. */
function TurnedBack({ traffic, rates, recent }) {
  const now = rates?.refused ?? {};
  const rows = Object.entries(traffic.refused).sort(([a, x], [b, y]) => (now[b] ?? 0) - (now[a] ?? 0) || y - x);
  const most = Math.max(1, ...Object.values(now));
  const all = total(now);
  return html`<section class=${`back-box ${recent.length ? "on" : ""}`} aria-labelledby="back-title">
    <div class=${`spill ${pace(all)}`} aria-hidden="true"><i></i></div>
    <h3 id="back-title">Turned back <span class=${`num ${all ? "bad" : "soft"}`}>${perSecond(rates ? all : null)}/s</span></h3>
    ${rows.length === 0 ? html`<p class="soft">Nothing since the server has started.</p>`
      : html`<ul>${rows.slice(0, 6).map(([reason, number]) => html`<li key=${reason} class=${now[reason] ? "on" : ""}>
          <span class="reason" title=${reason}>${reasonName(reason)}</span><b class="num">${now[reason] ? `${perSecond(now[reason])}/s` : ""}</b>
          <span class="soft num">${short(number)} in all</span>
          <div class="back-bar" aria-hidden="true"><span style=${{ width: `${(100 * (now[reason] ?? 0)) / most}%` }}></span></div></li>`)}</ul>
        ${rows.length > 6 && html`<p class="soft">and for ${some(rows.length - 6, "other reason")}</p>`}`}
  </section>`;
}

/** What became of the requests of the last second, as parts of a bar. */
function Outcomes({ rates }) {
  const parts = [["good", rates?.goodput], ["warn", (rates?.tooLate ?? 0) + (rates?.gone ?? 0) + (rates?.cutOff ?? 0)], ["bad", rates ? total(rates.refused) : 0]];
  return html`<div class="outcomes" aria-hidden="true">${parts.map(([kind, n]) => html`<span key=${kind} class=${kind} style=${{ flexGrow: n ?? 0 }}></span>`)}</div>`;
}

function Gate({ frame, rates, recent }) {
  const traffic = frame.traffic;
  const inFlight = Math.max(0, traffic.in_flight - frame.viewers);
  return html`<section class="gate" aria-labelledby="gate-title">
    <h3 id="gate-title" class="column-title">Gate <span class="soft">takes or refuses, at once</span></h3>
    <div class="gate-box">
      <p class="gate-rate"><b class="huge num">${perSecond(rates?.goodput)}</b><span>answers a second, in time</span></p>
      <${Outcomes} rates=${rates} />
      <dl>
        <div><dt>requests a second</dt><dd class="num">${perSecond(rates?.requests)}</dd></div>
        <div><dt>in flight</dt><dd class="num">${count(inFlight)}</dd></div>
        <div class=${rates && total(rates.degraded) ? "warn" : ""}><dt>served with less</dt><dd class="num">${perSecond(rates ? total(rates.degraded) : null)}/s</dd></div>
        <div class=${rates?.tooLate ? "warn" : ""}><dt>too late</dt><dd class="num">${perSecond(rates?.tooLate)}/s</dd></div>
        <div class=${rates?.gone ? "warn" : ""}><dt>client gone</dt><dd class="num">${perSecond(rates?.gone)}/s</dd></div>
        ${traffic.cut_off > 0 && html`<div class=${rates?.cutOff ? "warn" : ""}><dt>did not read</dt><dd class="num">${perSecond(rates?.cutOff)}/s</dd></div>`}
      </dl>
      <${TurnedBack} traffic=${traffic} rates=${rates} recent=${recent} />
    </div>
  </section>`;
}

/** Gate, lanes and ends, from left to right; on a narrow screen from top to bottom. */
export function Diagram({ frame, rates, recent }) {
  const lanes = LANES.concat(frame.topics.filter((one) => !LANES.some((lane) => lane.topic === one.name)).map((one) => ({ topic: one.name, name: one.name })))
    .filter((lane) => frame.topics.some((one) => one.name === lane.topic));
  const pool = (lane) => frame.pools.find((one) => one.name === lane.pool);
  const ends = [...new Set(lanes.map((lane) => lane.end).filter(Boolean))];
  const others = frame.breakers.map((one) => one.dependency).filter((name) => !ends.includes(name));
  const breaker = (id) => frame.breakers.find((one) => one.dependency === id);
  return html`<div class="river">
    <${Gate} frame=${frame} rates=${rates} recent=${recent} />
    <section class="lanes" aria-labelledby="lanes-title">
      <h3 id="lanes-title" class="column-title lane-title">Topics <span class="soft">the only place where work waits</span></h3>
      <p class="column-title pool-title" aria-hidden="true">Pools <span class="soft">permits to work</span></p>
      <ol>${lanes.map((lane) => {
        const topic = frame.topics.find((one) => one.name === lane.topic), flow = rates?.topics[lane.topic], its = pool(lane);
        return html`<li key=${lane.topic} class="lane">
          <${Pipe} rate=${flow?.offered} says=${flow ? `${perSecond(flow.offered)}/s` : ""} />
          <${Vessel} lane=${lane} topic=${topic} rates=${flow} />
          <${Pipe} rate=${its?.active || flow?.answered} />
          <${Pool} pool=${its} />
          <${Pipe} rate=${flow?.answered} says=${flow ? `${perSecond(flow.answered)}/s` : ""} />
        </li>`;
      })}</ol>
    </section>
    <section class="ends" aria-labelledby="ends-title">
      <h3 id="ends-title" class="column-title">Models and store <span class="soft">do the work</span></h3>
      <ul>${ends.map((id) => html`<${End} key=${id} id=${id} breaker=${breaker(id)} models=${frame.models} spans=${lanes.filter((one) => one.end === id).length > 1} />`)}
        ${others.map((id) => html`<${End} key=${id} id=${id} breaker=${breaker(id)} models=${frame.models} />`)}</ul>
    </section>
  </div>`;
}

/** Memory, event loop and caches. */
export function Vitals({ frame }) {
  const memory = frame.memory;
  const share = memory ? memory.used_bytes / memory.limit_bytes : 0;
  const late = frame.loop_lag_ms;
  return html`<dl class="vitals">
    <div><dt>Event loop</dt><dd class=${`num ${late >= 100 ? "warn" : ""}`}>${late < 10 ? late.toFixed(1) : late.toFixed(0)} ms late</dd></div>
    ${memory && html`<div><dt>Memory</dt><dd class=${`num ${memory.level === "calm" ? "" : "warn"}`}>${bytes(memory.used_bytes)} of ${bytes(memory.limit_bytes)}
      <span class="bar" aria-hidden="true"><span style=${{ width: `${Math.min(100, 100 * share)}%` }}></span></span></dd></div>`}
    <div><dt>Tasks, threads</dt><dd class="num">${count(frame.process.tasks)}, ${count(frame.process.threads)}</dd></div>
  </dl>`;
}
