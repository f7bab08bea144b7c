"""Policy that decides when a collection gets a new generation, from its sizes and the times since events. Pure."""

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

#: Seconds until a build is tried again after one was aborted.
BUILD_RETRY_S: Final = 300.0

#: A generation in the making takes up at most so many times what the one that serves does.
BUILD_SPACE_FACTOR: Final = 2.5


class OptimizePolicy(msgspec.Struct, frozen=True):
    """Settings of the policy.

    Attributes:
        points: Fewer points outside the graph are never worth a new generation; 0: never make one.
        quiet_s: Seconds without an update after which it is quiet.
    """

    points: int = 10_000
    quiet_s: float = 5.0


@dataclass(frozen=True, slots=True)
class IndexFreshness:
    """Index freshness of a collection: how much of it is not indexed, and for how long nothing has happened.

    Attributes:
        points: Points.
        unindexed: Points written since the last generation was copied, less those deleted.
        changed: Points replaced or deleted since the last generation, about.
        quiet_s: Seconds since the last update.
        since_failure_s: Seconds since a build was aborted; infinite if none was.
    """

    points: int
    unindexed: int
    changed: int
    quiet_s: float
    since_failure_s: float


def should_optimize(freshness: IndexFreshness, policy: OptimizePolicy) -> bool:
    """Return whether a new generation should be made now."""
    if not policy.points or freshness.since_failure_s < BUILD_RETRY_S:
        return False
    quiet = freshness.quiet_s >= policy.quiet_s
    if freshness.unindexed >= max(policy.points, freshness.points * (QUIET_SHARE if quiet else BUSY_SHARE)):
        return True
    return quiet and freshness.changed >= max(policy.points, freshness.points * CHANGED_SHARE)


def build_bytes_needed(disk_bytes: int) -> int:
    """Return how many free bytes a new generation of a collection of this size may need."""
    return round(disk_bytes * BUILD_SPACE_FACTOR)
