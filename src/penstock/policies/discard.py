"""The discard rules (DESIGN §4.4): no work is begun, nor let queue, that can no longer end in time."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from penstock.policies.bounds import at_least
from penstock.policies.estimate import Estimate


def push_excess_s(
    deadline_s: float,
    now_s: float,
    *,
    ahead_s: float,
    capacity: int,
    service_s: float,
    idle: int,
) -> float:
    """Return by how many seconds a new message would miss its deadline; 0: take it in.

    ``max(0, now + ahead / capacity + service - deadline)``, and 0 while the pool idles: then nothing is
    ahead, and a wrong estimate corrects itself. The excess is also when another try makes sense.

    Args:
        deadline_s: On the loop's clock, infinity for none.
        now_s: On the loop's clock.
        ahead_s: Service time queued ahead of it: sum of ``Estimate.mean_s`` over what would be served
            before, so for newest first only what stands ahead in its turn.
        capacity: Permits that work on it at once.
        service_s: Its own typical service time, ``Estimate.p50_s``; 0 while there is no estimate.
        idle: Permits that are free now.
    """
    if idle > 0:
        return 0.0
    return max(0.0, now_s + ahead_s / max(1, capacity) + service_s - deadline_s)


class DiscardVerdict(enum.Enum):
    """Verdict on the message at the head of the queue."""

    SERVE = enum.auto()
    #: Serve it though the estimate says no, and tell ``probe_ended`` how it went.
    PROBE = enum.auto()
    DISCARD = enum.auto()


@dataclass(frozen=True, slots=True)
class DiscardSettings:
    """Settings of the probes that test a pessimistic estimate; times in seconds on the loop's clock.

    Attributes:
        quiet_s_min: Shortest time with nothing let through before a probe.
        quiet_s_max: Longest time.
        quiet_services: The time, in service times asked for: a tenth of one permit at most is spent.
        passes_max: Probes that may follow on successful ones.
    """

    quiet_s_min: float = 1.0
    quiet_s_max: float = 30.0
    quiet_services: float = 10.0
    passes_max: int = 64

    def __post_init__(self) -> None:
        at_least(self, 0.0, "quiet_s_min", "quiet_services")
        at_least(self, self.quiet_s_min, "quiet_s_max")
        at_least(self, 0, "passes_max")


class DiscardPolicy:
    """Discard policy for one kind of work: decides when a message is popped.

    A message past its deadline is discarded, always. Before there is an estimate, all others are served. Then
    a message needs ``p90(service)`` until its deadline while others wait for the same permit (it would most
    likely waste what one of them can use), and ``p50(service)`` when none does: an even chance beats an idle
    permit.

    An estimate that has become too pessimistic would discard everything and so never see another
    sample. Therefore, when nothing was let through for ``10 × need`` (1 to 30 s), one message passes as a
    probe. A probe that ended in time grants two more, one that did not takes all back: slow start
    (RFC 5681 §3.1), so that a recovered dependency is believed within a few service times, and a slow one
    costs one probe at a time. While anything is served by the rule, there are samples and no probes.

    Bounds: two numbers.
    """

    __slots__ = ("_last_served_s", "_probes_left", "_settings")

    def __init__(self, settings: DiscardSettings) -> None:
        self._settings = settings
        self._probes_left = 0
        self._last_served_s = -math.inf

    def on_pop(self, deadline_s: float, now_s: float, estimate: Estimate, *, contended: bool) -> DiscardVerdict:
        """Decide about the message that is next.

        Args:
            deadline_s: On the loop's clock, infinity for none.
            now_s: On the loop's clock.
            estimate: Service time of its kind.
            contended: Whether others wait for the same permit.
        """
        slack_s = deadline_s - now_s
        if not slack_s > 0.0:
            return DiscardVerdict.DISCARD
        need_s = estimate.p90_s if contended else estimate.p50_s
        if not estimate.ready or slack_s >= need_s:
            self._probes_left = 0
            self._last_served_s = now_s
            return DiscardVerdict.SERVE
        if self._probes_left > 0:
            self._probes_left -= 1
        elif now_s - self._last_served_s < self._quiet_s(need_s):
            return DiscardVerdict.DISCARD
        self._last_served_s = now_s
        return DiscardVerdict.PROBE

    def probe_ended(self, *, in_time: bool) -> None:
        """Take in whether a probe met its deadline."""
        self._probes_left = min(self._probes_left + 2, self._settings.passes_max) if in_time else 0

    def _quiet_s(self, need_s: float) -> float:
        quiet_s = max(self._settings.quiet_s_min, self._settings.quiet_services * need_s)
        return min(self._settings.quiet_s_max, quiet_s)
