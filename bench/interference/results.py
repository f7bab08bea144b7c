"""What the searches saw, phase by phase, as figures and as a plot."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import drawing
from bench.report import Figure, median, percentile

GOAL: Final = 2.0
IDLE: Final = "idle"
INDEXING: Final = "indexing"
BEFORE: Final = "idle, not optimised"
OPTIMISING: Final = "optimising"
#: What each phase is held against.
BASES: Final = {INDEXING: IDLE, OPTIMISING: BEFORE}


@dataclass(slots=True)
class Seen:
    """What the searches of one phase saw, all rounds together."""

    latencies_ms: list[float] = field(default_factory=list)
    rounds_p99_ms: list[float] = field(default_factory=list)
    degraded: int = 0
    refused: int = 0

    def add(self, latencies_ms: list[float], told: dict[str, Any]) -> None:
        """Add what a stretch of a phase saw."""
        self.latencies_ms += latencies_ms
        self.degraded += told["degraded"]
        self.refused += told["refused"]


@dataclass(slots=True)
class Results:
    """Everything measured.

    Attributes:
        rate: Searches a second.
        chunks: Size of the collection.
        phases: What was seen, by phase.
        beside: Chunks a second indexed beside the searches, a value a round.
        alone: The same without searches.
    """

    rate: float
    chunks: int = 0
    phases: dict[str, Seen] = field(default_factory=dict)
    beside: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        """Return the figures, beside their goals where there are some."""
        found = [Figure("searches a second", self.rate, "1/s")]
        for phase, seen in self.phases.items():
            p99_ms = self._percentile(phase, 0.99)
            found += [
                Figure(f"{phase}, p50", self._percentile(phase, 0.5), "ms"),
                Figure(f"{phase}, p99", p99_ms, "ms"),
                Figure("  worst", max(seen.latencies_ms), "ms"),
                Figure("  degraded", seen.degraded, "searches"),
                Figure("  refused", seen.refused, "searches"),
            ]
            if (base := BASES.get(phase)) is not None:
                ratio = p99_ms / self._percentile(base, 0.99)
                found.append(Figure(f"{phase}, p99 / {base}, p99", ratio, "×", f"≤ {GOAL:g}", met=ratio <= GOAL))
        for name, rates in (("indexing beside searches", self.beside), ("indexing alone", self.alone)):
            if rates:
                found.append(Figure(name, median(rates), "chunks/s"))
        return found

    def plain(self) -> dict[str, Any]:
        """Return everything, latencies as percentiles."""
        shares = (10, 25, 50, 75, 90, 95, 98, 99, 99.5)
        return {
            "rate": self.rate,
            "phases": {
                phase: {
                    "searches": len(seen.latencies_ms),
                    "rounds_p99_ms": seen.rounds_p99_ms,
                    **{f"p{share:g}_ms": self._percentile(phase, share / 100) for share in shares},
                }
                for phase, seen in self.phases.items()
            },
            "indexing": {"beside": self.beside, "alone": self.alone},
        }

    def _percentile(self, phase: str, share: float) -> float:
        return percentile(self.phases[phase].latencies_ms, share)


def draw(results: Results, out: Path) -> None:
    """Draw the share of searches that took longer, by phase."""

    def plot(pyplot: Any) -> Any:
        figure, axis = pyplot.subplots(figsize=(8, 3.6))
        for (phase, seen), colour in zip(results.phases.items(), (drawing.THEIRS, *drawing.PALETTE), strict=False):
            ordered = sorted(seen.latencies_ms)
            left = [1 - place / len(ordered) for place in range(len(ordered))]
            axis.plot(ordered, left, label=phase, color=colour, linewidth=2)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("ms from the scheduled send")
        axis.set_ylabel("share of searches slower")
        axis.legend(frameon=False)
        return figure

    drawing.save(out / "interference.svg", plot)
