"""What is asked of a server: named scenarios, and the requests each one makes. Pure; the seed decides everything."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from bench.overload.workload import CLASSES, DEADLINE_S, KINDS, pick

CLIENTS: Final = 200
SMALL_CLIENTS: Final = 20
#: Share of the requests that also ask the dependency, where there is one.
ASK_SHARE: Final = 0.3
#: Retries of a client with a budget, for each of its first attempts: the customary tenth.
BUDGET: Final = 0.1


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One request, before it is sent.

    Attributes:
        at_s: When it is to be sent, from the scenario's beginning.
        kind: Index into ``KINDS``.
        criticality: Index into ``CLASSES``.
        client: Who asks; ``X-Api-Key``.
        asks: Whether its work also asks the dependency.
        patience_s: When the client hangs up; the deadline for most.
    """

    at_s: float
    kind: int
    criticality: int
    client: int
    asks: bool
    patience_s: float


class Phase(StrEnum):
    """What the dependency does."""

    WELL = "well"
    SLOW = "slow"
    HANGS = "hangs"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of constant load.

    Attributes:
        load: In multiples of C.
        seconds: How long.
        hog: Load of one more client, in multiples of C.
        phase: What the dependency does meanwhile.
    """

    load: float
    seconds: float
    hog: float = 0.0
    phase: Phase = Phase.WELL


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named course of load.

    Attributes:
        name: Its name.
        segments: One after the other; the first is the warm-up and is not counted.
        clients: Number of ordinary clients.
        retries: How often a client tries again after a refusal or a timeout.
        budget: Retries a client may make for each first attempt, on average; 0 for any number.
        hasty: Share of clients that hang up early, somewhere in the first half of the deadline.
        dependency: Whether some requests ask the dependency.
    """

    name: str
    segments: tuple[Segment, ...]
    clients: int = CLIENTS
    retries: int = 0
    budget: float = 0.0
    hasty: float = 0.0
    dependency: bool = False

    @property
    def warm_s(self) -> float:
        """Return when counting begins."""
        return self.segments[0].seconds

    @property
    def end_s(self) -> float:
        """Return when the last request is sent."""
        return sum(segment.seconds for segment in self.segments)

    def phases(self) -> list[tuple[float, str]]:
        """Return when each segment ends and what the dependency does until then."""
        ends, until_s = [], 0.0
        for segment in self.segments:
            until_s += segment.seconds
            ends.append((until_s, segment.phase.value))
        return ends

    def requests(self, capacity: float, seed: int) -> list[Request]:
        """Return every request, in the order of sending; Poisson arrivals, the same for the same seed."""
        chance = random.Random(f"{seed}/{self.name}")
        requests: list[Request] = []
        began_s = 0.0
        for segment in self.segments:
            small = poisson(segment.load * capacity, began_s, segment.seconds, chance)
            requests += [self._request(at_s, 1 + chance.randrange(self.clients), chance) for at_s in small]
            hog = poisson(segment.hog * capacity, began_s, segment.seconds, chance)
            requests += [self._request(at_s, 0, chance) for at_s in hog]
            began_s += segment.seconds
        return sorted(requests, key=lambda request: request.at_s)

    def _request(self, at_s: float, client: int, chance: random.Random) -> Request:
        hasty = chance.random() < self.hasty
        return Request(
            at_s=at_s,
            kind=pick(tuple(kind.share for kind in KINDS), chance),
            criticality=pick(tuple(share for _, share in CLASSES), chance),
            client=client,
            asks=self.dependency and chance.random() < ASK_SHARE,
            patience_s=DEADLINE_S * (chance.uniform(0, 0.5) if hasty else 1),
        )


def poisson(rate: float, began_s: float, seconds: float, chance: random.Random) -> Iterator[float]:
    """Yield the arrival times of a Poisson process of ``rate`` a second."""
    at_s = began_s
    while rate > 0 and (at_s := at_s + chance.expovariate(rate)) < began_s + seconds:
        yield at_s


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how much is measured.

    Attributes:
        name: Its name.
        loads: Steady loads of waiting work, in multiples of C.
        computing: The same of computing work.
        rounds: How often the key figures are taken.
        warm_s: Warm-up of each scenario.
        steady_s: Measured time of a steady load.
        step_s: Length of the step to 20 C.
        phase_s: Length of each phase of the failing dependency.
    """

    name: str
    loads: tuple[float, ...] = (0.5, 1, 2, 5, 10, 20)
    computing: tuple[float, ...] = (2, 5, 20)
    rounds: int = 2
    warm_s: float = 1.5
    steady_s: float = 4.0
    step_s: float = 10.0
    phase_s: float = 2.5

    @property
    def quick(self) -> bool:
        """Whether only what matters most is taken, once."""
        return self.name == "quick"


FULL: Final = Course("full")
QUICK: Final = Course("quick", (2, 20), (20,), rounds=1, warm_s=1.5, steady_s=3.0, step_s=4.0, phase_s=2.0)


def steady(load: float, course: Course) -> Scenario:
    """Return a constant load; its warm-up has the same load."""
    return Scenario(f"steady {load:g}", (Segment(load, course.warm_s), Segment(load, course.steady_s)))


def step(course: Course, budget: float = 0.0) -> Scenario:
    """Return a step from half of C to 20 C and back, with clients that retry: without end in sight, or on a budget."""
    calm, after = Segment(0.5, 3.0), Segment(0.5, 6.0)
    segments = (Segment(0.5, course.warm_s), calm, Segment(20, course.step_s), after)
    return Scenario("step, budget" if budget else "step", segments, retries=2, budget=budget)


def hog(course: Course) -> Scenario:
    """Return one client at 10 C beside twenty small ones that ask for half of C together."""
    segments = (Segment(0.5, course.warm_s, 10), Segment(0.5, course.steady_s, 10))
    return Scenario("hog", segments, clients=SMALL_CLIENTS)


def hasty(course: Course) -> Scenario:
    """Return 1.5 C of which 30 % hang up early."""
    return Scenario("hasty", (Segment(1.5, course.warm_s), Segment(1.5, course.steady_s)), hasty=0.3)


def dependency(course: Course) -> Scenario:
    """Return half of C while a dependency turns slow, hangs, dies and comes back."""
    phases = (Phase.WELL, Phase.SLOW, Phase.HANGS, Phase.DEAD, Phase.WELL)
    segments = tuple(Segment(0.5, course.phase_s, phase=phase) for phase in phases)
    return Scenario("dependency", (Segment(0.5, course.warm_s), *segments), dependency=True)
