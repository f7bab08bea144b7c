"""Pace toward a server that refuses what is too much: calls at once, pauses, and the end of patience."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.policies.bounds import at_least


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """Parameters of a pace; times in seconds.

    Attributes:
        window_max: Calls under way at most.
        pause_s: Pause after a refusal that names no time, doubled with each further one.
        pause_s_max: The longest pause.
        patience_s: How long everything may be refused.
    """

    window_max: float
    pause_s: float = 0.5
    pause_s_max: float = 60.0
    patience_s: float = 300.0

    def __post_init__(self) -> None:
        at_least(self, 1, "window_max")
        at_least(self, 0.0, "pause_s", "patience_s")
        at_least(self, self.pause_s, "pause_s_max")


class Pace:
    """Pace of calls: additive increase, multiplicative decrease (Chiu and Jain, 1989), with a pause at each decrease.

    Those refused while it pauses were under way together: they lengthen the pause and do not halve the window again.

    Bounds: a handful of numbers.

    Attributes:
        window: Calls that may be under way, not rounded.
        under_way: Calls that are. The caller counts.
    """

    def __init__(self, settings: PaceSettings, window: float) -> None:
        self.window = window
        self.under_way = 0
        self._settings = settings
        self._pause_s = settings.pause_s
        self._paused_until_s = float("-inf")
        self._taken_s: float | None = None

    def __repr__(self) -> str:
        return f"<Pace {self.under_way}/{self.window:.1f} under way>"

    def wait_s(self, now_s: float) -> float | None:
        """Return the seconds before the next call, 0 for none, ``None`` until one under way has ended."""
        if self._taken_s is None:
            self._taken_s = now_s
        if self.under_way >= int(self.window):
            return None
        return max(0.0, self._paused_until_s - now_s)

    def on_taken(self, now_s: float, *, whole: bool) -> None:
        """Note that something was taken, ``whole`` where nothing beside it was refused."""
        self._taken_s = now_s
        if whole:
            self.window = min(float(self._settings.window_max), self.window + 1 / self.window)
            self._pause_s = self._settings.pause_s

    def on_refused(self, asked_s: float, now_s: float) -> bool:
        """Note a refusal that asked for a pause; return false where patience has ended instead."""
        settings = self._settings
        pause_s = min(settings.pause_s_max, max(asked_s, self._pause_s))
        if now_s + pause_s - (now_s if self._taken_s is None else self._taken_s) > settings.patience_s:
            return False
        if now_s >= self._paused_until_s:
            self.window = max(1.0, self.window / 2)
            self._pause_s = min(settings.pause_s_max, 2 * self._pause_s)
        self._paused_until_s = max(self._paused_until_s, now_s + pause_s)
        return True
