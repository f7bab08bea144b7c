"""What the gate counts by itself; read at each scrape."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

#: A maximum reaches back this far, and one slot more: longer than the usual 15 s between scrapes.
WINDOW_S: Final = 15.0
SLOTS: Final = 5


class HighWater:
    """The highest value of about the last ``WINDOW_S`` seconds.

    Reading changes nothing, so several readers see the same.

    Bounds: ``SLOTS + 1`` pairs of numbers.
    """

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: deque[tuple[int, int]] = deque(maxlen=SLOTS + 1)

    def observe(self, value: int, now_s: float) -> None:
        """Take in a value."""
        slot = int(now_s * SLOTS / WINDOW_S)
        if not self._slots or self._slots[-1][0] < slot:
            self._slots.append((slot, value))
        elif value > self._slots[-1][1]:
            self._slots[-1] = (self._slots[-1][0], value)

    def read(self, now_s: float) -> int:
        """Return the highest value seen in the window, 0 if none was."""
        oldest = int(now_s * SLOTS / WINDOW_S) - SLOTS
        return max((value for slot, value in self._slots if slot >= oldest), default=0)


@dataclass(slots=True)
class Tally:
    """Counts since the start. Refusals by reason are in ``requests_refused``.

    Attributes:
        in_time: Answers sent whole before their deadline that were no fault of the server's
            (status below 500, not 408 or 429): goodput.
        too_late: Answers sent after their deadline; the caller may have gone.
        client_gone: Requests whose caller hung up before the answer.
        cut_off: Connections ended because the caller did not read its response in time (T2).
        in_flight: The highest number of requests in flight, lately.
    """

    in_time: int = 0
    too_late: int = 0
    client_gone: int = 0
    cut_off: int = 0
    in_flight: HighWater = field(default_factory=HighWater)

    def answered(self, status: int, *, in_time: bool) -> None:
        """Count an answer that went out whole."""
        if not in_time:
            self.too_late += 1
        elif status < 500 and status not in (408, 429):
            self.in_time += 1
