"""What is run, and in which order: for each scenario every system back to back, so that noise hits all alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.overload.scenarios import Course, Scenario, dependency, hasty, hog, steady, step
from bench.overload.systems import FULL_QUALITY, MAIN, OURS

#: The parts that ``--only`` chooses from.
PARTS: Final = ("steady", "step", "hog", "hasty", "dependency", "ablation", "computing")
#: Steady loads that carry a goal; they and the other scenarios with goals are taken several times.
KEY_LOADS: Final = (2.0, 5.0, 10.0, 20.0)
#: The mechanisms, and the scenarios in which each should show.
ABLATION: Final = {
    "no classes": ("steady 2", "steady 20"),
    "no fair clients": ("hog",),
    "no client share": ("hog",),
    "no newest first": ("steady 2", "steady 20", "step"),
    "no discard": ("steady 2", "steady 20"),
    "no hopeless refusal": ("steady 2", "steady 20"),
    "neither of both": ("steady 2", "steady 20"),
    "no topic pressure": ("steady 20",),
    "ladder to the end": ("steady 2", "steady 20"),
    "bounded fifo": ("steady 2", "steady 20", "hog"),
    "no breaker": ("dependency",),
}
#: What a mechanism costs shows where the server's core is what is short.
ABLATION_COMPUTING: Final = ("no topic pressure", "no hopeless refusal", "no newest first", "neither of both")


@dataclass(frozen=True, slots=True)
class Turn:
    """One trial to be run.

    Attributes:
        computing: Whether the work computes.
        scenario: Under what.
        system: Which one.
        round: In which round; it is the seed.
    """

    computing: bool
    scenario: Scenario
    system: str
    round: int


def turns(course: Course, only: frozenset[str]) -> Iterator[Turn]:
    """Yield every trial in order.

    Args:
        course: How long and how much.
        only: The parts wanted.
    """
    for number in range(course.rounds):
        for scenario, part, key in _waiting(course):
            if part in only and (key or number == 0):
                for system in MAIN:
                    if number < 2 or system in (OURS, FULL_QUALITY):
                        yield Turn(False, scenario, system, number)
            if "ablation" in only and number == 0:
                if part not in only and any(scenario.name in where for where in ABLATION.values()):
                    yield Turn(False, scenario, OURS, number)
                for system, where in ABLATION.items():
                    if scenario.name in where:
                        yield Turn(False, scenario, system, number)
    for number in range(min(2, course.rounds)):
        for load in course.computing:
            scenario = steady(load, course)
            if "computing" in only:
                for system in MAIN:
                    yield Turn(True, scenario, system, number)
            if "ablation" in only and "computing" in only and number == 0 and load == course.computing[-1]:
                for system in ABLATION_COMPUTING:
                    yield Turn(True, scenario, system, number)


def _waiting(course: Course) -> Iterator[tuple[Scenario, str, bool]]:
    """Yield each scenario of waiting work, its part, and whether it is a key one."""
    for load in course.loads:
        yield steady(load, course), "steady", load in KEY_LOADS
    yield step(course), "step", True
    yield hog(course), "hog", True
    yield hasty(course), "hasty", False
    yield dependency(course), "dependency", False
