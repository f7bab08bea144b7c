"""What the callers saw, as figures and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from bench import drawing
from bench.distributed.system import Burst
from bench.report import Figure, median

GOAL: Final = 0.7
SCALE_GOAL: Final = 0.9
OURS, BARE = "ours", "bare"
#: What stands beside ours.
PEERS: Final = {
    "memory": "asyncio.Queue + Future + timeout",
    "redis": "redis-py, XADD/XREADGROUP",
    "kafka": "aiokafka, producer/consumer",
}


class Pair(msgspec.Struct, frozen=True):
    """Ours and the bare client in turns, with so many callers.

    Attributes:
        carrier: ``memory``, ``redis`` or ``kafka``.
        callers: How many ask at once.
        ours: A burst for each round.
        bare: The same.
    """

    carrier: str
    callers: int
    ours: list[Burst] = []
    bare: list[Burst] = []

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median([one.rate / other.rate for one, other in zip(self.ours, self.bare, strict=True)])

    def figures(self) -> list[Figure]:
        """Return rates and latencies, ours beside the bare client's."""
        name = f"{self.carrier}, {self.callers} caller{'s' * (self.callers > 1)}"
        found = [
            Figure(f"{name}: requests", median([one.rate for one in self.ours]), "1/s"),
            Figure("  of the bare client", median([one.rate for one in self.bare]), "1/s"),
            Figure("  ratio", self.ratio, "×", f"≥ {GOAL:g}", self.ratio >= GOAL),
        ]
        for share in ("p50_ms", "p99_ms"):
            for which, bursts in (("", self.ours), (", bare client", self.bare)):
                value = median([getattr(one, share) for one in bursts])
                found.append(Figure(f"  {share[:3]}{which}", value, "ms"))
        return found


class Crowd(msgspec.Struct, frozen=True):
    """So many worker processes whose work only waits.

    Attributes:
        carrier: ``redis`` or ``kafka``.
        workers: How many.
        ideal: Requests a second that their slots allow.
        bursts: A burst for each round.
        shares: Of the last burst, what each worker handled.
    """

    carrier: str
    workers: int
    ideal: float
    bursts: list[Burst]
    shares: list[int]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return median([one.rate for one in self.bursts])

    def figures(self) -> list[Figure]:
        """Return the rate, and how much of what their slots allow that is."""
        name = f"{self.carrier}, {self.workers} worker{'s' * (self.workers > 1)} that wait"
        share = self.rate / self.ideal
        return [
            Figure(name, self.rate, "1/s"),
            Figure("  of what their slots allow", share, "×", f"≥ {SCALE_GOAL:g}", share >= SCALE_GOAL),
        ]


class Results(msgspec.Struct):
    """Everything measured.

    Attributes:
        pairs: By carrier and number of callers.
        crowds: By carrier and number of workers.
        lacking: What could not be measured here, and why.
    """

    pairs: list[Pair] = []
    crowds: list[Crowd] = []
    lacking: dict[str, str] = {}

    def figures(self) -> list[Figure]:
        """Return the figures, beside their goals where there are some."""
        return [figure for one in (*self.pairs, *self.crowds) for figure in one.figures()]

    def peers(self) -> dict[str, Any]:
        """Return who stood beside ours, and what was not there."""
        measured = {pair.carrier for pair in self.pairs}
        found: dict[str, Any] = {carrier: name for carrier, name in PEERS.items() if carrier in measured}
        return found | ({"not measured": self.lacking} if self.lacking else {})


def draw(results: Results, out: Path) -> None:
    """Draw rates beside the bare clients', and rates by number of workers."""

    def plot(pyplot: Any) -> Any:
        carriers = list(dict.fromkeys(pair.carrier for pair in results.pairs))
        figure, axes = pyplot.subplots(1, len(carriers) + 1, figsize=(3 * (len(carriers) + 1), 2.8))
        for axis, carrier in zip(axes, carriers, strict=False):
            _rates(axis, carrier, [pair for pair in results.pairs if pair.carrier == carrier])
        _scaling(axes[-1], results.crowds)
        figure.tight_layout()
        return figure

    drawing.save(out / "distributed.svg", plot)


def _rates(axis: Any, carrier: str, pairs: list[Pair]) -> None:
    for offset, which, colour in ((-0.2, BARE, drawing.THEIRS), (0.2, OURS, drawing.OURS)):
        rates = [median([one.rate for one in getattr(pair, which)]) for pair in pairs]
        bars = axis.bar([place + offset for place in range(len(pairs))], rates, 0.38, color=colour, label=which)
        axis.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=2, fontsize=7)
    axis.set_xticks(range(len(pairs)), [str(pair.callers) for pair in pairs])
    axis.set_xlabel("callers")
    axis.set_title(f"{carrier}: requests/s")
    axis.grid(visible=False, axis="x")
    axis.margins(y=0.15)
    axis.legend(frameon=False, fontsize=7, loc="upper left")


def _scaling(axis: Any, crowds: list[Crowd]) -> None:
    for carrier, colour in zip(("redis", "kafka"), drawing.PALETTE, strict=False):
        mine = [one for one in crowds if one.carrier == carrier]
        axis.plot([one.workers for one in mine], [one.rate for one in mine], "o-", color=colour, label=carrier)
    most = {one.workers: one.ideal for one in crowds}
    axis.plot(list(most), list(most.values()), ":", color=drawing.THEIRS, label="what the slots allow")
    axis.set_xticks(list(most))
    axis.set_ylim(bottom=0)
    axis.set_xlabel("worker processes")
    axis.set_title("work that waits: requests/s")
    axis.legend(frameon=False, fontsize=7)
