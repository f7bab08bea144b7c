"""Searches in an open loop, while something else goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

from bench.calling import search_bodies
from bench.serving import Server
from bench.worker import Worker

PATH: Final = "/v1/search"
#: Beside something that has not ended yet, searches go on for so many stretches at most, each a third of an idle one.
STRETCHES_MAX: Final = 60

#: The latencies that count, in milliseconds, and everything the callers told.
Stretch = tuple[list[float], dict[str, Any]]


class Searches:
    """Sends queries that the server does not know yet, stretch after stretch.

    Args:
        server: Who is asked.
        callers: Who asks.
        queries: What.
        rate: Searches a second.
        seconds: Length of a stretch beside nothing.
    """

    def __init__(self, server: Server, callers: Worker, queries: Iterator[str], rate: float, seconds: float) -> None:
        self.server = server
        self._callers = callers
        self._queries = queries
        self._rate = rate
        self._seconds = seconds
        self._seed = 0

    def on(self, server: Server) -> Searches:
        """Return searches of the same kind, sent to another server."""
        self._seed += 1000
        other = Searches(server, self._callers, self._queries, self._rate, self._seconds)
        other._seed = self._seed
        return other

    def beside(self, other: Callable[[], object] | None) -> tuple[list[Stretch], object]:
        """Search for a stretch, or until something else has ended; searches that ended after it do not count.

        Returns:
            For each stretch the latencies in milliseconds and what else the callers told; then what the other returned.
        """
        if other is None:
            told = self._stretch(self._seconds)
            return [(told["latencies_ms"], told)], None
        with ThreadPoolExecutor(1) as threads:
            future = threads.submit(lambda: (other(), time.monotonic()))
            found = []
            for _ in range(STRETCHES_MAX):
                found.append(self._stretch(self._seconds / 3))
                if future.done():
                    break
            value, ended_s = future.result()
        return [(before(ended_s, told), told) for told in found], value

    def _stretch(self, seconds: float) -> dict[str, Any]:
        self._seed += 1
        bodies = search_bodies(list(islice(self._queries, round(2 * self._rate * seconds) + 20)))
        return self._callers.ask(
            port=self.server.port, path=PATH, bodies=bodies, rate=self._rate, seconds=seconds, seed=self._seed
        )


def before(ended_s: float, told: dict[str, Any]) -> list[float]:
    """Return the latencies of the searches that were answered before a moment of the monotonic clock."""
    pairs = zip(told["latencies_ms"], told["ended_s"], strict=True)
    return [took_ms for took_ms, at_s in pairs if told["began_s"] + at_s < ended_s]
