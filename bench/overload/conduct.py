"""``python -m bench overload``: run everything, write JSON and plots, return the figures."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from bench import plots
from bench.overload import trial
from bench.overload.accounting import Summary, summary
from bench.overload.burning import turns_per_second
from bench.overload.peers import PEERS
from bench.overload.plan import PARTS, Turn, turns
from bench.overload.results import Results, Taken
from bench.overload.scenarios import FULL, QUICK, Course
from bench.overload.systems import SYSTEMS
from bench.overload.workload import WAITING, Load
from bench.report import Report

#: A trial in which others kept the server from its core for longer than this share of the time, or the generator was
#: late by more than this at its 99th percentile, is taken again, so often at most; the last one counts.
STARVED_MAX = 0.05
LAG_MS_MAX = 8.0
AGAIN_MAX = 2
#: Decks of the closed loop that measures C of computing work, and how often it runs; the median counts.
DECKS = 4
TRIES = 3


async def run(*, quick: bool = False, only: str = "", out: Path | None = None) -> Report:
    """Run the course.

    Args:
        quick: Fewer loads, shorter, once.
        only: Parts, with commas between; all by default, but no ablation if quick.
        out: Where ``overload.json`` and the plots go; nowhere by default.

    Raises:
        ValueError: A part is unknown.
    """
    chosen = frozenset(only.split(",")) if only else frozenset(PARTS) - ({"ablation"} if quick else set())
    if unknown := chosen - set(PARTS):
        raise ValueError(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    results = _conduct(QUICK if quick else FULL, chosen)
    report = Report("overload", results.figures(), results.peers())
    if out is not None:
        _write(report, results, out)
    return report


def _conduct(course: Course, only: frozenset[str]) -> Results:
    """Run every trial, telling the progress on standard error."""
    computing = _computing_load() if "computing" in only else WAITING
    texts = {name: system.text for name, system in SYSTEMS.items()}
    results = Results(course.name, texts, WAITING.capacity, computing.capacity if computing.computes else 0.0, [])
    todo, began_s = list(turns(course, only)), time.monotonic()
    for number, turn in enumerate(todo, 1):
        load = computing if turn.computing else WAITING
        again = 0
        while _disturbed(turn, found := summary(trial.run(SYSTEMS[turn.system], turn.scenario, load, turn.round))):
            if again == AGAIN_MAX:
                break
            again += 1
        results.trials.append(Taken(turn.computing, turn.scenario.name, turn.system, turn.round, again, found))
        _tell(f"{number}/{len(todo)} {time.monotonic() - began_s:.0f} s  {_line(turn, found)}{' again' * again}")
    return results


def _disturbed(turn: Turn, found: Summary) -> bool:
    """Whether others had the machine; work that computes keeps its own loop from the core."""
    return found.lag_p99_ms > LAG_MS_MAX or (found.starved > STARVED_MAX and not turn.computing)


def _computing_load() -> Load:
    """Return computing work with C as measured: the bare handler in a closed loop."""
    turns_s = turns_per_second(trial.cores()[0])
    bare = Load(1, turns_s, 1.0)
    found = sorted(trial.capacity(PEERS["bare"], bare, DECKS) for _ in range(TRIES))
    _tell(f"computing work: C = {found[TRIES // 2]:.1f} requests a second ({found[0]:.1f} to {found[-1]:.1f})")
    return replace(bare, capacity=found[TRIES // 2])


def _line(turn: Turn, found: Summary) -> str:
    name = f"{'computing ' if turn.computing else ''}{turn.scenario.name}"
    facts = [
        f"goodput {found.goodput:.2f}",
        f"work {found.goodput_work:.2f}",
        f"wasted {found.wasted:.2f}",
        f"p99 {found.latency_p99_ms:.0f} ms",
        f"lag {found.lag_p99_ms:.1f} ms",
    ]
    facts += [f"small {found.small:.2f}"] if turn.scenario.name == "hog" else []
    if turn.scenario.retries:
        facts += [f"back after {found.recovery_s:.1f} s, new {found.new_recovery_s:.1f}, storm {found.storm_s:.1f}"]
    return f"{name:<22}{turn.system:<24}{', '.join(facts)}"


def _write(report: Report, results: Results, out: Path) -> None:
    """Write ``overload.json`` and, if there is something to draw with, the plots."""
    out.mkdir(parents=True, exist_ok=True)
    whole = json.loads(report.json()) | {"results": msgspec.to_builtins(results)}
    (out / "overload.json").write_text(json.dumps(_finite(whole)) + "\n")
    drawn = plots.draw(results, out)
    _tell(f"wrote {', '.join(['overload.json', *drawn])} to {out}")


def _finite(value: Any) -> Any:
    """Return the value with numbers rounded and infinities as null, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def read(path: Path) -> Results:
    """Return the results that a file holds."""
    found = json.loads(path.read_text())["results"]
    for one in found["trials"]:
        for name in ("recovery_s", "new_recovery_s"):
            if one["summary"][name] is None:
                one["summary"][name] = math.inf
    return msgspec.convert(found, Results)
