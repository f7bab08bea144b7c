"""Counters of a topic, and the observer of its messages."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, fields
from typing import Final, Protocol

from penstock.kernel.context import Context
from penstock.policies.levels import Level


@dataclass(slots=True)
class TopicCounters:
    """Counts of the messages offered to a topic so far, by outcome.

    Between any two steps of the loop ``offered`` is ``ended`` plus what waits, what waits for room and what
    is handled. A handler that was stopped and is not out yet handles nothing any more
    (:class:`penstock.bus.management.TopicState`: ``ended + waiting + blocked + running - stopping``).

    Attributes:
        offered: Messages; an event counts once for each subscriber.
        admitted: Those that found room or a slot.
        answered: Requests whose requester got the reply, events that were handled.
        failed: Those whose handler raised.
        expired_waiting: Those whose deadline passed before they were begun.
        expired_running: Those stopped at their deadline.
        discarded: Those not begun because they could no longer end in time.
        left: Those whose requester or publisher went away.
        lost: Events dropped because their deadline or the bus's end came first.
        refused: By reason: ``topic_full``, ``client_share``, ``hopeless``, ``draining``.
        handler_errors: Handlers that raised something other than a ``PenstockError`` (B5).
        late_replies: Replies that came after their requester had stopped waiting (B3).
    """

    offered: int = 0
    admitted: int = 0
    answered: int = 0
    failed: int = 0
    expired_waiting: int = 0
    expired_running: int = 0
    discarded: int = 0
    left: int = 0
    lost: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    handler_errors: int = 0
    late_replies: int = 0

    @property
    def ended(self) -> int:
        """Number of messages that have ended."""
        expired = self.expired_waiting + self.expired_running + self.discarded
        return self.answered + self.failed + expired + self.left + self.lost + sum(self.refused.values())

    def count_refusal(self, code: str) -> None:
        """Count a refusal."""
        self.refused[code] = self.refused.get(code, 0) + 1

    def plus(self, other: TopicCounters) -> TopicCounters:
        """Return the sum of both."""
        refused = dict(self.refused)
        for code, count in other.refused.items():
            refused[code] = refused.get(code, 0) + count
        return TopicCounters(
            refused=refused, **{name: getattr(self, name) + getattr(other, name) for name in _SCALAR_FIELDS}
        )


#: The counts that are single numbers: found once, as every scrape and status adds them up.
_SCALAR_FIELDS: Final = tuple(one.name for one in fields(TopicCounters) if one.name != "refused")


class BusObserver(Protocol):
    """Observer of a bus, for waits, service times and levels. Called on the hot path: be quick, never raise."""

    def started(self, topic: str, ctx: Context, wait_s: float) -> None:
        """Note a message whose turn has come after ``wait_s``; its slack is what ``ctx.deadline`` leaves."""

    def ended(self, topic: str, service_s: float) -> None:
        """Note a handler that has ended, whichever way, after ``service_s``."""

    def on_level(self, topic: str, level: Level) -> None:
        """Note that a topic's fill has crossed a level (D1, D2), once for each crossing."""


class OneSideObserver:
    """Observer of one side of a bus between processes; passes on what the other side, if it is here, does not report.

    Args:
        observer: Receives the reports.
        starts_elsewhere: Topics whose waits and levels the other side reports.
        ends_elsewhere: Topics whose service times the other side reports.
    """

    def __init__(
        self, observer: BusObserver, *, starts_elsewhere: Container[str] = (), ends_elsewhere: Container[str] = ()
    ) -> None:
        self._observer = observer
        self._starts_elsewhere = starts_elsewhere
        self._ends_elsewhere = ends_elsewhere

    def started(self, topic: str, ctx: Context, wait_s: float) -> None:
        """Pass on that a message's turn has come."""
        if topic not in self._starts_elsewhere:
            self._observer.started(topic, ctx, wait_s)

    def ended(self, topic: str, service_s: float) -> None:
        """Pass on how long a handler took."""
        if topic not in self._ends_elsewhere:
            self._observer.ended(topic, service_s)

    def on_level(self, topic: str, level: Level) -> None:
        """Pass on how full a topic is."""
        if topic not in self._starts_elsewhere:
            self._observer.on_level(topic, level)
