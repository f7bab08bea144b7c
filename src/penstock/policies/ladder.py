"""The degradation ladder: quality is given up before answers are (DESIGN §4)."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

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
    """Pace and the highest rung of the ladder; times in seconds on the loop's clock.

    Attributes:
        up_s: The level climbs one rung in so long at most.
        up_refusing_s: The same while work is refused already: answers are worth more than their quality.
        down_s: While nothing waits, it falls one rung in so long.
        highest: The last rung it climbs to.
        hold: Pressure at which the level stays as it is.
    """

    up_s: float = 0.3
    up_refusing_s: float = 0.05
    down_s: float = 3.0
    highest: Rung = Rung.REFUSE
    hold: float = 0.25

    def __post_init__(self) -> None:
        at_least(self, 0.001, "up_s", "up_refusing_s", "down_s", "hold")


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


#: A window ends after so many looks, but not before ``WINDOW_S_MIN``; with fewer looks after ``WINDOW_S``, which is a
#: little less than passes between two looks while there is no work.
WINDOW_LOOKS: Final = 8
WINDOW_S_MIN: Final = 0.01
WINDOW_S: Final = 0.08
#: A window counts for so long at most on the way up.
CLIMB_S_MAX: Final = 0.15
#: Rungs between the level and what it settles at, at most: below it while nothing waits, above it from twice the
#: pressure that it holds on.
LEAD: Final = 1.0
#: The rung that is told changes when the level is so far from it: it does not follow each tremble.
TOLD_DISTANCE: Final = 0.75


class Ladder:
    """Degradation ladder: its level settles where the queue neither grows nor empties.

    The level lies between two rungs, and work is served on either in proportion (:meth:`serve`). A ladder that jumps
    from rung to rung can only alternate between one that is too costly and one that gives up more than it must.

    It is a proportional-integral controller of the queue's pressure: the age of the oldest piece of work as a share of
    its target. What it takes in is the *least* pressure of a window, so that a burst that drains is no pressure, and
    the level is ``settled + error`` with ``error = pressure / hold - 1``, at most 1 and at most ``settled`` here.
    ``settled`` moves by ``error / down_s`` a second. The same law governs the drop probability of PIE (Pan et al., RFC
    8033). The part that is proportional keeps it from swinging. A window counts for ``CLIMB_S_MAX``, and one rung,
    at most on the way up, so that a stalled event loop is not taken for a long queue, and for all of its time on the
    way down, so that the first request after an idle hour finds the ladder at its foot.

    On ``CACHED_ONLY`` and ``REFUSE`` the pools get no new work. Under lasting overload such a rung would idle them
    while work that could still end in time is turned away: a third of the goodput was lost so. Hence these two
    are for when the queue fills up although all before has been given up, for example because deadlines are
    long or unknown: it climbs to them only while ``nearly_full``, and leaves them at the first observation that is not.
    So a queue is relieved in sips, and the pools never run dry.

    Bounds: a handful of numbers.

    Attributes:
        rung: The rung nearest to what the level settles at.
    """

    __slots__ = ("_began_s", "_due", "_least", "_level", "_looks", "_settings", "_settled", "_sips", "_top_s", "rung")

    def __init__(self, settings: LadderSettings) -> None:
        self._settings = settings
        self._began_s = math.inf
        self._top_s = -math.inf
        self._least = math.inf
        self._looks = 0
        self._settled = self._level = self._due = 0.0
        self._sips = 0
        self.rung = Rung.FULL

    def __repr__(self) -> str:
        return f"<Ladder {self.rung.name.lower()} at {self._level:.2f}>"

    @property
    def level(self) -> float:
        """Place on the ladder in rungs; from ``ONE_ARM`` on a whole number."""
        return self._level + self._sips

    def observe(
        self, pressure: float, now_s: float, *, nearly_full: bool = True, refusing: bool = False
    ) -> RungChange | None:
        """Take in the pressure of the queue; call at each piece of work and some ten times a second.

        Args:
            pressure: Age of the oldest piece of work that waits, as a share of its target; 0 where nothing waits.
            now_s: On the loop's clock.
            nearly_full: Whether the queue is nearly full as well.
            refusing: Whether work was refused just now because there is too much of it.
        """
        before = self.rung
        self._began_s = min(self._began_s, now_s)
        self._least = min(self._least, pressure)
        self._looks += 1
        self._sip(now_s, pressed=nearly_full and (refusing or pressure > self._settings.hold), refusing=refusing)
        elapsed_s = max(0.0, now_s - self._began_s)
        if elapsed_s >= WINDOW_S or (self._looks >= WINDOW_LOOKS and elapsed_s >= WINDOW_S_MIN):
            self._move(elapsed_s, refusing=refusing)
            self._began_s, self._least, self._looks = now_s, math.inf, 0
        settled = min(self._settled, float(self._top)) + self._sips
        if abs(settled - self.rung) > TOLD_DISTANCE:
            self.rung = Rung(round(settled))
        return RungChange(before, self.rung) if self.rung is not before else None

    def serve(self) -> Rung:
        """Return the rung for the next piece of work: of the two around the level each has its share."""
        lower = int(self.level)
        self._due += self.level - lower
        if self._due < 1.0:
            return Rung(lower)
        self._due -= 1.0
        return Rung(lower + 1)

    @property
    def _top(self) -> Rung:
        """The last rung on which the pools have work."""
        return min(self._settings.highest, Rung.ONE_ARM)

    def _move(self, elapsed_s: float, *, refusing: bool) -> None:
        """Move the level by the least pressure of a window."""
        settings = self._settings
        error = self._least / settings.hold - 1.0
        pace = min(error / settings.down_s, 1.0 / settings.up_s)
        if refusing:
            pace = 1.0 / settings.up_refusing_s
        moved = pace * (min(elapsed_s, CLIMB_S_MAX) if pace > 0.0 else min(elapsed_s, settings.down_s * Rung.REFUSE))
        moved = min(moved, 1.0)
        # One rung beyond the last: there the level stays when the queue is empty, and does not fall at once.
        self._settled = min(self._top + LEAD, max(0.0, self._settled + moved))
        self._level = min(float(self._top), max(0.0, self._settled + LEAD * min(error, 1.0, self._settled)))

    def _sip(self, now_s: float, *, pressed: bool, refusing: bool) -> None:
        """Climb to the rungs that idle the pools, one by one, or leave them at once."""
        settings = self._settings
        if not pressed or self._settled < Rung.ONE_ARM:
            self._sips, self._top_s = 0, now_s
        elif self._sips < settings.highest - Rung.ONE_ARM:
            patience_s = settings.up_refusing_s if refusing else settings.up_s
            if now_s - self._top_s >= patience_s:
                self._sips, self._top_s = self._sips + 1, now_s
