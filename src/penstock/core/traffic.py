"""HTTP traffic of a server: requests in flight, their outcomes, and whether it drains. The gate counts, others read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from penstock.telemetry.bus_metrics import HighWater
from penstock.telemetry.metrics import CallbackMetric, unlabelled


@dataclass(slots=True)
class Traffic:
    """Requests in flight, and counts since the start. Refusals by reason are in ``requests_refused``.

    Attributes:
        draining: Draining state: new requests are refused and every response closes its connection.
        in_flight: Requests admitted and not answered yet.
        in_time: Answers sent whole before their deadline that were no fault of the server's
            (status below 500, not 408 or 429): goodput.
        too_late: Answers sent after their deadline; the caller may have gone.
        client_gone: Requests whose caller hung up before the answer.
        cut_off: Connections ended because the caller did not read its response in time (T2).
        peak: Windowed maximum of the requests in flight.
    """

    draining: bool = False
    in_flight: int = 0
    in_time: int = 0
    too_late: int = 0
    client_gone: int = 0
    cut_off: int = 0
    peak: HighWater = field(default_factory=HighWater)

    def in_flight_max(self) -> int:
        """Return the most requests in flight of about the last 15 seconds. Call it inside the running loop."""
        return max(self.in_flight, int(self.peak.read(asyncio.get_running_loop().time())))

    def callback_metrics(self) -> list[CallbackMetric]:
        """Return what is counted beside refusals (M4, M6)."""
        return [
            unlabelled("http_concurrent_requests", lambda: self.in_flight),
            unlabelled("http_concurrent_requests_max", self.in_flight_max),
            ("http_responses_total", lambda: [(("true",), self.in_time), (("false",), self.too_late)]),
            (
                "http_client_disconnects_total",
                lambda: [(("client_gone",), self.client_gone), (("cut_off",), self.cut_off)],
            ),
        ]
