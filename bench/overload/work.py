"""The handler behind every system: it holds its permit for as long as its kind of search takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from bench.overload.burning import burn
from bench.overload.records import Held
from bench.overload.scenarios import Phase
from bench.overload.workload import KINDS, Load
from penstock.kernel.errors import Expired, Rejected, Unavailable
from penstock.pools.thread_pool import ThreadPool

#: The dependency's time to answer, well and slow.
ASK_S: Final = 0.004
SLOW_S: Final = 0.400


class Order(msgspec.Struct, frozen=True):
    """The body of a request."""

    id: str
    kind: int
    asks: int


class Answer(msgspec.Struct, frozen=True):
    """The body of an answer."""

    id: str
    degraded: list[str]


class Dependency:
    """Something remote that is well, slow, hangs or is dead, by the scenario's clock.

    Args:
        phases: When each phase ends, and what it is.
    """

    def __init__(self, phases: list[tuple[float, str]]) -> None:
        self._phases = phases
        self.began_s = float("inf")

    async def ask(self) -> None:
        """Ask it something.

        Raises:
            ConnectionError: It is dead, or died while it was asked.
        """
        phase, left_s = self._phase()
        if phase is Phase.WELL:
            await asyncio.sleep(ASK_S)
        elif phase is Phase.SLOW:
            await asyncio.sleep(SLOW_S)
        else:
            if phase is Phase.HANGS:
                await asyncio.sleep(left_s)
            raise ConnectionError("the dependency is dead")

    def _phase(self) -> tuple[Phase, float]:
        now_s = time.monotonic() - self.began_s
        for until_s, phase in self._phases:
            if now_s < until_s:
                return Phase(phase), until_s - now_s
        return Phase.WELL, 0.0


class Workshop:
    """Does the work, and notes how long each attempt held its permit.

    Args:
        load: What the work is made of.
        dependency: What some of the work asks.

    Attributes:
        ask: Asks the dependency.
        held: Who held a permit.
    """

    def __init__(self, load: Load, dependency: Dependency) -> None:
        self._load = load
        self._dependency = dependency
        self._threads = ThreadPool(load.permits, "bench") if load.computes else None
        self._began_s = 0.0
        self.ask: Callable[[], Awaitable[None]] = dependency.ask
        self.held: list[Held] = []

    def begin(self, at_s: float) -> None:
        """Count from now on, in seconds from ``at_s`` on the monotonic clock."""
        self._began_s = self._dependency.began_s = at_s
        self.held.clear()

    async def work(
        self, order: Order, share: float = 1.0, word: str = "", ask: Callable[[], Awaitable[None]] | None = None
    ) -> Answer:
        """Work on one order; call it while holding a permit.

        Args:
            order: What is asked.
            share: How much of the work is done.
            word: What the answer says about the rest.
            ask: Asks the dependency; directly by default. What it refuses, or cannot get in its time, is done without.
        """
        degraded = [word] if word else []
        worth_s = KINDS[order.kind].service_s * share
        began_s, done = time.monotonic(), False
        try:
            if order.asks:
                try:
                    await (ask or self.ask)()
                except (ConnectionError, Unavailable, Rejected):
                    degraded.append("dependency")
                except Expired as error:
                    if error.operation != "dependency":
                        raise
                    degraded.append("dependency")
            await self._spend(worth_s)
            done = True
        finally:
            took_s = time.monotonic() - began_s
            self.held.append(Held(int(order.id), began_s - self._began_s, took_s, worth_s if done else 0.0))
        return Answer(order.id, degraded)

    async def _spend(self, seconds: float) -> None:
        """Wait, or compute: in a thread, whose permit is held until it has ended."""
        if self._threads is None:
            await asyncio.sleep(seconds)
        else:
            await self._threads.run(partial(burn, round(seconds * self._load.turns_s)))
