"""All trials of a run, and the figures drawn from them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from bench.overload.accounting import Summary
from bench.overload.systems import FULL_QUALITY, OURS
from bench.report import Figure

GOALS: Final = {"2": 0.95, "5": 0.95, "10": 0.90, "20": 0.80}
RECOVERY_GOAL_S: Final = 2.0
SMALL_GOAL: Final = 0.95
WASTED_GOAL: Final = 0.05


class Taken(msgspec.Struct, frozen=True):
    """One trial's numbers and where they come from; ``again`` is how often it was disturbed and taken again."""

    computing: bool
    scenario: str
    system: str
    round: int
    again: int
    summary: Summary


class Results(msgspec.Struct, frozen=True):
    """Everything measured in one run.

    Attributes:
        course: Full or quick.
        texts: What each system is.
        capacity: C of waiting work, in requests a second.
        capacity_computing: C of computing work, as measured; 0 where it was not.
        trials: In the order in which they ran.
    """

    course: str
    texts: dict[str, str]
    capacity: float
    capacity_computing: float
    trials: list[Taken]

    def of(self, system: str, scenario: str, *, computing: bool = False) -> list[Summary]:
        """Return the rounds of a system under a scenario."""
        key = (system, scenario, computing)
        return [one.summary for one in self.trials if (one.system, one.scenario, one.computing) == key]

    def median(
        self, system: str, scenario: str, what: Callable[[Summary], float], *, computing: bool = False
    ) -> float | None:
        """Return the median over the rounds, ``None`` where there are none."""
        found = [what(one) for one in self.of(system, scenario, computing=computing)]
        return statistics.median(found) if found else None

    def loads(self, *, computing: bool = False) -> list[str]:
        """Return the steady loads that were run, in order."""
        names = {one.scenario for one in self.trials if one.computing == computing}
        loads = (name.partition(" ")[2] for name in names if name.startswith("steady "))
        return sorted(loads, key=float)

    def figures(self) -> list[Figure]:
        """Return the figures, beside their goals where there are some."""
        return [*self._steady(), *self._others(), *self._computing(), *self._noise()]

    def peers(self) -> dict[str, dict[str, float]]:
        """Return the same figures of every other system."""
        names = dict.fromkeys(one.system for one in self.trials if one.system != OURS)
        return {name: {what: round(value, 4) for what, value in self._brief(name)} for name in names}

    def _steady(self) -> Iterator[Figure]:
        for load in self.loads():
            goal = GOALS.get(load)
            text = f"≥ {goal:g} C" if goal else ""
            name = f"steady {load}"
            good = self.median(OURS, name, lambda one: one.goodput)
            if good is None:
                continue
            yield Figure(f"goodput at {load} C", good, "C", text, met=good >= goal if goal else None)
            yield Figure("  by work done", self.median(OURS, name, lambda one: one.goodput_work) or 0.0, "C")
            full = self.median(FULL_QUALITY, name, lambda one: one.goodput)
            if full is not None:
                work = self.median(FULL_QUALITY, name, lambda one: one.goodput_work) or 0.0
                yield Figure("  full quality only", full, "C")
                yield Figure("  full quality only, by work done", work, "C")

    def _others(self) -> Iterator[Figure]:
        for name, clients in (("step", "clients retry twice"), ("step, budget", "clients have a retry budget")):
            took_s = self.median(OURS, name, lambda one: one.recovery_s)
            new_s = self.median(OURS, name, lambda one: one.new_recovery_s)
            storm_s = self.median(OURS, name, lambda one: one.storm_s)
            if took_s is not None and new_s is not None and storm_s is not None:
                goal = f"≤ {RECOVERY_GOAL_S:g} s"
                yield Figure(f"step, {clients}: goodput back", took_s, "s", goal, met=took_s <= RECOVERY_GOAL_S)
                yield Figure("  new requests served as before", new_s, "s", goal, met=new_s <= RECOVERY_GOAL_S)
                yield Figure("  no more than C asked, with retries", storm_s, "s")
        small = self.median(OURS, "hog", lambda one: one.small)
        if small is not None:
            yield Figure("small clients served beside a hog", small, "", "≥ 0.95", met=small >= SMALL_GOAL)
        for name in [
            *(f"steady {load}" for load in self.loads() if load in GOALS),
            "step",
            "step, budget",
            "hog",
            "hasty",
        ]:
            wasted = self.median(OURS, name, lambda one: one.wasted)
            if wasted is not None:
                yield Figure(f"wasted, {name}", wasted, "", "< 0.05", met=wasted < WASTED_GOAL)

    def _computing(self) -> Iterator[Figure]:
        for load in self.loads(computing=True):
            for system, word in ((OURS, ""), (FULL_QUALITY, ", full quality")):
                good = self.median(system, f"steady {load}", lambda one: one.goodput, computing=True)
                work = self.median(system, f"steady {load}", lambda one: one.goodput_work, computing=True)
                if good is not None and work is not None:
                    yield Figure(f"computing, {load} C{word}", good, "C")
                    yield Figure("  by work done", work, "C")

    def _noise(self) -> Iterator[Figure]:
        waiting = [one.summary for one in self.trials if not one.computing]
        if waiting:
            yield Figure("generator late, p99, median trial", statistics.median(s.lag_p99_ms for s in waiting), "ms")
            yield Figure("generator late, p99, worst trial", max(s.lag_p99_ms for s in waiting), "ms")
            yield Figure("generator's core used, worst trial", max(s.generator for s in waiting), "")
            yield Figure("server kept from its core, median", statistics.median(s.starved for s in waiting), "")
            yield Figure("server kept from its core, worst trial", max(s.starved for s in waiting), "")
            yield Figure("trials", len(self.trials), "")
            yield Figure("disturbed and taken again", sum(one.again for one in self.trials), "")

    def _brief(self, system: str) -> Iterator[tuple[str, float]]:
        wanted: dict[str, Callable[[Summary], float]] = {
            "goodput": lambda one: one.goodput,
            "by work": lambda one: one.goodput_work,
            "wasted": lambda one: one.wasted,
            "p99 ms": lambda one: one.latency_p99_ms,
        }
        for computing in (False, True):
            for load in self.loads(computing=computing):
                for word, what in wanted.items():
                    value = self.median(system, f"steady {load}", what, computing=computing)
                    if value is not None:
                        yield f"{'computing, ' if computing else ''}{word} at {load} C", value
        for name, scenario, what in (
            ("step: goodput back, s", "step", lambda one: one.recovery_s),
            ("step: new requests served as before, s", "step", lambda one: one.new_recovery_s),
            ("step, budget: goodput back, s", "step, budget", lambda one: one.recovery_s),
            ("step, budget: new requests served as before, s", "step, budget", lambda one: one.new_recovery_s),
            ("small clients served", "hog", lambda one: one.small),
            ("wasted beside hang-ups", "hasty", lambda one: one.wasted),
        ):
            value = self.median(system, scenario, what)
            if value is not None:
                yield name, value
