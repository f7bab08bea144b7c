"""When a collection gets a new generation: a pure rule over its sizes and the time since things happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

#: While points are being written, a generation is made only once this share of the collection is not in it: a long
#: run of indexing makes one each time the collection has doubled.
BUSY_SHARE: Final = 0.5

#: In quiet times, when this share of the collection is not in it, if that is ``points`` or more.
QUIET_SHARE: Final = 0.1

#: In quiet times, when so many updates for each point have replaced or deleted something.
CHANGED_SHARE: Final = 0.3

#: Seconds until it is tried again after it was given up.
RETRY_S: Final = 300.0

#: A generation in the making takes up at most so many times what the one that serves does.
ROOM_TIMES: Final = 2.5


class Rule(msgspec.Struct, frozen=True):
    """What can be set.

    Attributes:
        points: Fewer points outside the graph are never worth a new generation; 0: never make one.
        quiet_s: Seconds without an update after which it is quiet.
    """

    points: int = 10_000
    quiet_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known of a collection.

    Attributes:
        points: Points.
        loose: Points written since the last generation was copied, less those deleted.
        changed: Points replaced or deleted since the last generation, about.
        quiet_s: Seconds since the last update.
        failed_s: Seconds since a generation was given up; infinite if none was.
    """

    points: int
    loose: int
    changed: int
    quiet_s: float
    failed_s: float


def due(condition: Condition, rule: Rule) -> bool:
    """Return whether a new generation should be made now."""
    if not rule.points or condition.failed_s < RETRY_S:
        return False
    quiet = condition.quiet_s >= rule.quiet_s
    if condition.loose >= max(rule.points, condition.points * (QUIET_SHARE if quiet else BUSY_SHARE)):
        return True
    return quiet and condition.changed >= max(rule.points, condition.points * CHANGED_SHARE)


def room_needed(disk_bytes: int) -> int:
    """Return how many free bytes a new generation of a collection of this size may need."""
    return round(disk_bytes * ROOM_TIMES)
