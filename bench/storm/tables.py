"""The tables of docs/benchmarks/storm.md, from a run's file: ``python -m bench.storm.tables storm.json``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.report import Figure
from bench.storm import plan
from bench.storm.accounting import Summary
from bench.storm.results import Results, Taken, read

HEAD = (
    "load",
    "goodput, C",
    "whole, C",
    "p50, p99 ms",
    "told to come back",
    "p50, p99 ms",
    "504",
    "other",
    "no answer",
    "told in time",
    "cores",
)

#: Below this share of what was to be asked, the generator fell short, and the table says so.
SHORT = 0.95


def tables(results: Results) -> Iterator[str]:
    """Yield every table that there is data for, as Markdown."""
    yield "## Figures\n"
    yield _table(("what", "figure", "goal"), [_figure_row(one) for one in results.figures()])
    for system in (plan.OURS, *plan.PEERS):
        for keep in (True, False):
            if found := results.over_load(system, keep=keep):
                yield f"\n## {system}, {'kept' if keep else 'new'} connections\n"
                yield _table(HEAD, [_row(one) for one in found])
    loads = [one for one in results.over_load(plan.OURS) if one.summary.sent]
    names = list(dict.fromkeys(name for one in loads for name in one.summary.answers))
    if loads:
        yield "\n## Answers by what they gave up, share of the requests\n"
        yield _table(("load", *names), [_answers(one, names) for one in loads])
    others = [one for part in ("steady", "step", "hog", "hangups", "slow") for one in results.of(part)]
    if others:
        yield "\n## Other parts\n"
        yield _table(("part", *HEAD, "besides"), [(one.part, *_row(one), _facts(one)) for one in others])
    for one in results.of("steady"):
        yield "\n## The steady minute, shares in spans of ten seconds\n"
        yield _spans(one)


def _figure_row(figure: Figure) -> tuple[str, str, str]:
    verdict = {True: ": met", False: ": **missed**", None: ""}[figure.met]
    value = "never" if figure.value is None else _number(figure.value)
    return figure.name.strip(), f"{value} {figure.unit}".strip(), f"{figure.goal}{verdict}"


def _row(one: Taken) -> tuple[str, ...]:
    found: Summary = one.summary
    refused = found.refused > 0
    sent = "" if found.offered > SHORT * one.load else f" ({found.offered:.1f} sent)"
    return (
        f"{one.load:g} C{sent}",
        f"{found.goodput:.2f}",
        f"{found.goodput_whole:.2f}",
        f"{found.p50_ms:.0f}, {found.p99_ms:.0f}",
        _share(found.refused),
        f"{found.refusal_p50_ms:.0f}, {found.refusal_p99_ms:.0f}" if refused else "",
        _share(found.expired),
        _share(found.other),
        _share(found.unanswered),
        f"{found.told:.2%}".replace("%", " %"),
        f"{sum(found.cpu.values()):.2f}",
    )


def _answers(one: Taken, names: Sequence[str]) -> tuple[str, ...]:
    shares = (one.summary.answers.get(name, 0) / max(1, one.summary.sent) for name in names)
    return (f"{one.load:g} C", *(_share(share) for share in shares))


def _facts(one: Taken) -> str:
    return ", ".join(f"{name} {'never' if value is None else _number(value)}" for name, value in one.facts.items())


def _spans(one: Taken) -> str:
    names = list(dict.fromkeys(end for second in one.course for end in second))
    rows = []
    for first in range(0, len(one.course), 10):
        span = one.course[first : first + 10]
        shares = (sum(second.get(name, 0.0) for second in span) / len(span) for name in names)
        rows.append((f"{first} to {first + len(span)} s", *(_share(share) for share in shares)))
    return _table(("seconds", *names), rows)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if value else ""


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    print("\n".join(tables(read(Path(sys.argv[1])))))
