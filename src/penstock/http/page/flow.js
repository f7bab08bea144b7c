/** The flow, live: what comes, what is turned back, what waits, what works, and what is given up so that answers come. */

import { ago, Countdown, count, duration, html, Notice, some, useEffect, useRef, useState } from "./ui.js";
import { Charts } from "./flow_charts.js";
import { Diagram, Vitals } from "./flow_diagram.js";
import { secondsUntil, useFlow } from "./flow_stream.js";
import { ENDS, perSecond, RUNGS, summary } from "./flow_words.js";

const CLIENTS_MAX = 8;
const CLASSES = { interactive: "Interactive", standard: "Standard", bulk: "Bulk" };

/** Whether what is shown is now, and if not, why. */
function Connection({ flow }) {
  const seen = flow.age_s !== null && flow.age_s > 1.5 ? `, last seen ${duration(flow.age_s * 1000)} ago` : "";
  const again = flow.again_s ? html`, again in <span class="num">${secondsUntil(flow.again_s)} s</span>` : "";
  const [kind, text] = {
    connecting: ["wait", flow.age_s === null ? "Connecting …" : `Connecting${seen} …`],
    live: flow.old ? ["wait", `Late${seen}`] : ["good", "Live"],
    reconnecting: ["bad", html`Reconnecting${seen}${again}`],
    refused: ["wait", html`Refused${seen}${again}`],
    draining: ["wait", html`Shutting down${seen}${again}`],
    key: ["wait", "Signed out"],
    denied: ["bad", "Not allowed"],
    missing: ["bad", "Not there"],
    hidden: ["wait", "Paused"],
  }[flow.phase];
  return html`<p class=${`connection ${kind}`}><i aria-hidden="true"></i>${text}</p>`;
}

/** What stands in the place of the diagram while nothing has been seen. */
function Nothing({ flow }) {
  const detail = flow.error && html`<p>${flow.error.detail}</p>`;
  switch (flow.phase) {
    case "key": return html`<${Notice} kind="wait" title="Sign in to see the flow">${detail}<//>`;
    case "denied": return html`<${Notice} kind="bad" title="This key may not see the flow">${detail}<//>`;
    case "missing": return html`<${Notice} kind="bad" title="This server does not show its flow"><p>It may be of an earlier version.</p><//>`;
    case "refused": return html`<${Notice} kind="wait" title="The server has too much to do just now">${detail}<//>`;
    case "reconnecting": return html`<${Notice} kind="bad" title="The server does not answer">${detail}<p>This page asks again by itself.</p><//>`;
    case "draining": return html`<${Notice} kind="wait" title="The server shuts down"><p>This page asks again by itself.</p><//>`;
    default: return html`<p class="empty">Connecting …</p>`;
  }
}

/** The degradation ladder: a rung for each class, named. */
function Ladder({ ladder }) {
  return html`<section class="card panel ladder" aria-labelledby="ladder-title">
    <h2 id="ladder-title">Quality</h2>
    <p class="soft">Under pressure a search does less before any is refused.</p>
    <ul>${ladder.map((one) => {
      const [, name, without] = RUNGS[one.level];
      return html`<li key=${one.criticality} class=${one.level ? (one.level >= 4 ? "bad" : "warn") : "good"}>
        <h3>${CLASSES[one.criticality] ?? one.criticality}</h3>
        <div class="rungs" aria-hidden="true">${RUNGS.map(([key], i) => html`<i key=${key} class=${i <= one.level ? "on" : ""} title=${RUNGS[i][1]}></i>`)}</div>
        <p><b>${name}</b><span class="soft">: ${without}</span></p></li>`;
    })}</ul>
  </section>`;
}

/** Who asks, with their share of the requests a second. */
function Clients({ frame, rates }) {
  const rows = frame.clients.slice(0, CLIENTS_MAX).map((one) => ({ ...one, now: rates?.clients[one.client] }));
  const named = rows.reduce((sum, one) => sum + (one.now?.requests ?? 0), 0);
  const all = rates?.requests ?? 0;
  const rest = {
    requests: frame.requests - rows.reduce((sum, one) => sum + one.requests, 0),
    now: rates && { requests: Math.max(0, all - named), refused: Math.max(0, (rates.requestsRefused ?? 0) - rows.reduce((sum, one) => sum + (one.now?.refused ?? 0), 0)) },
  };
  const row = (name, title, one) => html`<tr key=${title}><th scope="row" title=${title}>${name}</th>
    <td class="share"><span class="bar" aria-hidden="true"><span style=${{ width: `${all ? (100 * (one.now?.requests ?? 0)) / all : 0}%` }}></span></span></td>
    <td class="right num">${perSecond(one.now?.requests)}</td><td class=${`right num ${one.now?.refused ? "bad" : ""}`}>${perSecond(one.now?.refused)}</td><td class="right num soft">${count(one.requests)}</td></tr>`;
  return html`<section class="card panel clients" aria-labelledby="clients-title">
    <h2 id="clients-title">Who asks</h2>
    ${rows.length === 0 && !rest.requests ? html`<p class="soft">Nothing has been asked since the server has started.</p>`
      : html`<table><thead><tr><th scope="col">Client</th><th scope="col" class="share"><span class="hidden">Share of the requests</span></th><th scope="col" class="right">asked/s</th><th scope="col" class="right">back/s</th><th scope="col" class="right">in all</th></tr></thead>
        <tbody>${rows.map((one) => row(one.name || one.client, one.client, one))}${rest.requests > 0 && row("Others", "others", rest)}</tbody></table>`}
  </section>`;
}

