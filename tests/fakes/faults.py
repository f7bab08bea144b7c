"""Dependencies with good and bad days: quick, slow, hanging, raising, dead, and whole again."""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from penstock.kernel.errors import Unavailable


class Mood(enum.Enum):
    """How a dependency fares."""

    WELL = enum.auto()
    #: Twenty times as slow.
    SLOW = enum.auto()
    #: No call ends until it is well again.
    HANGS = enum.auto()
    #: Works, and then fails with a bug of its own.
    RAISES = enum.auto()
    #: Every call fails at once.
    DEAD = enum.auto()


SLOW_FACTOR = 20


@dataclass
class Dependency:
    """What every call to a dependency goes through.

    Attributes:
        name: In its errors.
        random: Draws service times.
        mean_s: Mean service time while well.
        steady: Whether every call takes exactly the mean.
        stubborn: Whether a call is like a native thread: once begun it hears no cancellation.
        mood: How it fares.
        running: Calls at work now.
        begun: Calls so far.
        most: The most calls at once, so far.
    """

    name: str
    random: random.Random
    mean_s: float
    steady: bool = True
    stubborn: bool = False
    mood: Mood = Mood.WELL
    running: int = 0
    begun: int = 0
    most: int = 0
    _well: asyncio.Event = field(default_factory=asyncio.Event)

    def turn(self, mood: Mood) -> None:
        """Change the mood; calls that hang go on once it is no longer ``HANGS``."""
        self.mood = mood
        if mood is not Mood.HANGS:
            self._well.set()
            self._well = asyncio.Event()

    async def work(self, *_: Any) -> None:
        """Take as long as the mood says, and fail if it says so."""
        with self._counted():
            if self.mood is Mood.DEAD:
                raise Unavailable(f"{self.name} is dead", dependency=self.name)
            call = asyncio.ensure_future(self._pass())
            try:
                await asyncio.shield(call)
            except asyncio.CancelledError:
                if not self.stubborn:
                    call.cancel()
                await _ended(call)
                raise

    async def _pass(self) -> None:
        if self.mood is Mood.HANGS:
            await self._well.wait()
        seconds = self.mean_s if self.steady else round(self.random.expovariate(1 / self.mean_s), 3)
        await asyncio.sleep(seconds * (SLOW_FACTOR if self.mood is Mood.SLOW else 1))
        if self.mood is Mood.RAISES:
            raise ZeroDivisionError(self.name)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.running += 1
        self.begun += 1
        self.most = max(self.most, self.running)
        try:
            yield
        finally:
            self.running -= 1


async def _ended(call: asyncio.Future[None]) -> None:
    """Wait for a call's end, deaf to further cancellations."""
    while not call.done():
        try:
            await asyncio.wait([call])
        except asyncio.CancelledError:
            continue
    if not call.cancelled():
        call.exception()
