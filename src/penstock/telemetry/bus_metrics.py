"""Metrics of topics, recorded as events happen: waits, slack, service times, bursts of fill.

:class:`BusMetrics` implements ``BusObserver`` of :mod:`penstock.bus.counters` without importing it, since this package
lies below the bus.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from penstock.kernel.context import Clock, Context
from penstock.policies.levels import Level
from penstock.telemetry.histogram import Histograms
from penstock.telemetry.metrics import CallbackMetric, Sample

#: A maximum reaches back this far, and one slot more: longer than the usual 15 s between scrapes.
WINDOW_S: Final = 15.0
SLOTS: Final = 5


class HighWater:
    """The highest value of about the last ``window_s`` seconds.

    Reading changes nothing, so several readers see the same.

    Args:
        window_s: How far it reaches back, in seconds of the caller's clock.

    Bounds: ``SLOTS + 1`` pairs of numbers.
    """

    __slots__ = ("_per_s", "_slots")

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._per_s = SLOTS / window_s
        self._slots: deque[tuple[int, float]] = deque(maxlen=SLOTS + 1)

    def observe(self, value: float, now_s: float) -> None:
        """Take in a value."""
        slot = int(now_s * self._per_s)
        if not self._slots or self._slots[-1][0] < slot:
            self._slots.append((slot, value))
        elif value > self._slots[-1][1]:
            self._slots[-1] = (self._slots[-1][0], value)

    def read(self, now_s: float) -> float:
        """Return the highest value seen in the window, 0 if none was."""
        oldest = int(now_s * self._per_s) - SLOTS
        return max((value for slot, value in self._slots if slot >= oldest), default=0)


#: Topics that are watched one by one; there are a dozen.
TOPICS_MAX: Final = 50


class _TopicHistograms(NamedTuple):
    wait: Callable[[float], None]
    slack: Callable[[float], None]
    service: Callable[[float], None]


class BusMetrics:
    """Observer of a bus that records metrics. Every method is called on the event loop's thread.

    Bounds: ``TOPICS_MAX`` topics, and what :class:`Histograms` keeps.

    Attributes:
        histograms: Waits, slack, service times.
        fills: Returns each topic with the share of its buffer in use, 0 to 1; set once the bus exists.
    """

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now
        self.histograms = tuple(Histograms(f"event_bus_{one}_seconds") for one in _TopicHistograms._fields)
        self._durations: dict[str, _TopicHistograms] = {}
        self.fills: Callable[[], Iterable[tuple[str, float]]] = tuple
        self._fill_max: dict[str, HighWater] = {}
        self._levels: dict[str, Level] = {}
        self._reached: dict[tuple[str, str], int] = {}

    def __repr__(self) -> str:
        return f"<BusMetrics {len(self._fill_max)} topics>"

    def started(self, topic: str, ctx: Context, wait_s: float) -> None:
        """Record that the handling of a message has begun.

        Its slack is the time left until its deadline, 0 if that has passed. Without a deadline it has none.
        """
        durations = self._durations.get(topic) or self._register_topic(topic)
        durations.wait(wait_s)
        deadline_s = ctx.deadline.at_s
        if deadline_s != math.inf:
            durations.slack(max(0.0, deadline_s - self._now()))

    def ended(self, topic: str, service_s: float) -> None:
        """Record that a handler has ended."""
        (self._durations.get(topic) or self._register_topic(topic)).service(service_s)

    def on_level(self, topic: str, level: Level) -> None:
        """Record that a topic crossed a level, and how full the topics are at this moment."""
        before = self._levels.get(topic, Level.CALM)
        if topic not in self._levels and len(self._levels) >= TOPICS_MAX:
            return
        self._levels[topic] = level
        for reached in Level:
            if before < reached <= level:
                key = topic, reached.name.lower()
                self._reached[key] = self._reached.get(key, 0) + 1
        self.sample_fills()

    def sample_fills(self) -> None:
        """Sample how full the topics are. Call some ten times a second, to catch bursts between two scrapes."""
        now_s = self._now()
        for topic, used in self.fills():
            water = self._fill_max.get(topic)
            if water is None:
                if len(self._fill_max) >= TOPICS_MAX:
                    continue
                water = self._fill_max[topic] = HighWater()
            water.observe(used, now_s)

    def callback_metrics(self) -> list[CallbackMetric]:
        """Return the largest fills, and how often levels were reached."""

        def fills() -> list[Sample]:
            return [((topic,), water.read(self._now())) for topic, water in self._fill_max.items()]

        def reached() -> list[Sample]:
            return [(key, float(times)) for key, times in self._reached.items()]

        return [("event_bus_buffer_used_max", fills), ("event_bus_level_reached_total", reached)]

    def _register_topic(self, topic: str) -> _TopicHistograms:
        durations = _TopicHistograms(*(one.labels(topic).observe for one in self.histograms))
        if len(self._durations) < TOPICS_MAX:
            self._durations[topic] = durations
        return durations
