"""The curves of the storm: ``python -m bench.storm.drawing storm.json DIR`` draws again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench import drawing
from bench.storm import plan
from bench.storm.accounting import Summary
from bench.storm.results import GOAL_LOADS, GOODPUT_GOAL, REFUSAL_GOAL_MS, TOLD_GOAL, Results, read

#: Label, system, kept connections, style. Ours strong, on new connections the same colour in dashes.
LINES: Final[tuple[tuple[str, str, bool, dict[str, Any]], ...]] = (
    ("penstock", plan.OURS, True, {"color": drawing.OURS, "linewidth": 2.8, "marker": "o", "zorder": 5}),
    (
        "penstock, new connections",
        plan.OURS,
        False,
        {"color": drawing.OURS, "linewidth": 1.8, "linestyle": (0, (4, 2)), "marker": "o", "markersize": 4},
    ),
    ("semaphore of 64", "semaphore", True, {"color": "#1565c0", "linewidth": 1.3, "marker": "^"}),
    ("plain uvicorn", "plain", True, {"color": "#616161", "linewidth": 1.3, "marker": "x"}),
    ("chroma's server", "chroma", True, {"color": "#2e7d32", "linewidth": 1.3, "marker": "s"}),
)


def draw(results: Results, out: Path) -> None:
    """Draw ``storm.svg``, where there are loads to draw."""
    if len(results.over_load(plan.OURS)) > 1:
        drawing.save(out / "storm.svg", lambda pyplot: _plot(pyplot, results))


def _plot(pyplot: Any, results: Results) -> Any:
    figure, (goodput, told, refusals) = pyplot.subplots(1, 3, figsize=(13, 4.2))
    _over_load(goodput, results, lambda one: one.goodput)
    _over_load(told, results, lambda one: 100 * one.told)
    _over_load(refusals, results, lambda one: one.refusal_p99_ms if one.refused else float("nan"))
    for axis, goal in ((goodput, GOODPUT_GOAL), (told, 100 * TOLD_GOAL), (refusals, REFUSAL_GOAL_MS)):
        axis.plot([GOAL_LOADS[0], GOAL_LOADS[-1]], [goal, goal], color="black", linestyle=":", label="goal")
    goodput.set_title("answered in time, multiples of C")
    told.set_title("answered or told to come back, %")
    refusals.set_title("refusals, 99 of 100 within ms")
    handles, labels = goodput.get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.legend(handles, labels, loc="lower center", ncols=6, frameon=False, bbox_to_anchor=(0.5, -0.04))
    return figure


def _over_load(axis: Any, results: Results, what: Callable[[Summary], float]) -> None:
    loads = sorted({one.load for one in results.taken if one.part in ("rates", "new", *plan.PEERS)})
    for label, system, keep, style in LINES:
        if found := results.over_load(system, keep=keep):
            axis.plot([one.load for one in found], [what(one.summary) for one in found], label=label, **style)
    axis.set_xscale("log")
    axis.set_xticks(loads, [f"{load:g}" for load in loads])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_xlabel("asked, multiples of C")


if __name__ == "__main__":
    draw(read(Path(sys.argv[1])), Path(sys.argv[2]))
