"""What is measured about topics as it happens: waits, slack, service times, bursts of fill.

Matches ``BusObserver`` of :mod:`penstock.bus.books`; this floor lies below the bus, so it does not import it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.policies.levels import Level
from penstock.telemetry.high_water import HighWater
from penstock.telemetry.histogram import Histogram, Histograms
from penstock.telemetry.metrics import Reading, Sample

#: Topics that are watched one by one; there are a dozen.
TOPICS_MAX: Final = 50


class _Durations:
    """One topic's series, found once."""

    __slots__ = ("service", "slack", "wait")

    def __init__(self, wait: Histogram, slack: Histogram, service: Histogram) -> None:
        self.wait = wait.observe
        self.slack = slack.observe
        self.service = service.observe


class BusMetrics:
    """Watches a bus. Everything is called on the event loop's thread.

    Args:
        clock: The loop's clock.

    Bounds: ``TOPICS_MAX`` topics, and what :class:`Histograms` keeps.
    """

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now
        self._wait = Histograms("event_bus_wait_seconds")
        self._slack = Histograms("event_bus_slack_seconds")
        self._service = Histograms("event_bus_service_seconds")
        self._durations: dict[str, _Durations] = {}
        self._fills: Callable[[], Iterable[tuple[str, float]]] = tuple
        self._fill_max: dict[str, HighWater] = {}
        self._levels: dict[str, Level] = {}
        self._reached: dict[tuple[str, str], int] = {}

    def __repr__(self) -> str:
        return f"<BusMetrics {len(self._fill_max)} topics>"

    def watch(self, fills: Callable[[], Iterable[tuple[str, float]]]) -> None:
        """Read from now on how full the topics are; called once the bus is there.

        Args:
            fills: Each topic with the share of its buffer in use, 0 to 1.
        """
        self._fills = fills

    def started(self, topic: str, ctx: Context, wait_s: float) -> None:
        """Take in that a message's turn has come.

        Its slack is what is left until its deadline, 0 if that has passed; without a deadline it has none.
        """
        durations = self._durations.get(topic) or self._meet(topic)
        durations.wait(wait_s)
        deadline_s = ctx.deadline.at_s
        if deadline_s != math.inf:
            durations.slack(max(0.0, deadline_s - self._now()))

    def ended(self, topic: str, service_s: float) -> None:
        """Take in that a handler has ended."""
        (self._durations.get(topic) or self._meet(topic)).service(service_s)

    def on_level(self, topic: str, level: Level) -> None:
        """Take in a crossing, and how full the topics are at this moment."""
        before = self._levels.get(topic, Level.CALM)
        if topic not in self._levels and len(self._levels) >= TOPICS_MAX:
            return
        self._levels[topic] = level
        for reached in Level:
            if before < reached <= level:
                key = topic, reached.name.lower()
                self._reached[key] = self._reached.get(key, 0) + 1
        self.look()

    def look(self) -> None:
        """Note how full the topics are; call some ten times a second, for bursts between two scrapes."""
        now_s = self._now()
        for topic, used in self._fills():
            water = self._fill_max.get(topic)
            if water is None:
                if len(self._fill_max) >= TOPICS_MAX:
                    continue
                water = self._fill_max[topic] = HighWater()
            water.observe(used, now_s)

    def fill_max(self, topic: str) -> float:
        """Return the largest share of a topic's buffer in use of about the last 15 s, 0 if it is not known."""
        water = self._fill_max.get(topic)
        return water.read(self._now()) if water is not None else 0.0

    def histograms(self) -> tuple[Histograms, ...]:
        """Return what is to be exposed: waits, slack, service times."""
        return self._wait, self._slack, self._service

    def readings(self) -> list[Reading]:
        """Return the largest fills, and how often levels were reached."""

        def fills() -> list[Sample]:
            return [((topic,), self.fill_max(topic)) for topic in self._fill_max]

        def reached() -> list[Sample]:
            return [(key, float(times)) for key, times in self._reached.items()]

        return [("event_bus_buffer_used_max", fills), ("event_bus_level_reached_total", reached)]

    def _meet(self, topic: str) -> _Durations:
        durations = _Durations(self._wait.labels(topic), self._slack.labels(topic), self._service.labels(topic))
        if len(self._durations) < TOPICS_MAX:
            self._durations[topic] = durations
        return durations
