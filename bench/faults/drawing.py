"""The plot of the fault benchmark: what became of each second's requests, fault after fault."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench import drawing
from bench.faults.results import Run

#: Answered, refused, no other end: in which colours.
ENDS: Final = (("answered", "#2e7d32"), ("refused", "#ef8f00"), ("not reached, or lost", "#c2185b"))


def draw(runs: Sequence[Run], out: Path) -> None:
    """Draw ``faults.svg``: a row for each layout; from each blow to its mending the ground is grey."""
    drawing.save(out / "faults.svg", lambda pyplot: _plot(pyplot, runs))


def _plot(pyplot: Any, runs: Sequence[Run]) -> Any:
    figure, rows = pyplot.subplots(len(runs), 1, figsize=(10, 2.8 * len(runs)), sharex=True, squeeze=False)
    for (axes,), run in zip(rows, runs, strict=True):
        _row(axes, run)
    rows[0][0].legend(loc="upper right", ncols=len(ENDS), frameon=False, bbox_to_anchor=(1.0, 1.28))
    rows[-1][0].set_xlabel("seconds")
    return figure


def _row(axes: Any, run: Run) -> None:
    seconds, ground = range(len(run.course)), [0] * len(run.course)
    for kind, (label, colour) in enumerate(ENDS):
        counts = [one[kind] for one in run.course]
        top = [below + count for below, count in zip(ground, counts, strict=True)]
        axes.fill_between(seconds, ground, top, step="post", color=colour, linewidth=0, label=label)
        ground = top
    most = max(ground, default=1)
    for number, phase in enumerate(run.phases):
        axes.axvspan(phase.began_s, phase.mended_s, color="#dddddd", zorder=0)
        axes.axvline(phase.began_s, color="black", linewidth=0.8)
        axes.text(phase.began_s + 0.5, most * (1.04 + 0.12 * (number % 2)), phase.name, fontsize=8)
    axes.set_ylim(0, most * 1.28)
    axes.set_xlim(0, len(run.course))
    axes.set_title(run.layout, loc="left", pad=14)
    axes.set_ylabel("requests ended")
