"""All loads of a run, and the figures drawn from them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench.report import Figure
from bench.storm import plan
from bench.storm.accounting import Summary

TOLD_GOAL: Final = 0.98
GOODPUT_GOAL: Final = 2.0
REFUSAL_GOAL_MS: Final = 100.0
CALM_GOAL_MS: Final = 50.0
OTHERS_GOAL: Final = 0.95
#: Loads at which there is a goal.
GOAL_LOADS: Final = (5.0, 10.0, 20.0)


class Taken(msgspec.Struct, frozen=True):
    """One load.

    Attributes:
        part: Of the plan.
        system: Which server.
        load: In C.
        keep: Whether connections were kept.
        capacity: C, in requests a second: what ``load`` is a multiple of.
        summary: Its numbers.
        course: The share of each end by second, where that is looked at.
        facts: What this part alone tells.
    """

    part: str
    system: str
    load: float
    keep: bool
    capacity: float
    summary: Summary
    course: list[dict[str, float]] = []
    facts: dict[str, float | None] = {}


class Results(msgspec.Struct):
    """Everything measured.

    Attributes:
        course: Full or quick.
        closed: Answers a second of each system in the closed loop.
        left_out: Systems that were not run, and why.
        taken: In the order in which they ran.
    """

    course: str
    closed: dict[str, float]
    left_out: dict[str, str]
    taken: list[Taken]

    def over_load(self, system: str, *, keep: bool = True) -> list[Taken]:
        """Return a system's loads, ascending."""
        found = [
            one
            for one in self.taken
            if one.system == system and one.keep == keep and one.part in ("rates", "new", *plan.PEERS)
        ]
        return sorted(found, key=lambda one: one.load)

    def of(self, part: str) -> list[Taken]:
        """Return the loads of a part."""
        return [one for one in self.taken if one.part == part]

    def merged(self, before: Results) -> Results:
        """Return these and what an earlier run has of parts that are not among these."""
        parts = {one.part for one in self.taken}
        kept = [one for one in before.taken if one.part not in parts]
        taken = sorted([*kept, *self.taken], key=lambda one: plan.PARTS.index(one.part))
        systems = {one.system for one in taken}
        left_out = {name: why for name, why in (before.left_out | self.left_out).items() if name not in systems}
        return Results(self.course, before.closed | self.closed, left_out, taken)

    def figures(self) -> list[Figure]:
        """Return the figures, beside their goals where there are some."""
        closed = self.closed.get(plan.OURS)
        first = [] if closed is None else [Figure("C: whole answers, closed loop of 16 callers", closed, "/s")]
        loads = [*self.over_load(plan.OURS), *self.over_load(plan.OURS, keep=False)]
        return [*first, *(figure for one in loads for figure in _load(one)), *self._others()]

    def peers(self) -> dict[str, object]:
        """Return the same of the systems beside it, in short."""
        told: dict[str, object] = {name: {"left out": why} for name, why in self.left_out.items()}
        for name in plan.PEERS:
            brief: dict[str, float] = {}
            for one in (*self.over_load(name), *self.over_load(name, keep=False)):
                where = f"{one.load:g} C{'' if one.keep else ', new'}"
                brief[f"goodput at {where}"] = round(one.summary.goodput, 3)
                brief[f"told at {where}"] = round(one.summary.told, 4)
            if brief:
                told[name] = {"closed loop, /s": round(self.closed.get(name, 0.0), 1), **brief}
        return told

    def _others(self) -> Iterator[Figure]:
        for one in self.of("steady"):
            share = one.summary.goodput_whole / one.summary.goodput if one.summary.goodput else 0.0
            yield Figure(f"steady {one.load:g} C: whole among the answers", share, "")
            yield Figure("  told", one.summary.told, "")
            yield Figure("  moves between rungs", one.facts["moves"], "")
        for one in self.of("step"):
            yield Figure(f"step to {one.load:g} C: answers again after", one.facts["served_s"], "s")
            yield Figure("  whole answers again after", one.facts["back_s"], "s")
            yield Figure("  told, during the step", one.facts["told"], "")
        for one in self.of("hog"):
            good = one.facts["answered"] or 0.0
            yield Figure("beside a hog, the others answered", good, "", f"≥ {OTHERS_GOAL}", good >= OTHERS_GOAL)
        for one in self.of("hangups"):
            yield Figure(f"30 % hang up, {one.load:g} C: the others told", one.summary.told, "")
            yield Figure("  goodput", one.summary.goodput, "C")
        for one in self.of("slow"):
            name = f"beside {one.facts['opened']:,.0f} connections of one byte, {one.load:g} C: answered"
            answered = sum(one.summary.answers.values()) / max(1, one.summary.sent)
            yield Figure(name, answered, "")
            yield Figure("  p99", one.summary.p99_ms, "ms")


def _load(one: Taken) -> Iterator[Figure]:
    found, goal = one.summary, one.load in GOAL_LOADS
    where = f"{one.load:g} C{'' if one.keep else ', new connections'}"
    yield Figure(
        f"{where}: told in time",
        found.told,
        "",
        f"≥ {TOLD_GOAL}" if goal else "",
        found.told >= TOLD_GOAL if goal else None,
    )
    yield Figure(
        "  goodput",
        found.goodput,
        "C",
        f"≥ {GOODPUT_GOAL:g} C" if goal else "",
        found.goodput >= GOODPUT_GOAL if goal else None,
    )
    if goal:
        late = found.refusal_p99_ms
        yield Figure("  refusals p99", late, "ms", f"≤ {REFUSAL_GOAL_MS:g} ms", late <= REFUSAL_GOAL_MS)
    if one.load == plan.CALM:
        yield Figure("  p99", found.p99_ms, "ms", f"≤ {CALM_GOAL_MS:g} ms", found.p99_ms <= CALM_GOAL_MS)


def read(path: Path) -> Results:
    """Return the results that a file holds."""
    return msgspec.convert(json.loads(path.read_text())["results"], Results)


def rungs(taken: Iterable[Taken]) -> list[str]:
    """Return every end of a course, the most frequent first."""
    total: dict[str, float] = {}
    for one in taken:
        for second in one.course:
            for end, share in second.items():
                total[end] = total.get(end, 0.0) + share
    return sorted(total, key=lambda end: -total[end])
