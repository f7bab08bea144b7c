"""The degradation ladder: quality is given up before answers are (DESIGN §4)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from penstock.policies.bounds import at_least


class Rung(enum.IntEnum):
    """Rungs of the degradation ladder, from full quality to refusal; each rung includes those below."""

    FULL = 0
    FEWER_CANDIDATES = 1
    NO_RERANK = 2
    ONE_ARM = 3
    CACHED_ONLY = 4
    REFUSE = 5

    @property
    def label(self) -> str:
        """The word for ``degraded``, the metrics and the log; empty for ``FULL``."""
        return "" if self is Rung.FULL else self.name.lower()


@dataclass(frozen=True, slots=True)
class LadderSettings:
    """Times and the highest rung of the ladder; times in seconds on the loop's clock.

    Attributes:
        up_s: Congested for so long: one rung up, and again for each next.
        up_refusing_s: The same while work is refused already: answers are worth more than their quality.
        down_s: Clear for so long: one rung down, and again for each next.
        down_idle_s: The same on the rungs that send the pools no work.
        highest: The last rung it climbs to.
    """

    up_s: float = 0.3
    up_refusing_s: float = 0.05
    down_s: float = 3.0
    down_idle_s: float = 0.0
    highest: Rung = Rung.REFUSE

    def __post_init__(self) -> None:
        at_least(self, 0.001, "up_s", "up_refusing_s", "down_s")
        at_least(self, 0.0, "down_idle_s")


@dataclass(frozen=True, slots=True)
class RungChange:
    """A move, to be logged and counted."""

    before: Rung
    after: Rung


def serve_at(rung: Rung, *, strict: bool, degraded_from: Rung = Rung.FEWER_CANDIDATES) -> Rung:
    """Return the rung for one request.

    Args:
        rung: The ladder's.
        strict: The request prefers a refusal to a degraded answer.
        degraded_from: The first rung that takes something from this request: one without rerank loses
            nothing below ``ONE_ARM``, one that asks a single arm nothing below ``CACHED_ONLY``.

    Returns:
        ``FULL`` if the rung takes nothing from it; else the rung, or ``REFUSE`` if strict.
    """
    if rung < degraded_from:
        return Rung.FULL
    return Rung.REFUSE if strict else rung


class Ladder:
    """Degradation ladder: climbs while congested, descends while clear.

    Between two observations the last one holds. An observation climbs one rung at most, so that a
    stalled event loop is not taken for long congestion. It descends as many as the clear time
    is worth, so that the first request after an idle hour finds the ladder at its foot.

    On ``CACHED_ONLY`` and ``REFUSE`` the pools get no new work. Under lasting overload such a rung would idle them
    while work that could still end in time is turned away: a third of the goodput was lost so. Hence these two
    are for when the queue fills up although all before has been given up, for example because deadlines are
    long or unknown: it climbs to them only while ``nearly_full``, and leaves them at the first observation that is not.
    So a queue is relieved in sips, and the pools never run dry.

    A descent is a slope, not a step: while it is clear, a growing share of the work is served one rung lower
    (:meth:`serve`), so that load which that rung cannot carry shows as a little congestion and not as a full queue.

    Bounds: four fields.
    """

    __slots__ = ("_congested", "_lower_due", "_settings", "_since_s", "rung")

    def __init__(self, settings: LadderSettings) -> None:
        self._settings = settings
        self._congested: bool | None = None
        self._since_s = 0.0
        self._lower_due = 0.0
        self.rung = Rung.FULL

    def __repr__(self) -> str:
        return f"<Ladder {self.rung.name.lower()} {'congested' if self._congested else 'clear'}>"

    def observe(
        self,
        congested: bool,  # noqa: FBT001 - the one thing that is told
        now_s: float,
        *,
        nearly_full: bool = True,
        refusing: bool = False,
    ) -> RungChange | None:
        """Take in the verdict on the queue; call at each change and some ten times a second.

        Args:
            congested: Whether work has stood too long.
            now_s: On the loop's clock.
            nearly_full: Whether the queue is nearly full as well.
            refusing: Whether work was refused just now because there is too much of it; it counts as congested then.
        """
        congested = congested or refusing
        if congested != self._congested:
            self._congested = congested
            self._since_s = now_s
        before = self.rung
        highest = self._settings.highest if nearly_full else min(self._settings.highest, Rung.ONE_ARM)
        if congested:
            self._climb(now_s, highest, self._settings.up_refusing_s if refusing else self._settings.up_s)
        else:
            self._descend(now_s)
        return RungChange(before, self.rung) if self.rung is not before else None

    def serve(self, now_s: float) -> Rung:
        """Return the rung for the next piece of work: during a descent, the next lower one for a growing share."""
        if self._congested or not Rung.FULL < self.rung < Rung.CACHED_ONLY:
            return self.rung
        self._lower_due += min(1.0, (now_s - self._since_s) / self._settings.down_s)
        if self._lower_due < 1.0:
            return self.rung
        self._lower_due -= 1.0
        return Rung(self.rung - 1)

    def _climb(self, now_s: float, highest: Rung, patience_s: float) -> None:
        if self.rung > highest:
            # No longer nearly full: leave the rungs that idle the pools at once, congested or not.
            self.rung = highest
            self._since_s = now_s
        elif self.rung < highest and now_s - self._since_s >= patience_s:
            self.rung = Rung(self.rung + 1)
            self._since_s = now_s

    def _descend(self, now_s: float) -> None:
        while self.rung > Rung.FULL:
            patience_s = self._settings.down_idle_s if self.rung >= Rung.CACHED_ONLY else self._settings.down_s
            if now_s - self._since_s < patience_s:
                return
            self.rung = Rung(self.rung - 1)
            # Not `now_s`: a long clear time is worth several rungs.
            self._since_s += patience_s
