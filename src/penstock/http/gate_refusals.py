"""Refusals of the gate itself, prepared when the server starts."""

from __future__ import annotations

from typing import Final

from penstock.http.exchange import body_too_large_error, memory_short_error
from penstock.http.problem import PreparedRefusal
from penstock.kernel.errors import Rejected
from penstock.kernel.settings import HttpSettings

#: When another try makes sense: after a moment of overload, and after a restart.
OVERLOAD_RETRY_S: Final = 1.0
DRAIN_RETRY_S: Final = 5.0


class GateRefusals:
    """Prepared refusals of the gate itself."""

    def __init__(self, settings: HttpSettings) -> None:
        self.rate_limited = PreparedRefusal(
            Rejected(
                "more requests a second than this client may make; slow down",
                code="rate_limited",
                by_client=True,
            )
        )
        self.draining = PreparedRefusal(
            Rejected("the server is shutting down", code="draining", retry_after_s=DRAIN_RETRY_S)
        )
        self.too_many_in_flight = PreparedRefusal(
            Rejected("too many requests are in flight", code="too_many_requests_in_flight")
        )
        full = Rejected("too much work of this kind is waiting", code="topic_full")
        share = Rejected("too much work of this client is waiting; slow down", code="client_share", by_client=True)
        hopeless = Rejected("what waits already takes longer than the deadline allows", code="hopeless")
        self.by_topic_code = {error.code: PreparedRefusal(error) for error in (full, share, hopeless)}
        self.memory_short = PreparedRefusal(memory_short_error())
        self.too_large = PreparedRefusal(body_too_large_error(settings.max_body))
