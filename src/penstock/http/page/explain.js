/** How a hit came to its place, drawn: its rank at each stage, among those of the other hits. */

import { html } from "./ui.js";

/** Stages in their order, with their names and what they look at. */
const STAGES = [
  ["dense", "Dense", "nearness of meaning"],
  ["sparse", "Sparse", "words in common (BM25 or a learned model)"],
  ["fusion", "Fused", "both rankings as one"],
  ["rerank", "Exact", "exact scores of the candidates"],
  ["late", "Tokens", "token vectors, word by word"],
  ["signals", "Signals", "definitions above uses, exact names"],
];

const WIDTH = 560, HEIGHT = 170, TOP = 34, LOW = HEIGHT - 14;

const score = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3));

/** The stages that found a hit: each rank it has. */
const found = (explain) => Object.fromEntries(Object.entries(explain).filter(([, stage]) => stage.rank !== null));

/** A stage's x and a rank's y: the first ranks lie far apart, the last ones close together. */
function scales(stages, ranks) {
  const most = Math.log2(Math.max(8, ...ranks) + 1);
  const step = (WIDTH - 90) / Math.max(1, stages.length - 1);
  return [(i) => 45 + i * step, (rank) => TOP + (Math.log2(rank) / most) * (LOW - TOP)];
}

/** A hit's way: both arms flow into the fusion, and from there it goes on. */
function way(explain, stages, x, y) {
  const curve = (from, to) => {
    const [ax, ay, bx, by] = [x(stages.indexOf(from)), y(explain[from].rank), x(stages.indexOf(to)), y(explain[to].rank)];
    return `M${ax} ${ay}C${(ax + bx) / 2} ${ay} ${(ax + bx) / 2} ${by} ${bx} ${by}`;
  };
  const there = stages.filter((stage) => explain[stage]);
  const after = there.filter((stage) => stage !== "dense" && stage !== "sparse");
  const steps = ["dense", "sparse"].filter((arm) => explain[arm] && after.length).map((arm) => [arm, curve(arm, after[0])]);
  return steps.concat(after.slice(1).map((stage, i) => ["on", curve(after[i], stage)]));
}

export function Explain({ hit, hits }) {
  const ranked = new Map(hits.filter((one) => one.explain).map((one) => [one, found(one.explain)]));
  const stages = STAGES.map(([key]) => key).filter((key) => [...ranked.values()].some((one) => one[key]));
  const own = ranked.get(hit);
  const ranks = [...ranked.values()].flatMap((one) => Object.values(one).map((stage) => stage.rank));
  const [x, y] = scales(stages, ranks);
  return html`<div class="explain">
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
      ${stages.map((stage, i) => html`<g key=${stage}><line class="axis" x1=${x(i)} x2=${x(i)} y1=${TOP - 6} y2=${LOW} />
        <text class="axis-name" x=${x(i)} y="14" text-anchor="middle">${STAGES.find(([key]) => key === stage)[1]}</text></g>`)}
      ${[...ranked].filter(([one]) => one !== hit).map(([, one]) => way(one, stages, x, y).map(([, d]) => html`<path class="other" d=${d} />`))}
      ${way(own, stages, x, y).map(([kind, d]) => html`<path class=${`own ${kind}`} d=${d} />`)}
      ${stages.map((stage, i) => own[stage] && html`<g key=${stage}><circle class=${`dot ${stage}`} cx=${x(i)} cy=${y(own[stage].rank)} r="11" />
        <text class="rank" x=${x(i)} y=${y(own[stage].rank) + 4} text-anchor="middle">${own[stage].rank}</text></g>`)}
    </svg>
    <table><caption class="hidden">Rank and score of this hit at each stage</caption>
      <thead><tr><th scope="col">Stage</th><th scope="col" class="right">Rank</th><th scope="col" class="right">Score</th><th scope="col">It looks at</th></tr></thead>
      <tbody>${STAGES.filter(([key]) => stages.includes(key)).map(([key, name, says]) => html`<tr key=${key}><th scope="row"><i class=${`dot ${key}`}></i>${name}</th>
        <td class="right num">${own[key]?.rank ?? "–"}</td><td class="right num">${own[key] ? score(own[key].score) : "not found"}</td><td class="soft">${says}</td></tr>`)}</tbody></table>
  </div>`;
}
