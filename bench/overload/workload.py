"""The simulated search work of DESIGN §4: kinds of searches, the deadline, classes, and the capacity C they make."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

#: Permits ("servers") that waiting work may hold at once; computing work has one, for one core.
PERMITS: Final = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of search: its share of the requests and how long it holds a permit."""

    name: str
    share: float
    service_s: float


KINDS: Final = (Kind("cheap", 0.80, 0.008), Kind("usual", 0.15, 0.030), Kind("deep", 0.05, 0.250))
MEAN_S: Final = sum(kind.share * kind.service_s for kind in KINDS)
DEADLINE_S: Final = 0.500

#: Criticality classes as in :class:`penstock.kernel.context.Criticality`, and their share of the requests.
CLASSES: Final = (("interactive", 0.6), ("standard", 0.3), ("bulk", 0.1))


@dataclass(frozen=True, slots=True)
class Load:
    """What the work is made of.

    Attributes:
        permits: How much may run at once.
        turns_s: Turns of the hash that take one second of a core; 0 for work that waits.
        capacity: C, in requests a second.
    """

    permits: int
    turns_s: float
    capacity: float

    @property
    def computes(self) -> bool:
        """Whether the work needs a core."""
        return self.turns_s > 0


#: Work that only waits: C is permits over the mean service time, whatever the machine does.
WAITING: Final = Load(PERMITS, 0.0, PERMITS / MEAN_S)


def pick(shares: tuple[float, ...], chance: random.Random) -> int:
    """Return an index, each as often as its share says."""
    left = chance.random() * sum(shares)
    for index, share in enumerate(shares):
        left -= share
        if left < 0:
            return index
    return len(shares) - 1
