"""Heartbeat: one task that measures the event loop's lag and runs the periodic calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from penstock.kernel.context import Clock
from penstock.telemetry.bus_metrics import HighWater
from penstock.telemetry.histogram import Histograms
from penstock.telemetry.metrics import CallbackMetric, unlabelled

log = logging.getLogger(__name__)

#: From one millisecond, the grain of the loop's timers, to a stall that users complain about.
LAG_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

#: Window of the maximum that the alert reads. It is short, so that a stall counts only while it lasts.
RECENT_WINDOW_S: Final = 1.0

#: Types of errors that are logged for one call. Those beyond are not logged.
LOGGED_ERROR_TYPES_MAX: Final = 20


@dataclass(slots=True)
class _PeriodicCall:
    """A periodic call: its period, when it is due, and the types of errors it has raised."""

    call: Callable[[], object]
    period_s: float
    next_s: float = 0.0
    raised: set[type[Exception]] = field(default_factory=set)


class Heartbeat:
    """Beats at an even pace, and measures the event loop's lag by how late each beat comes.

    After a stall it goes on from now. Missed beats are not made up for.

    Bounds: one task, and a handful of numbers for each registered call.
    """

    def __init__(self, clock: Clock, period_s: float = 0.1) -> None:
        self._clock = clock
        self._period_s = period_s
        self._calls: list[_PeriodicCall] = []
        self._task: asyncio.Task[None] | None = None
        self.histograms = (Histograms("event_loop_lag_seconds", LAG_BUCKETS_S),)
        self._lag = self.histograms[0].labels()
        self._recent_lag = HighWater(RECENT_WINDOW_S)
        self._windowed_lag = HighWater()

    def __repr__(self) -> str:
        return f"<Heartbeat every {self._period_s:g} s, {len(self._calls)} calls, lag {self.lag_s() * 1000:.1f} ms>"

    def every(self, period_s: float, call: Callable[[], object]) -> None:
        """Call ``call`` at the next beat, and from then on every ``period_s`` seconds.

        It runs on the event loop and holds up everything else, so it must be quick. An error that it raises is
        logged, once for each type, and stops nothing.
        """
        self._calls.append(_PeriodicCall(call, period_s))

    def start(self) -> None:
        """Begin to beat, on the running loop; the first beat comes after one period.

        Raises:
            RuntimeError: It beats already.
        """
        if self._task is not None:
            raise RuntimeError("the heartbeat has been started")
        self._task = asyncio.create_task(self._beat(), name="heartbeat")

    async def close(self) -> None:
        """Stop beating; may be called again, or before ``start``.

        Cancellation: It has stopped, or will at the loop's next turn.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def lag_s(self) -> float:
        """Return how late the loop was at most, of about the last second."""
        return self._recent_lag.read(self._clock.now())

    def lag_s_max(self) -> float:
        """Return how late the loop was at most, of about the last 15 s."""
        return self._windowed_lag.read(self._clock.now())

    def callback_metrics(self) -> list[CallbackMetric]:
        """Return the lag's windowed maximum."""
        return [unlabelled("event_loop_lag_seconds_max", self.lag_s_max)]

    async def _beat(self) -> None:
        due_s = self._clock.now() + self._period_s
        while True:
            await asyncio.sleep(due_s - self._clock.now())
            now_s = self._clock.now()
            self._record_lag(max(0.0, now_s - due_s), now_s)
            for duty in self._calls:
                # Half a beat early is on time: sums of periods miss each other by a hair.
                if now_s >= duty.next_s - self._period_s / 2:
                    in_time = now_s < duty.next_s + self._period_s
                    duty.next_s = (duty.next_s if in_time else now_s) + duty.period_s
                    _run_call(duty)
            due_s = max(due_s + self._period_s, self._clock.now())

    def _record_lag(self, lag_s: float, now_s: float) -> None:
        self._lag.observe(lag_s)
        self._recent_lag.observe(lag_s, now_s)
        self._windowed_lag.observe(lag_s, now_s)


def _run_call(duty: _PeriodicCall) -> None:
    try:
        duty.call()
    except Exception as error:
        if type(error) not in duty.raised and len(duty.raised) < LOGGED_ERROR_TYPES_MAX:
            duty.raised.add(type(error))
            name = getattr(duty.call, "__qualname__", repr(duty.call))
            log.exception("a periodic call failed; further errors of this type are not logged", extra={"call": name})
