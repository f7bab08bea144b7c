"""HTTP traffic of a server: requests in flight, their outcomes, and whether it drains. The gate counts, others read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from penstock.kernel.context import Criticality
from penstock.kernel.settings import HttpSettings
from penstock.policies.load_shedder import LoadShedder, ShedderSettings
from penstock.telemetry.bus_metrics import HighWater
from penstock.telemetry.metrics import CallbackMetric, unlabelled

#: Clients that are counted one by one. Where there are more, the quieter half is forgotten.
COUNTED_CLIENTS_MAX: Final = 1_000


@dataclass(slots=True)
class RequestCount:
    """Requests that were answered, and those among them that were refused for now.

    Attributes:
        requests: Answers of any status.
        refused: Those of 429 and 503.
    """

    requests: int = 0
    refused: int = 0


@dataclass(slots=True)
class ClientCounts:
    """Requests by client: the id of a key or an address.

    Bounds: ``COUNTED_CLIENTS_MAX`` clients. One that is forgotten begins at 0 when it comes back.

    Attributes:
        total: Requests of all clients.
        by_client: Requests of each.
    """

    total: RequestCount = field(default_factory=RequestCount)
    by_client: dict[str, RequestCount] = field(default_factory=dict)

    def forget_quietest(self) -> None:
        """Forget the quieter half of the clients."""
        quietest_last = sorted(self.by_client.items(), key=lambda item: item[1].requests, reverse=True)
        self.by_client = dict(quietest_last[: COUNTED_CLIENTS_MAX // 2])


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
        clients: Answers by client, without those about the server itself.
        shedder: Limits the requests in flight to what the event loop carries.
        in_vain_at_s: When an admitted search was last refused because its turn did not come in time.
        overloaded_at_s: For each class, when a search of it was last refused because there are too many, on the
            loop's clock.
    """

    draining: bool = False
    in_flight: int = 0
    in_time: int = 0
    too_late: int = 0
    client_gone: int = 0
    cut_off: int = 0
    peak: HighWater = field(default_factory=HighWater)
    clients: ClientCounts = field(default_factory=ClientCounts)
    shedder: LoadShedder = field(default_factory=LoadShedder)
    in_vain_at_s: float = -math.inf
    overloaded_at_s: dict[Criticality, float] = field(default_factory=lambda: dict.fromkeys(Criticality, -math.inf))

    def note_overload(self, now_s: float, criticality: Criticality | None = None) -> None:
        """Note that a search of a class is refused because there are too many; ``None``: of any class."""
        for one in Criticality if criticality is None else (criticality,):
            self.overloaded_at_s[one] = now_s

    def in_flight_max(self) -> int:
        """Return the most requests in flight of about the last 15 seconds. Call it inside the running loop."""
        return max(self.in_flight, int(self.peak.read(asyncio.get_running_loop().time())))

    def callback_metrics(self) -> list[CallbackMetric]:
        """Return what is counted beside refusals (M4, M6)."""
        return [
            unlabelled("http_concurrent_requests", lambda: self.in_flight),
            unlabelled("http_concurrent_requests_max", self.in_flight_max),
            unlabelled("http_concurrency_limit", lambda: self.shedder.limit),
            ("http_responses_total", lambda: [(("true",), self.in_time), (("false",), self.too_late)]),
            (
                "http_client_disconnects_total",
                lambda: [(("client_gone",), self.client_gone), (("cut_off",), self.cut_off)],
            ),
        ]


def build_load_shedder(settings: HttpSettings, exhausted: Callable[[], bool] = lambda: False) -> LoadShedder:
    """Return the load shedder of a server, whose limit is at most that of the gate.

    Args:
        settings: Of the gate.
        exhausted: Whether searches have given up all that they can, and some still end in vain.
    """
    ceiling = settings.max_concurrent
    return LoadShedder(ShedderSettings(floor=min(ShedderSettings().floor, ceiling), ceiling=ceiling), exhausted)