function Alerts({ alerts, reasons }) {
  return html`<section class="card panel alerts" aria-labelledby="alerts-title">
    <h2 id="alerts-title">Alerts</h2>
    ${alerts.length === 0 && reasons.length === 0 ? html`<p class="good"><span aria-hidden="true">✓ </span>None is active.</p>`
      : html`<ul>${reasons.map((text) => html`<li key=${text}><span class="badge bad">not ready</span> ${text}</li>`)}
        ${alerts.map((one) => html`<li key=${one.name + one.subject}><span class=${`badge ${one.severity === "critical" ? "bad" : "warn"}`}>${one.severity}</span> ${one.detail} <span class="soft">${ago(one.since)}</span></li>`)}</ul>`}
  </section>`;
}

/** What is worth an interruption of those who listen: changes of state, never each frame. */
function announcements(flow) {
  const frame = flow.history.frame;
  const said = [];
  if (flow.phase === "reconnecting") said.push("The connection to the server is gone.");
  if (flow.phase === "draining") said.push("The server shuts down.");
  if (!frame || flow.phase !== "live") return said.join(" ");
  const rungs = frame.ladder.filter((one) => one.level).map((one) => `${CLASSES[one.criticality]} searches: ${RUNGS[one.level][1].toLowerCase()}.`);
  const breakers = frame.breakers.filter((one) => one.state !== "closed").map((one) => `${ENDS[one.dependency]?.name ?? one.dependency} does not answer.`);
  const alerts = frame.alerts.map((one) => `Alert ${one.name.replaceAll("_", " ")}${one.subject ? ` for ${one.subject}` : ""}.`);
  const refusing = flow.history.recentReasons().length ? ["Requests are turned back."] : [];
  return [...refusing, ...rungs, ...breakers, ...alerts].join(" ") || "All is well.";
}

function Announcer({ flow }) {
  const text = announcements(flow);
  const first = useRef(true);
  const [said, say] = useState("");
  useEffect(() => {
    // The state in which the page opens is read with the page.
    if (first.current) { first.current = !flow.history.frame; return; }
    say(text);
  }, [text]);
  return html`<p class="hidden" role="status">${said}</p>`;
}

export function Flow() {
  const flow = useFlow();
  const { frame, rates } = flow.history;
  const shown = frame && !["key", "denied", "missing"].includes(flow.phase);
  const recent = flow.history.recentReasons();
  const [mood, sentence] = shown ? summary(frame, rates, recent) : ["calm", ""];
  return html`<div class=${`flow-view ${mood} ${flow.old ? "old" : ""}`}>
    <div class="flow-head"><h1>Flow</h1><${Connection} flow=${flow} />
      ${shown && html`<p class="soft flow-server">Penstock ${frame.version}, up ${duration(frame.uptime_s * 1000)}${frame.viewers > 1 ? html`, ${some(frame.viewers - 1, "other")} watching` : ""}</p>`}</div>
    <${Announcer} flow=${flow} />
    ${!shown ? html`<${Nothing} flow=${flow} />` : html`
      ${flow.phase === "refused" && html`<${Notice} kind="wait" title="The server refused to show more just now"><p>${flow.error?.detail} It is asked again in <${Countdown} seconds=${secondsUntil(flow.again_s)} onEnd=${() => {}} />.</p><//>`}
      <div class="flow-data">
        <p class=${`sentence ${mood}`}><span class="sentence-mark" aria-hidden="true"></span>${sentence}</p>
        <h2 class="hidden">From the gate to the store</h2>
        <${Diagram} frame=${frame} rates=${rates} recent=${recent} />
        <${Vitals} frame=${frame} />
        <div class="panels"><${Ladder} ladder=${frame.ladder} /><${Clients} frame=${frame} rates=${rates} /><${Alerts} alerts=${frame.alerts} reasons=${frame.reasons} /></div>
        <${Charts} history=${flow.history} stamp=${frame.at} />
      </div>`}
  </div>`;
}
