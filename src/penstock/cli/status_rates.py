"""Rates between successive statuses of a running server, and since when it is silent. Pure.

Statuses count since the server's start. Two of them make rates. Counts that went back make none, so a restarted server
never shows negative ones. Values that an older server does not report are ``None``, never 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from penstock.client import CacheSummary, Status, TopicSummary, TrafficSummary
from penstock.kernel.errors import Broken

#: Points of the history, one for each interval.
HISTORY_MAX: Final = 120

#: A request that takes longer than this is shown on the screen.
SLOW_ANSWER_S: Final = 2.0

#: A server answers with the same status for so long, so a status may be so old.
STATUS_AGE_S: Final = 1.0

#: What rounding may take from the server's own clock.
ROUNDING_S: Final = 0.5

#: Two statuses are never taken to be closer together, so that a rate stays finite.
INTERVAL_S_MIN: Final = 0.001


class StatusSample(NamedTuple):
    """A status, and when it was asked for and received, on the loop's clock: it was taken somewhere in between."""

    snapshot: Status
    requested_s: float
    received_s: float


class TopicRates(msgspec.Struct, frozen=True):
    """Rates of a topic's messages per second, by outcome. ``dropped`` is expired and discarded together."""

    offered: float | None = None
    answered: float | None = None
    failed: float | None = None
    dropped: float | None = None
    refused: float | None = None
    late: float | None = None


class ServerRates(msgspec.Struct, frozen=True):
    """Rates of a server per second, ``None`` where they are not known.

    Attributes:
        over_s: Seconds between the two statuses, 0 where there are no two of the same server.
        goodput: Answers in time.
        too_late: Answers after their deadline.
        client_gone: Callers who hung up.
        cut_off: Connections ended because the client did not read.
        refused: Refusals by reason, only those that there were.
        degraded: Searches by what their answer lacked, only those that lacked something.
        topics: By topic.
        hits: Share of lookups that hit, 0 to 1, by cache; only caches that were asked.
    """

    over_s: float = 0.0
    goodput: float | None = None
    too_late: float | None = None
    client_gone: float | None = None
    cut_off: float | None = None
    refused: dict[str, float] | None = None
    degraded: dict[str, float] | None = None
    topics: dict[str, TopicRates] = {}
    hits: dict[str, float] = {}


class StatusHistory:
    """History of a server's statuses: the last one, rates, their history, and since when the server is silent.

    Bounds:
        ``HISTORY_MAX`` points of history.

    Attributes:
        url: Its URL, empty before it is known.
        sample: The last status.
        rates: Of the last two.
        last_error: Why the last request had no answer, empty if it had one.
        goodput: Goodput of the last intervals, ``None`` where it is not known.
        refused: Refusals likewise.
    """

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.sample: StatusSample | None = None
        self.rates = ServerRates()
        self.last_error = ""
        self.goodput: deque[float | None] = deque(maxlen=HISTORY_MAX)
        self.refused: deque[float | None] = deque(maxlen=HISTORY_MAX)
        self._heard_s: float | None = None
        self._asked_s: float | None = None

    def on_request(self, now_s: float) -> None:
        """Note that the status was asked for."""
        self._asked_s = now_s
        self._heard_s = now_s if self._heard_s is None else self._heard_s

    def on_status(self, sample: StatusSample) -> None:
        """Take in a status."""
        self.last_error, self._asked_s, self._heard_s = "", None, sample.received_s
        before = self.sample
        if before and before.snapshot.uptime_s == sample.snapshot.uptime_s > 0:
            # The same status once more: nothing new is known.
            return
        self.sample = sample
        self.rates = rates(before, sample) if before else ServerRates()
        if before:
            self.goodput.append(self.rates.goodput)
            self.refused.append(total(self.rates.refused))

    def on_error(self, why: str) -> None:
        """Take in that there was no answer; what was known stays."""
        self.last_error, self._asked_s = why, None
        self.goodput.append(None)
        self.refused.append(None)

    def silent_s(self, now_s: float) -> float | None:
        """Return for how long nothing was heard, ``None`` while all is well."""
        hangs = self._asked_s is not None and now_s - self._asked_s > SLOW_ANSWER_S
        heard_s = now_s if self._heard_s is None else self._heard_s
        return max(0.0, now_s - heard_s) if self.last_error or hangs else None


