/** The last ten minutes as small charts. Each says in words what it shows. */

import { html, useEffect, useRef, useState } from "./ui.js";
import { perSecond } from "./flow_words.js";
import { HISTORY_S } from "./flow_rates.js";

/** Charts: series, title, unit, colour, and the least height of its scale. */
const CHARTS = [
  ["goodput", "Answers in time", "/s", "--accent", 1],
  ["refused", "Turned back", "/s", "--bad", 1],
  ["waiting", "Waiting", "", "--dense", 10],
  ["degraded", "Searches with less", "/s", "--warn", 1],
  ["lag", "Event loop late", " ms", "--soft", 10],
];
const HEIGHT = 96;
/** Spans of the time that are shown, in s: the first that holds what is known. */
const SPANS_S = [120, 300, HISTORY_S];

let library = null;
/** The charts' library; loaded when the first is drawn. */
const load = () => (library ??= import("./vendor/uplot.js").then((module) => module.default));

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const shown = (name, n) => (name === "waiting" ? (n === null ? "–" : String(Math.round(n))) : perSecond(n));

/** The first and the last moment shown. */
function span(chart) {
  const times = chart.data[0], end = times.at(-1) ?? 0;
  return [end - (SPANS_S.find((seconds) => end - (times[0] ?? end) <= seconds) ?? HISTORY_S), end];
}

function options(name, unit, ink, floor, width, onHover) {
  const soft = () => colour("--soft");
  const grid = { stroke: () => colour("--line"), width: 1 };
  return {
    width, height: HEIGHT, padding: [8, 4, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: "penstock.flow" }, points: { size: 7, fill: () => colour(ink) } },
    scales: {
      x: { time: false, range: span },
      y: { range: (_chart, _low, high) => [0, Math.max(floor, (high ?? 0) * 1.15)] },
    },
    axes: [
      { stroke: soft, grid: { show: false }, ticks: { show: false }, size: 20, gap: 2, font: "11px system-ui, sans-serif",
        splits: (chart) => { const [begin, end] = span(chart); return [0.2, 0.4, 0.6, 0.8].map((part) => end - (1 - part) * (end - begin)); },
        values: (chart, marks) => { const [begin, end] = span(chart); return marks.map((at) => (end - begin < HISTORY_S ? `−${Math.round(end - at)} s` : `−${Math.round((end - at) / 60)} min`)); } },
      { stroke: soft, grid, ticks: { show: false }, size: 38, gap: 4, font: "11px system-ui, sans-serif", space: 30, values: (_chart, marks) => marks.map((n) => (n >= 1000 ? `${n / 1000}k` : String(Number(n.toFixed(1))))) },
    ],
    series: [{}, { stroke: () => colour(ink), width: 1.5, fill: () => `color-mix(in srgb, ${colour(ink)} 14%, transparent)`, points: { show: false }, spanGaps: false }],
    hooks: { setCursor: [(chart) => onHover(chart.cursor.idx ?? null)] },
  };
}

function Chart({ name, title, unit, ink, floor, history, stamp }) {
  const place = useRef(null), chart = useRef(null);
  const [hover, setHover] = useState(null);
  const data = () => [history.at, history[name]];
  useEffect(() => {
    let gone = false;
    const sizes = new ResizeObserver(() => chart.current?.setSize({ width: place.current.clientWidth, height: HEIGHT }));
    load().then((uPlot) => {
      if (gone) return;
      chart.current = new uPlot(options(name, unit, ink, floor, place.current.clientWidth, setHover), data(), place.current);
      sizes.observe(place.current);
    });
    return () => { gone = true; sizes.disconnect(); chart.current?.destroy(); chart.current = null; };
  }, []);
  useEffect(() => { chart.current?.setData(data()); }, [stamp]);
  const known = history[name].filter((n) => n !== null);
  const most = known.length ? Math.max(...known) : null;
  const pointed = hover !== null && history.at[hover] !== undefined;
  const says = pointed ? `${Math.round(history.at.at(-1) - history.at[hover])} s ago ${shown(name, history[name][hover])}${unit}`
    : `now ${shown(name, history[name].at(-1) ?? null)}${unit}, most ${shown(name, most)}${unit}`;
  return html`<figure class="chart">
    <figcaption><span class="chart-title">${title}</span> <span class="num soft">${says}</span></figcaption>
    <div ref=${place} class="plot" aria-hidden="true"></div>
  </figure>`;
}

/** All charts; `stamp` changes with each frame. */
export const Charts = ({ history, stamp }) => html`<section class="charts" aria-labelledby="charts-title">
  <h2 id="charts-title">The last ten minutes</h2>
  <div class="chart-grid">${CHARTS.map(([name, title, unit, ink, floor]) => html`<${Chart} key=${name} ...${{ name, title, unit, ink, floor, history, stamp }} />`)}</div>
</section>`;
