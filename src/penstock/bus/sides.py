"""Two observers of one: a message that is asked and served in one process is told of once."""

from __future__ import annotations

from collections.abc import Container

from penstock.bus.books import BusObserver
from penstock.kernel.context import Context
from penstock.policies.levels import Level


class Asking:
    """Watches where requests wait; their service time is told where they are served, if that is here.

    Args:
        observer: Who is told.
        served: The topics that this instance serves.
    """

    def __init__(self, observer: BusObserver, served: Container[str]) -> None:
        self._served = served
        self._observer = observer

    def started(self, topic: str, ctx: Context, wait_s: float) -> None:
        """Pass on that a message's turn has come."""
        self._observer.started(topic, ctx, wait_s)

    def ended(self, topic: str, service_s: float) -> None:
        """Pass on how long it took, unless who serves it tells."""
        if topic not in self._served:
            self._observer.ended(topic, service_s)

    def on_level(self, topic: str, level: Level) -> None:
        """Pass on how full it is."""
        self._observer.on_level(topic, level)


class Serving:
    """Watches where messages are served; how long they waited is told where they were asked, if that is here.

    Args:
        observer: Who is told.
        asked: The topics that this instance asks.
    """

    def __init__(self, observer: BusObserver, asked: Container[str]) -> None:
        self._asked = asked
        self._observer = observer

    def started(self, topic: str, ctx: Context, wait_s: float) -> None:
        """Pass on that a message's turn has come, unless who asked it tells."""
        if topic not in self._asked:
            self._observer.started(topic, ctx, wait_s)

    def ended(self, topic: str, service_s: float) -> None:
        """Pass on how long it took."""
        self._observer.ended(topic, service_s)

    def on_level(self, topic: str, level: Level) -> None:
        """Pass on how full it is, where that means anything: where nothing is asked."""
        if topic not in self._asked:
            self._observer.on_level(topic, level)
