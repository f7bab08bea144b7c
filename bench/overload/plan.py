"""What is run, and in which order: for each scenario every system back to back, so that noise hits all alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.overload.scenarios import BUDGET, Course, Scenario, dependency, hasty, hog, steady, step
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
    "no newest first": ("steady 2", "steady 20", "step", "step, budget"),
    "no discard": ("steady 2", "steady 20"),
    "no hopeless refusal": ("steady 2", "steady 20"),
    "neither of both": ("steady 2", "steady 20"),
    "no topic pressure": ("steady 20",),
    "ladder to the end": ("steady 2", "steady 20"),
    "bounded fifo": ("steady 2", "steady 20", "hog"),
    "no breaker": ("dependency",),
    "no limit": ("dependency",),
    "no bulkhead": ("dependency",),
    "no hurry": ("dependency",),
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
            systems = [system for system in _systems(course, part, number) if part in only and (key or number == 0)]
            if "ablation" in only and number == 0:
                without = [system for system, where in ABLATION.items() if scenario.name in where]
                systems += without if systems or not without else [OURS, *without]
            for system in systems:
                yield Turn(False, scenario, system, number)
    if "computing" not in only:
        return
    for load in course.computing:
        scenario = steady(load, course)
        dear = ABLATION_COMPUTING if "ablation" in only and load == course.computing[-1] else ()
        for system in (*_systems(course, "computing", 0), *dear):
            yield Turn(True, scenario, system, 0)


def _systems(course: Course, part: str, number: int) -> Sequence[str]:
    """Return who takes part: all in the first round, ours in the others."""
    if number:
        return (OURS,) if part == "step" else (OURS, FULL_QUALITY)
    if part == "dependency":
        return (OURS, "timeout") if course.quick else (OURS, "bare", "timeout", "fifo-16")
    return (OURS, FULL_QUALITY, "timeout", "fifo-16") if course.quick else MAIN


def _waiting(course: Course) -> Iterator[tuple[Scenario, str, bool]]:
    """Yield each scenario of waiting work, its part, and whether it is a key one."""
    for load in course.loads:
        yield steady(load, course), "steady", load in KEY_LOADS
    if not course.quick:
        yield step(course), "step", True
    yield step(course, BUDGET), "step", True
    yield hog(course), "hog", True
    yield hasty(course), "hasty", False
    yield dependency(course), "dependency", False
