"""How many calls, and how many of them failed, over a sliding window."""

from __future__ import annotations

from collections import deque


class CallWindow:
    """Counts calls and failures of the last ``window_s`` seconds, in slots.

    What is counted reaches back between ``window_s - window_s / slots`` and ``window_s``.
    A clock that stands still or goes back writes into the latest slot.

    Args:
        window_s: Length of the window, on the loop's clock.
        slots: How many slots it is cut into.

    Bounds: ``slots`` triples of integers.

    Attributes:
        calls: Calls in the window, as of the last ``add``.
        failures: Failed ones among them.
    """

    __slots__ = ("_slot_s", "_slots", "_tallies", "calls", "failures")

    def __init__(self, window_s: float, slots: int = 10) -> None:
        self._slot_s = window_s / slots
        self._slots = slots
        self._tallies: deque[list[int]] = deque()
        self.calls = 0
        self.failures = 0

    def add(self, failed: bool, now_s: float) -> None:  # noqa: FBT001 - the one thing that is told
        """Count one call that ended now."""
        slot = self._turn(int(now_s // self._slot_s))
        tally = self._tallies[-1] if self._tallies else None
        if tally is None or tally[0] != slot:
            tally = [slot, 0, 0]
            self._tallies.append(tally)
        tally[1] += 1
        tally[2] += failed
        self.calls += 1
        self.failures += failed

    def _turn(self, slot: int) -> int:
        """Forget the slots that have left the window; return the slot to write into."""
        if self._tallies:
            slot = max(slot, self._tallies[-1][0])
        while self._tallies and self._tallies[0][0] <= slot - self._slots:
            _, calls, failures = self._tallies.popleft()
            self.calls -= calls
            self.failures -= failures
        return slot