def parse_status(status: Mapping[str, Any]) -> Status:
    """Read ``/v1/status``; members that are not known are ignored, absent and empty ones have their default.

    Raises:
        Broken: A member is of another type.
    """
    told = {name: value for name, value in status.items() if value is not None}
    try:
        return msgspec.convert(told, Status, strict=False)
    except msgspec.ValidationError as error:
        raise Broken(f"the server's status cannot be read: {error}") from error


def rates(before: StatusSample, after: StatusSample) -> ServerRates:
    """Return the rates between two statuses, none of them known if the server was restarted in between."""
    over_s = _apart_s(before, after)
    if over_s is None:
        return ServerRates()
    old, new = before.snapshot, after.snapshot
    was, now = old.traffic or TrafficSummary(), new.traffic or TrafficSummary()
    topics = {one.name: one for one in old.topics}
    caches = {one.name: one for one in old.caches}
    shares = {one.name: _hit_share(caches[one.name], one) for one in new.caches if one.name in caches}
    degraded = _each(was.degraded, now.degraded, over_s)
    return ServerRates(
        over_s=over_s,
        goodput=_rate(was.in_time, now.in_time, over_s),
        too_late=_rate(was.too_late, now.too_late, over_s),
        client_gone=_rate(was.client_gone, now.client_gone, over_s),
        cut_off=_rate(was.cut_off, now.cut_off, over_s),
        refused=_each(was.refused, now.refused, over_s),
        degraded=degraded and {word: rate for word, rate in degraded.items() if word != "none"},
        topics={one.name: _flow(topics[one.name], one, over_s) for one in new.topics if one.name in topics},
        hits={name: share for name, share in shares.items() if share is not None},
    )


def total(by_reason: Mapping[str, float] | None) -> float | None:
    """Return the sum, ``None`` where nothing is known."""
    return None if by_reason is None else sum(by_reason.values(), 0.0)


def _apart_s(before: StatusSample, after: StatusSample) -> float | None:
    """Return the seconds between two statuses, ``None`` if another process gave the second.

    The server's clock knows them best, within what ours allows: an answer may have been long on its way.
    """
    least_s = after.requested_s - before.received_s
    most_s = after.received_s - before.requested_s
    served_s = after.snapshot.uptime_s - before.snapshot.uptime_s
    if before.snapshot.uptime_s > 0 and after.snapshot.uptime_s > 0:
        least_s, most_s = least_s - STATUS_AGE_S, most_s + STATUS_AGE_S
        if served_s < least_s - ROUNDING_S:
            return None
    return round(max(INTERVAL_S_MIN, min(max(served_s, least_s), most_s)), 3)


def _flow(before: TopicSummary, after: TopicSummary, over_s: float) -> TopicRates:
    return TopicRates(
        offered=_rate(before.offered, after.offered, over_s),
        answered=_rate(before.answered, after.answered, over_s),
        failed=_rate(before.failed, after.failed, over_s),
        dropped=_rate(_dropped(before), _dropped(after), over_s),
        refused=total(_each(before.refused, after.refused, over_s)),
        late=_rate(before.late, after.late, over_s),
    )


def _dropped(topic: TopicSummary) -> int | None:
    parts = [count for count in (topic.expired, topic.discarded) if count is not None]
    return sum(parts) if parts else None


def _hit_share(before: CacheSummary, after: CacheSummary) -> float | None:
    hits, misses = after.hits - before.hits, after.misses - before.misses
    return hits / (hits + misses) if hits >= 0 and misses >= 0 and hits + misses else None


def _each(before: Mapping[str, int] | None, after: Mapping[str, int] | None, over_s: float) -> dict[str, float] | None:
    if before is None or after is None:
        return None
    found = {reason: _rate(before.get(reason, 0), count, over_s) for reason, count in after.items()}
    return {reason: rate for reason, rate in found.items() if rate}


def _rate(before: int | None, after: int | None, over_s: float) -> float | None:
    if before is None or after is None or after < before:
        return None
    return round((after - before) / over_s, 3)
