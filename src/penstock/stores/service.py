"""A store from its start to its end, as the app knows it: processes of ours, or a server elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from penstock.kernel.context import Context
from penstock.stores.cache import Cache, Remembering
from penstock.stores.contract import MovableStore, Snapshots
from penstock.stores.rates import TokenSource
from penstock.stores.records import Upkeep


class StoreService(Protocol):
    """What keeps the points."""

    @property
    def store(self) -> MovableStore:
        """It as a store."""
        ...

    @property
    def snapshots(self) -> Snapshots:
        """Its snapshots."""
        ...

    @property
    def remote(self) -> bool:
        """Whether it is another server, toward which calls are limited and retried."""
        ...

    @property
    def missing(self) -> list[str]:
        """What of it does not run that should; empty when all does."""
        ...

    @property
    def warnings(self) -> list[str]:
        """What of it does not work though it does as a whole."""
        ...

    @property
    def connections(self) -> int:
        """How many connections to a server are open; 0 where there is none."""
        ...

    @property
    def remembering(self) -> tuple[Remembering, ...]:
        """What of it remembers in this machine's memory."""
        ...

    def upkeep(self) -> list[Upkeep]:
        """Return how the upkeep of each collection stands."""
        ...

    def when_ready(self, call: Callable[[], None]) -> None:
        """Call ``call`` whenever a part of it has come up again."""
        ...

    def watch(self) -> None:
        """See whether its processes go on; called about every second."""
        ...

    async def look(self, ctx: Context) -> None:
        """Ask it whether it is there, as cheaply as can be.

        Raises:
            PenstockError: It is not.
        """
        ...

    async def start(self) -> None:
        """Start it, or look whether it is there.

        Raises:
            PenstockError: Saying what is missing, within seconds.
        """
        ...

    async def close(self) -> None:
        """Write everything through and end it, or let go of it."""
        ...


class Shared(Protocol):
    """What several servers share. It may be gone at any time; whoever asks goes on alone."""

    def cache(self, name: str) -> Cache:
        """Return the cache of a name, which the others see too."""
        ...

    def rates(self) -> TokenSource:
        """Return the buckets of clients' rates, which the others take from too."""
        ...

    @property
    def connections(self) -> int:
        """How many connections are open."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...
