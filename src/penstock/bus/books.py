"""What is counted about a topic, and who may watch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final, Protocol

from penstock.kernel.context import Context
from penstock.policies.levels import Level


@dataclass(slots=True)
class Counts:
    """What became of everything offered to a topic, so far.

    Between any two steps of the loop ``offered`` is ``ended`` plus what waits, what waits for room and what
    is handled; a handler that was stopped and is not out yet handles nothing any more
    (:class:`penstock.bus.contract.TopicState`: ``ended + waiting + blocked + running - stopping``).

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
        refused: By reason: ``queue_full``, ``client_share``, ``hopeless``, ``draining``.
        raised: Handlers that raised something other than a ``PenstockError`` (B5).
        late: Replies that came when nobody waited any more (B3).
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
    raised: int = 0
    late: int = 0

    @property
    def ended(self) -> int:
        """How many have come to their one end."""
        expired = self.expired_waiting + self.expired_running + self.discarded
        return self.answered + self.failed + expired + self.left + self.lost + sum(self.refused.values())

    def refuse(self, code: str) -> None:
        """Count a refusal."""
        self.refused[code] = self.refused.get(code, 0) + 1

    def plus(self, other: Counts) -> Counts:
        """Return the sum of both."""
        refused = dict(self.refused)
        for code, count in other.refused.items():
            refused[code] = refused.get(code, 0) + count
        return Counts(refused=refused, **{name: getattr(self, name) + getattr(other, name) for name in _NUMBERS})


#: The counts that are single numbers: found once, as every scrape and status adds them up.
_NUMBERS: Final = tuple(one.name for one in fields(Counts) if one.name != "refused")


class BusObserver(Protocol):
    """Is told as it happens what counters cannot tell. Called on the hot path: be quick, never raise."""

    def started(self, topic: str, ctx: Context, wait_s: float) -> None:
        """A message's turn has come after ``wait_s``; its slack is what ``work.deadline`` leaves."""
        ...

    def ended(self, topic: str, service_s: float) -> None:
        """A handler has ended, whichever way, after ``service_s``."""
        ...

    def on_level(self, topic: str, level: Level) -> None:
        """A topic's fill has crossed a level (D1, D2), once for each crossing."""
        ...


class Unobserved:
    """Nobody watches."""

    def started(self, topic: str, ctx: Context, wait_s: float) -> None:
        """Do nothing."""

    def ended(self, topic: str, service_s: float) -> None:
        """Do nothing."""

    def on_level(self, topic: str, level: Level) -> None:
        """Do nothing."""


UNOBSERVED = Unobserved()
