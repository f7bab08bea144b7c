"""The plots of the overload benchmark, as SVG."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import drawing
from bench.overload.accounting import POINT_S, Summary
from bench.overload.results import GOALS, Results
from bench.overload.systems import FULL_QUALITY, MAIN, OURS

#: Ours strong, its full quality the same colour in dashes; peers apart by colour and mark.
STYLES: Final[dict[str, dict[str, Any]]] = {
    OURS: {"color": "#c2185b", "linewidth": 2.8, "marker": "o", "markersize": 6, "zorder": 5},
    FULL_QUALITY: {"color": "#c2185b", "linewidth": 1.8, "linestyle": (0, (4, 2)), "marker": "o", "markersize": 4},
    "bare": {"color": "#616161", "linewidth": 1.3, "marker": "x"},
    "limit-concurrency": {"color": "#1565c0", "linewidth": 1.3, "marker": "^"},
    "timeout": {"color": "#2e7d32", "linewidth": 1.3, "marker": "s"},
    "fifo-1000": {"color": "#8d6e63", "linewidth": 1.3, "marker": "v"},
    "fifo-16": {"color": "#ef8f00", "linewidth": 1.3, "marker": "D"},
}

What = Callable[[Summary], float]


def draw(results: Results, out: Path) -> list[str]:
    """Draw what the results have data for; return the files' names."""
    wanted = {name: partial(plot, results=results) for name, (has_data, plot) in _PLOTS.items() if has_data(results)}
    return [name for name, plot in wanted.items() if drawing.save(out / name, plot)]


def _goodput(pyplot: Any, results: Results, *, computing: bool = False) -> Any:
    figure, (count, work) = pyplot.subplots(1, 2, figsize=(10, 4.2))
    _over_load(count, results, lambda one: one.goodput, computing=computing)
    _over_load(work, results, lambda one: one.goodput_work, computing=computing)
    count.set_title("by count")
    work.set_title("by work done")
    count.set_ylabel("answered in time, multiples of C")
    if not computing:
        for load, goal in GOALS.items():
            at, label = float(load), "goal" if load == "2" else None
            count.plot([at / 1.18, at * 1.18], [goal, goal], color="black", linewidth=2.2, label=label, zorder=6)
    _legend(figure, count)
    return figure


def _latency(pyplot: Any, results: Results) -> Any:
    figure, (answers, left) = pyplot.subplots(1, 2, figsize=(10, 4.2))
    _over_load(answers, results, lambda one: one.latency_p50_ms or float("nan"))
    _over_load(left, results, lambda one: 100 * one.lost)
    answers.set_title("median latency of answers in time")
    answers.set_ylabel("ms from the scheduled send")
    left.set_title("left waiting until the deadline, for nothing")
    left.set_ylabel("% of the requests")
    _legend(figure, answers)
    return figure


def _kinds(pyplot: Any, results: Results) -> Any:
    kinds = {"cheap": "cheap: 8 ms, 80 %", "usual": "usual: 30 ms, 15 %", "deep": "deep: 250 ms, 5 %"}
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.8), sharey=True)
    for axis, (kind, title) in zip(axes, kinds.items(), strict=True):

        def share(one: Summary, kind: str = kind) -> float:
            return 100 * one.by_kind[kind]

        _over_load(axis, results, share)
        axis.set_title(title)
    axes[0].set_ylabel("answered in time, %")
    _legend(figure, axes[0])
    return figure


def _step(pyplot: Any, results: Results) -> Any:
    titles = {"step": "clients retry twice, whatever happens", "step, budget": "clients have a retry budget of a tenth"}
    shown = {name: title for name, title in titles.items() if results.of(OURS, name)}
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5 * len(shown) + 1, 4.2), squeeze=False)
    for axis, (name, title) in zip(axes[0], shown.items(), strict=True):
        for system in MAIN:
            for found in results.of(system, name)[:1]:
                style = {key: value for key, value in STYLES[system].items() if not key.startswith("marker")}
                at_s = [(point + 0.5) * POINT_S for point in range(len(found.course))]
                axis.plot(at_s, found.course, label=system, **style)
        axis.set_title(title)
        axis.set_xlabel("seconds: 0.5 C, 20 C, 0.5 C")
        axis.set_ylim(bottom=0)
    axes[0][0].set_ylabel("answered in time, multiples of C")
    _legend(figure, axes[0][0])
    return figure


def _over_load(axis: Any, results: Results, what: What, *, computing: bool = False) -> None:
    """Draw one line for each system over the load."""
    loads = results.loads(computing=computing)
    for system in MAIN:
        values = [results.median(system, f"steady {load}", what, computing=computing) for load in loads]
        if any(value is not None for value in values):
            axis.plot([float(load) for load in loads], values, label=system, **STYLES[system])
    axis.set_xscale("log")
    axis.set_xticks([float(load) for load in loads], loads)
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_xlabel("offered load, multiples of C")


def _legend(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, bbox_to_anchor=(0.5, -0.04))


def _has(*scenarios: str, computing: bool = False) -> Callable[[Results], bool]:
    def wanted(results: Results) -> bool:
        return all(results.of(OURS, scenario, computing=computing) for scenario in scenarios)

    return wanted


_PLOTS: Final[dict[str, tuple[Callable[[Results], bool], Callable[[Any, Results], Any]]]] = {
    "overload-goodput.svg": (_has("steady 2", "steady 20"), _goodput),
    "overload-kinds.svg": (_has("steady 2", "steady 20"), _kinds),
    "overload-latency.svg": (_has("steady 2", "steady 20"), _latency),
    "overload-step.svg": (_has("step, budget"), _step),
    "overload-computing.svg": (
        _has("steady 20", computing=True),
        lambda pyplot, results: _goodput(pyplot, results, computing=True),
    ),
}


def main(arguments: Sequence[str]) -> None:
    """Draw again from a file: ``python -m bench.plots overload.json DIR``."""
    from bench.overload.conduct import read  # noqa: PLC0415 - it imports this module

    print(*draw(read(Path(arguments[0])), Path(arguments[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
