"""What was measured of searching, as figures, as a table of peers and as a plot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import drawing
from bench.report import Figure, median, percentile

RATIO_GOAL: Final = 0.8
P99_GOAL_MS: Final = 50.0
START_GOAL_S: Final = 2.0
OPEN: Final = "open loop at 0.7 C"
#: The bare engine in its two states; the faster one is what ours is held against.
BARE: Final = ("engine", "engine-optimised")


@dataclass(frozen=True, slots=True)
class Speed:
    """One measurement: searches a second, and each one's latency where it is known."""

    rate: float
    latencies_ms: list[float]
    degraded: int
    refused: int


@dataclass(frozen=True, slots=True)
class Results:
    """Everything measured in one run.

    Attributes:
        chunks: Size of the corpus.
        starts_s: Seconds from start to ready, warm model.
        speeds: By system, a measurement a round.
        recalls: Recall@10 against exact search, by system and kind.
        absent: Peers that were left out, and why.
        shares: Processor time of one search by process, in milliseconds.
    """

    chunks: int
    starts_s: list[float]
    speeds: dict[str, list[Speed]]
    recalls: dict[str, dict[str, float]]
    absent: dict[str, str]
    shares: dict[str, float]

    def rate(self, name: str) -> float:
        """Return a system's median rate; 0 where it was not measured."""
        found = self.speeds.get(name, [])
        return median([one.rate for one in found]) if found else 0.0

    def latency_ms(self, name: str, share: float) -> float:
        """Return a percentile of the latencies of all rounds."""
        return percentile([value for one in self.speeds[name] for value in one.latencies_ms], share)

    def ratio(self, ours: str, theirs: str) -> float:
        """Return the median of the rounds' ratios; 0 where one of them was not measured."""
        pairs = zip(self.speeds.get(ours, []), self.speeds.get(theirs, []), strict=False)
        found = [one.rate / other.rate for one, other in pairs]
        return median(found) if found else 0.0

    def figures(self) -> list[Figure]:
        """Return the figures, beside their goals where there are some."""
        return [*self._start(), *self._ours(), *self._against(), *self._open(), *self._shares()]

    def _start(self) -> Iterator[Figure]:
        yield Figure("chunks", self.chunks, "chunks")
        ready_s = median(self.starts_s)
        yield Figure("start to ready, warm model", ready_s, "s", f"< {START_GOAL_S:g} s", met=ready_s < START_GOAL_S)

    def _ours(self) -> Iterator[Figure]:
        for name in self.speeds:
            if name.startswith(("http", "in process")):
                yield Figure(name, self.rate(name), "1/s")
                yield Figure("  p50", self.latency_ms(name, 0.5), "ms")
                if (degraded := sum(one.degraded for one in self.speeds[name])) > 0:
                    count = sum(len(one.latencies_ms) for one in self.speeds[name])
                    yield Figure("  degraded", 100 * degraded / count, "%")
        for kind, value in self.recalls["penstock"].items():
            yield Figure(f"recall@10, {kind}", value, "")

    def _against(self) -> Iterator[Figure]:
        """Ours against the bare engine in a batch loop, round by round, with the vectors ready and with embedding."""
        goal = f"≥ {RATIO_GOAL:g}"
        for regime, words in (("warm", "vectors ready"), ("fresh", "with embedding")):
            for shape in ("hybrid", "default"):
                theirs = {name: self._bare(name, regime, shape) for name in BARE}
                best = max(theirs.values(), key=self.rate)
                if not self.rate(best):
                    continue
                for way in ("http", "in process"):
                    ours = f"{way}, {shape}, {regime}, 16"
                    if ours in self.speeds:
                        value = self.ratio(ours, best)
                        met = value >= RATIO_GOAL if way == "http" else None
                        text = f"{way}, {shape} / bare engine, {words}"
                        yield Figure(text, value, "×", goal if way == "http" else "", met)

    @staticmethod
    def _bare(name: str, regime: str, shape: str) -> str:
        return f"{name}, hybrid, batch" if regime == "warm" else f"{name}, embedding, {shape}"

    def _open(self) -> Iterator[Figure]:
        if OPEN in self.speeds:
            p99_ms = self.latency_ms(OPEN, 0.99)
            yield Figure(f"{OPEN}, p50", self.latency_ms(OPEN, 0.5), "ms")
            yield Figure(f"{OPEN}, p99", p99_ms, "ms", f"< {P99_GOAL_MS:g} ms", met=p99_ms < P99_GOAL_MS)
            degraded = sum(one.degraded for one in self.speeds[OPEN])
            yield Figure("  degraded", degraded, "searches")

    def _shares(self) -> Iterator[Figure]:
        for role, value in self.shares.items():
            yield Figure(f"processor, {role}", value, "ms/search")

    def peers(self) -> dict[str, Any]:
        """Return the same of every other system."""
        found: dict[str, Any] = {name: {"left out": why} for name, why in self.absent.items()}
        for name in self.speeds:
            peer, _, what = name.partition(", ")
            if peer not in ("http", "in process") and name != OPEN:
                found.setdefault(peer, {})[f"{what}, 1/s"] = round(self.rate(name), 1)
        for name, kinds in self.recalls.items():
            if name != "penstock":
                found[name] |= {f"recall@10, {kind}": round(value, 4) for kind, value in kinds.items()}
        return found

    def plain(self) -> dict[str, Any]:
        """Return everything but the single latencies."""
        return {
            "chunks": self.chunks,
            "starts_s": self.starts_s,
            "rates": {name: [one.rate for one in found] for name, found in self.speeds.items()},
            "latency_ms": {
                name: {f"p{share}": self.latency_ms(name, share / 100) for share in (50, 90, 99)}
                for name, found in self.speeds.items()
                if len(found[0].latencies_ms) > 1
            },
            "recall@10": self.recalls,
            "processor_ms": self.shares,
        }


def draw(results: Results, out: Path) -> None:
    """Draw searches a second of everybody, recall@10 written beside."""
    wanted = {
        "penstock, HTTP, default": ("http, default, warm, 16", "penstock", "hybrid"),
        "penstock, HTTP, rank fusion only": ("http, hybrid, warm, 16", "penstock", "hybrid"),
        "penstock, in process, rank fusion only": ("in process, hybrid, warm, 16", "penstock", "hybrid"),
    }
    for name, kinds in results.recalls.items():
        for kind in kinds if name != "penstock" else ():
            batch = f"{name}, {kind}, batch"
            wanted[f"{name}, {kind}"] = (batch if batch in results.speeds else f"{name}, {kind}, alone", name, kind)
    rows = [(label, results.rate(key), results.recalls[name][kind]) for label, (key, name, kind) in wanted.items()]
    rows = sorted((row for row in rows if row[1]), key=lambda row: row[1])

    def plot(pyplot: Any) -> Any:
        figure, axis = pyplot.subplots(figsize=(9, 0.4 * len(rows) + 1.2))
        colours = [drawing.OURS if row[0].startswith("penstock") else drawing.THEIRS for row in rows]
        bars = axis.barh([row[0] for row in rows], [row[1] for row in rows], color=colours)
        words = [f" {rate:.0f}/s" + ("" if "default" in label else f", recall@10 {r:.3f}") for label, rate, r in rows]
        axis.bar_label(bars, words)
        axis.set_xscale("log")
        axis.set_xlim(right=max(row[1] for row in rows) * 8)
        axis.set_xlabel(f"searches a second, {results.chunks} chunks, vectors ready")
        return figure

    drawing.save(out / "search.svg", plot)
