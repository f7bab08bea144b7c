"""What a Penstock stands on outside of its own process: a broker, a store, what it shares with others.

Light on purpose: nothing here waits for the libraries that models and the engine need, so that a server that is not
there is told before they are imported.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.app.backends import broker, points, seen, shared
from penstock.app.role import Role
from penstock.kernel.clock import Clock
from penstock.kernel.errors import Broken
from penstock.kernel.settings import Settings
from penstock.kernel.together import together

if TYPE_CHECKING:
    from penstock.stores.service import StoreService


class Backing:
    """What a Penstock stands on. ``start`` it before anything that takes long, ``close`` it last.

    Args:
        settings: What there is, and where.
        data_dir: The data directory, for the embedded engine.
        role: What of Penstock runs in this process.
        clock: The loop's clock.

    Attributes:
        broker: What carries the bus between processes; ``None`` where all is in one.
        shared: What is shared with other servers; ``None`` where nothing is.

    Raises:
        Invalid: The settings cannot be used, or not for this role.
    """

    def __init__(self, settings: Settings, data_dir: Path, role: Role, clock: Clock) -> None:
        role.check(settings)
        self._settings = settings
        self._data_dir = data_dir
        self._role = role
        self._clock = clock
        self._points: StoreService | None = None
        self.broker = broker(settings, clock)
        self.shared = shared(settings)

    @property
    def points(self) -> StoreService:
        """What keeps the points, once this has started; where this role needs none, what is never started."""
        if self._points is None:
            raise Broken("nothing has been asked yet")
        return self._points

    def connections(self) -> dict[str, int]:
        """Return how many connections are open to each server, by the name of the dependency (L3–L5)."""
        found = {} if self.broker is None else {self.broker.name: self.broker.connections}
        if self.shared is not None:
            found["redis-shared"] = self.shared.connections
        if self.points.remote:
            found["store"] = self.points.connections
        return found

    async def start(self) -> None:
        """Ask whoever is needed whether it is there, all at once.

        Raises:
            PenstockError: One is not, or lets us not in; the message names the setting.

        Bounds: ``CHECK_S`` of each, plus what a broker needs to be connected.
        """
        asked = [] if self.broker is None else [self.broker.start()]
        remote = self._role.stores and self._settings.store.backend == "qdrant"
        if remote:
            asked.append(seen(self._settings, self._clock))
        await together(asked)
        backend = "qdrant" if remote else "edge"
        self._points = await asyncio.to_thread(points, self._settings, self._data_dir, self._clock, backend)

    async def close(self) -> None:
        """Let go of everything; the store is flushed."""
        if self.broker is not None:
            await self.broker.close()
        if self.shared is not None:
            await self.shared.close()
        if self._points is not None:
            await self._points.close()
