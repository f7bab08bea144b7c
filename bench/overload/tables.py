"""The tables of docs/benchmarks/overload.md, from a run's file: ``python -m bench.overload.tables overload.json``."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.overload.accounting import Summary
from bench.overload.conduct import read
from bench.overload.plan import ABLATION, ABLATION_COMPUTING
from bench.overload.results import Results
from bench.overload.systems import MAIN, OURS


def tables(results: Results) -> Iterator[str]:
    """Yield every table that there is data for, as Markdown."""
    yield "## Figures\n"
    yield _table(("what", "figure", "goal"), [_figure_row(figure) for figure in results.figures()])
    for computing in (False, True):
        for word, what in (("by count", lambda one: one.goodput), ("by work done", lambda one: one.goodput_work)):
            yield f"\n## Goodput {word}, {'computing' if computing else 'waiting'} work, in C\n"
            yield _over_load(results, what, computing=computing)
    yield "\n## Other scenarios\n"
    yield _table(
        ("system", "small beside hog", "wasted, hang-ups", "goodput back", "new as before", "the same, budget"),
        [
            (
                system,
                _cell(results, system, "hog", lambda one: one.small),
                _cell(results, system, "hasty", lambda one: one.wasted),
                _cell(results, system, "step", lambda one: one.recovery_s),
                _cell(results, system, "step", lambda one: one.new_recovery_s),
                _cell(results, system, "step, budget", lambda one: one.new_recovery_s),
            )
            for system in MAIN
        ],
    )
    yield "\n## Dependency: served of those that ask it / of the others\n"
    yield from _phases(results)
    yield "\n## Ablation\n"
    yield _ablation(results)


def _figure_row(figure: object) -> tuple[str, str, str]:
    name, value, unit = (getattr(figure, field) for field in ("name", "value", "unit"))
    verdict = {True: ": met", False: ": **missed**", None: ""}[getattr(figure, "met", None)]
    return name.strip(), f"{_number(value)} {unit}".strip(), f"{getattr(figure, 'goal', '')}{verdict}"


def _over_load(results: Results, what: Callable[[Summary], float], *, computing: bool) -> str:
    loads = results.loads(computing=computing)
    rows = [
        (system, *(_cell(results, system, f"steady {load}", what, computing=computing) for load in loads))
        for system in MAIN
    ]
    return _table(("system", *(f"{load} C" for load in loads)), [row for row in rows if any(row[1:])])


def _phases(results: Results) -> Iterator[str]:
    rows = []
    names: list[str] = []
    for system in (*MAIN, *(name for name, where in ABLATION.items() if "dependency" in where)):
        for found in results.of(system, "dependency"):
            names = list(found.phases)
            rows.append((system, *(f"{one['asking']:.2f} / {one['others']:.2f}" for one in found.phases.values())))
    yield _table(("system", *names), rows)


def _ablation(results: Results) -> str:
    rows = []
    cases = [(name, scenario, False) for name, where in ABLATION.items() for scenario in where]
    cases += [(name, "steady 20", True) for name in ABLATION_COMPUTING]
    for name, scenario, computing in cases:
        found = results.of(name, scenario, computing=computing)
        if not found:
            continue
        with_all = results.of(OURS, scenario, computing=computing)[0]
        where = f"{'computing, ' if computing else ''}{scenario}"
        rows.append((name, where, *(_change(with_all, found[0], what) for what in _MEASURES.values())))
    return _table(("without", "scenario", *_MEASURES), rows)


_MEASURES: dict[str, Callable[[Summary], float]] = {
    "goodput": lambda one: one.goodput,
    "by work": lambda one: one.goodput_work,
    "interactive": lambda one: one.by_class["interactive"],
    "small": lambda one: one.small,
    "deep": lambda one: one.by_kind["deep"],
    "wasted": lambda one: one.wasted,
    "left waiting": lambda one: one.lost,
    "server ms each": lambda one: one.cpu_ms,
}


def _change(before: Summary, after: Summary, what: Callable[[Summary], float]) -> str:
    return f"{_number(what(before))} → {_number(what(after))}"


def _cell(
    results: Results, system: str, scenario: str, what: Callable[[Summary], float], *, computing: bool = False
) -> str:
    value = results.median(system, scenario, what, computing=computing)
    return "" if value is None else _number(value)


def _number(value: float) -> str:
    if math.isinf(value):
        return "never"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print("\n".join(tables(read(Path(sys.argv[1])))))
