"""What the gate counts by itself; read at each scrape."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.telemetry.high_water import HighWater


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
