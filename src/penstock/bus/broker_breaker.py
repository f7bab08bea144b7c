"""Circuit breaker for the broker; successful heartbeats close it. Synchronous; time is passed in.

Every instance sends a heartbeat once a second anyway, and that is the probe: no request has to be risked to find out
whether a broker is back, and none waits for an open time to end. Enough successful heartbeats close the breaker.
Requests are let through only while it is closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from penstock.bus.broker import HEARTBEAT_S
from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.policies.breaker import BreakerState

log = logging.getLogger(__name__)

#: A call that took so long to fail is enough to open the breaker: the broker is silent, and the next call waits too.
SLOW_FAILURE_S: Final = 2.0


class BrokerBreaker:
    """Circuit breaker of one broker.

    Args:
        dependency: The broker's name in errors, logs and metrics.
        settings: Failures that open it, successful heartbeats that close it. Its open time is not used.

    Attributes:
        dependency: The broker's name.
        state: Its state; the number is the value of ``circuit_breaker_state``.
        on_state_change: Called at each change of state.
        on_open: Called when it has opened.
    """

    def __init__(self, dependency: str, settings: GuardSettings) -> None:
        self.dependency = dependency
        self.state = BreakerState.CLOSED
        self.on_state_change: Callable[[Any], None] = lambda _: None
        self.on_open: Callable[[], None] = lambda: None
        self._failures_max = settings.failures
        self._successes_min = settings.successes
        self._failures = self._successes = 0

    def __repr__(self) -> str:
        return f"<BrokerBreaker {self.dependency} {self.state.name.lower()}>"

    def retry_after_s(self) -> float:
        """Return the seconds until it may be closed again, 0 if it is."""
        return 0.0 if self.state is BreakerState.CLOSED else HEARTBEAT_S * (self._successes_min - self._successes)

    def check(self) -> None:
        """Refuse a request that cannot be sent.

        Raises:
            Unavailable: The breaker is not closed.
        """
        if self.state is not BreakerState.CLOSED:
            raise self.unavailable()

    def unavailable(self) -> Unavailable:
        """Return the error of a request that cannot be sent, or whose reply cannot come."""
        error = Unavailable(f"{self.dependency} is not reachable", dependency=self.dependency, code="circuit_open")
        error.__dict__["retry_after_s"] = max(HEARTBEAT_S, self.retry_after_s())
        return error

    def send_ok(self) -> None:
        """Note a successful send."""
        self._failures = 0

    def heartbeat_ok(self) -> None:
        """Note a heartbeat that the broker has answered."""
        self._failures = 0
        if self.state is BreakerState.CLOSED:
            return
        self._successes += 1
        if self._successes >= self._successes_min:
            self._set_state(BreakerState.CLOSED)
        elif self.state is BreakerState.OPEN:
            self._set_state(BreakerState.HALF_OPEN)

    def call_failed(self, took_s: float) -> None:
        """Note a call that the broker has not answered; it failed after ``took_s``."""
        self._failures = self._failures_max if took_s >= SLOW_FAILURE_S else self._failures + 1
        if self.state is BreakerState.HALF_OPEN or (
            self.state is BreakerState.CLOSED and self._failures >= self._failures_max
        ):
            self._successes = 0
            self._set_state(BreakerState.OPEN)
            self.on_open()

    def _set_state(self, state: BreakerState) -> None:
        self.state = state
        level = logging.WARNING if state is BreakerState.OPEN else logging.INFO
        log.log(level, "breaker %s is %s", self.dependency, state.name.lower().replace("_", "-"))
        self.on_state_change(self)
