"""Whether the broker is well: a circuit breaker that the heartbeat closes. Synchronous; time is passed in.

Every instance beats once a second anyway, and that is the probe: no request has to be risked to find out whether a
broker is back, and none waits for an open time to end. Beats that succeed close the breaker as soon as there are
enough of them; requests are let through only while it is closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from penstock.bus.broker import BEAT_S
from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.policies.breaker import State

log = logging.getLogger(__name__)

#: A call that took so long to fail is enough to open the breaker: the broker is silent, and who asks it next waits too.
SILENCE_S: Final = 2.0


class Link:
    """The breaker of one broker.

    Args:
        dependency: The broker's name in errors, logs and metrics.
        settings: Failures that open it, successful beats that close it. Its open time is not used.

    Attributes:
        dependency: As given.
        state: Its state; the number is the value of ``circuit_breaker_state``.
        on_turn: Called at each change of state.
        on_open: Called when it has opened.
    """

    def __init__(self, dependency: str, settings: GuardSettings) -> None:
        self.dependency = dependency
        self.state = State.CLOSED
        self.on_turn: Callable[[Any], None] = lambda _: None
        self.on_open: Callable[[], None] = lambda: None
        self._failures_max = settings.failures
        self._successes_min = settings.successes
        self._failures = self._successes = 0

    def __repr__(self) -> str:
        return f"<Link {self.dependency} {self.state.name.lower()}>"

    def retry_after_s(self) -> float:
        """Return the seconds until it may be closed again, 0 if it is."""
        return 0.0 if self.state is State.CLOSED else BEAT_S * (self._successes_min - self._successes)

    def check(self) -> None:
        """Refuse what cannot be sent.

        Raises:
            Unavailable: The breaker is not closed.
        """
        if self.state is not State.CLOSED:
            raise self.unavailable()

    def unavailable(self) -> Unavailable:
        """Return the error of a request that cannot be sent, or whose reply cannot come."""
        error = Unavailable(f"{self.dependency} is not reachable", dependency=self.dependency, code="circuit_open")
        error.__dict__["retry_after_s"] = max(BEAT_S, self.retry_after_s())
        return error

    def sent(self) -> None:
        """Something was sent."""
        self._failures = 0

    def beaten(self) -> None:
        """The broker has answered a beat."""
        self._failures = 0
        if self.state is State.CLOSED:
            return
        self._successes += 1
        if self._successes >= self._successes_min:
            self._turn(State.CLOSED)
        elif self.state is State.OPEN:
            self._turn(State.HALF_OPEN)

    def failed(self, took_s: float) -> None:
        """The broker has not answered, and ``took_s`` went by until that was known."""
        self._failures = self._failures_max if took_s >= SILENCE_S else self._failures + 1
        if self.state is State.HALF_OPEN or (self.state is State.CLOSED and self._failures >= self._failures_max):
            self._successes = 0
            self._turn(State.OPEN)
            self.on_open()

    def _turn(self, state: State) -> None:
        self.state = state
        level = logging.WARNING if state is State.OPEN else logging.INFO
        log.log(level, "breaker %s is %s", self.dependency, state.name.lower().replace("_", "-"))
        self.on_turn(self)
