"""Management protocol: the side of a bus that operators see: its topics' state, its broker, joining and leaving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Protocol

from penstock.bus.contract import Bus
from penstock.bus.counters import TopicCounters
from penstock.policies.breaker import BreakerState
from penstock.policies.levels import Level


@dataclass(frozen=True, slots=True)
class TopicState:
    """Present state of a topic.

    Attributes:
        name: The topic.
        waiting: Messages in its buffer.
        capacity: Its bound.
        running: Handlers at work; each has a slot.
        blocked: Publishers that wait for room.
        level: Fill level, with hysteresis.
        congested: Whether messages have stood in it too long, with hysteresis.
        stopping: How many of ``running`` were stopped, and are not out yet: their messages have ended.
        counts: Outcomes of everything offered to it; a copy.
    """

    name: str
    waiting: int
    capacity: int
    running: int
    blocked: int = field(default=0, compare=False)
    level: Level = field(default=Level.CALM, compare=False)
    congested: bool = field(default=False, compare=False)
    stopping: int = field(default=0, compare=False)
    counts: TopicCounters = field(default_factory=TopicCounters, compare=False)

    @property
    def fill_ratio(self) -> float:
        """Share of the buffer in use, 0 to 1."""
        return self.waiting / self.capacity

    @classmethod
    def merged(cls, parts: Sequence[TopicState]) -> TopicState:
        """Return the state of a topic that has several parts."""
        return cls(
            parts[0].name,
            waiting=sum(one.waiting for one in parts),
            capacity=sum(one.capacity for one in parts),
            running=sum(one.running for one in parts),
            blocked=sum(one.blocked for one in parts),
            level=max(one.level for one in parts),
            congested=any(one.congested for one in parts),
            stopping=sum(one.stopping for one in parts),
            counts=reduce(TopicCounters.plus, (one.counts for one in parts), TopicCounters()),
        )


class BreakerView(Protocol):
    """A circuit breaker as operators see it; it calls ``on_state_change`` with itself at each change."""

    on_state_change: Callable[[Any], None]

    @property
    def dependency(self) -> str:
        """The name of what stands behind it, in errors, logs and metrics."""

    @property
    def state(self) -> BreakerState:
        """Its state."""

    def retry_after_s(self) -> float:
        """Return the seconds until a call may be tried again; 0 if it may now."""


class BusManagement(Protocol):
    """State and life of a bus. A bus of one process is always ready, and has no peers."""

    def state(self) -> list[TopicState]:
        """Return every topic's state."""

    @property
    def breakers(self) -> Sequence[BreakerView]:
        """Circuit breakers of the broker that carries the bus between processes, if there is one."""

    def unready_reasons(self) -> list[str]:
        """Return why requests cannot be answered now; empty when they can."""

    async def wait_joined(self) -> bool:
        """Wait until this instance receives the requests that it serves, and the others know.

        Returns:
            False if some of them do not come here yet after a few seconds: the broker is busy, or away.
        """

    async def drain(self) -> None:
        """Take no more requests from other instances, announce it, and wait until those taken have ended."""

    async def close(self) -> None:
        """Refuse new messages, cancel what waits and what runs, and wait for its end."""


class ManagedBus(Bus, BusManagement, Protocol):
    """Both sides of a bus, for the composition root."""
