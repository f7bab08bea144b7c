"""Fill levels with hysteresis (SPEC D1, D2 for topics, D5, D6 for memory, the queue alerts of §10)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from penstock.policies.bounds import at_least, within


class Level(enum.IntEnum):
    """Fill level of a queue or of memory."""

    CALM = 0
    #: D1: warn once, slow producers down. D5: evict.
    HIGH = 1
    #: D2: refuse at the gate. D6: refuse large requests.
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class LevelSettings:
    """Bounds at which fill levels begin and end, as shares from 0 to 1.

    Attributes:
        high: ``HIGH`` from here.
        high_clear: ``CALM`` again below here.
        critical: ``CRITICAL`` from here.
        critical_clear: No longer below here.
    """

    high: float = 0.80
    high_clear: float = 0.70
    critical: float = 0.90
    critical_clear: float = 0.85

    def __post_init__(self) -> None:
        within(self, 0.0, 1.0, "high", "high_clear", "critical", "critical_clear")
        at_least(self, self.high, "critical", "critical_clear")
        at_least(self, self.high_clear, "high")
        at_least(self, self.critical_clear, "critical")


@dataclass(frozen=True, slots=True)
class LevelChange:
    """A crossing, seen once."""

    before: Level
    after: Level

    def enters(self, level: Level) -> bool:
        """Return whether it rises to or through ``level``: the moment to warn."""
        return self.before < level <= self.after

    def leaves(self, level: Level) -> bool:
        """Return whether it falls below ``level``: the moment to call off."""
        return self.after < level <= self.before


class LevelTracker:
    """Tracker of one fill level, with hysteresis.

    A level begins at its bound and ends below its clear bound, so that a fill that trembles around a
    bound crosses it once.

    Bounds: one field.

    Attributes:
        level: As of the last observation.
    """

    __slots__ = ("_settings", "level")

    def __init__(self, settings: LevelSettings) -> None:
        self._settings = settings
        self.level = Level.CALM

    def __repr__(self) -> str:
        return f"<LevelTracker {self.level.name.lower()}>"

    def observe(self, filled: float) -> LevelChange | None:
        """Take in the share that is used; return the crossing, if it is one."""
        settings, before = self._settings, self.level
        if filled >= (settings.critical_clear if before is Level.CRITICAL else settings.critical):
            self.level = Level.CRITICAL
        elif filled >= (settings.high if before is Level.CALM else settings.high_clear):
            self.level = Level.HIGH
        else:
            self.level = Level.CALM
        return LevelChange(before, self.level) if self.level is not before else None
