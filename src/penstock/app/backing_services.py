"""Backing services of a process: the broker, the store, and the state shared with other servers.

Light on purpose: the libraries of models and engine are not imported here, so that an unreachable server is reported
before they are.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.app.external_backends import build_broker, build_shared, build_store_service, probe_qdrant
from penstock.app.key_watch import KeyWatch
from penstock.app.role import Role
from penstock.kernel.context import Clock, run_all
from penstock.kernel.errors import Broken
from penstock.kernel.settings import Settings

if TYPE_CHECKING:
    from penstock.stores.store_service import StoreService


class BackingServices:
    """External services of a process. ``start`` them before anything that takes long, ``close`` them last.

    Attributes:
        keys: The keys that the server accepts.
        broker: Carries the bus between processes. ``None`` where all is in one.
        shared: State shared with other servers. ``None`` where there is none.

    Raises:
        Invalid: The settings cannot be used, or not for this role.
    """

    def __init__(self, settings: Settings, data_dir: Path, role: Role, clock: Clock) -> None:
        role.check(settings)
        self._settings = settings
        self._data_dir = data_dir
        self._role = role
        self._clock = clock
        self._store_service: StoreService | None = None
        self.keys = KeyWatch(settings, data_dir)
        self.broker = build_broker(settings)
        self.shared = build_shared(settings)

    @property
    def store_service(self) -> StoreService:
        """Service that holds the points, once this has started. Roles without a store get one that is not started."""
        if self._store_service is None:
            raise Broken("the backing services have not been started")
        return self._store_service

    def connections(self) -> dict[str, int]:
        """Return how many connections are open to each server, by the name of the dependency (L3–L5)."""
        found = {} if self.broker is None else {self.broker.name: self.broker.connections}
        if self.shared is not None:
            found["redis-shared"] = self.shared.connections
        if self.store_service.remote:
            found["store"] = self.store_service.connections
        return found

    async def start(self) -> None:
        """Probe every service that is needed, all at once.

        Raises:
            PenstockError: One is unreachable, or denies access. The message names the setting.

        Bounds: ``STARTUP_CHECK_S`` of each, plus what a broker needs to be connected.
        """
        if self._role.serves_api:
            await self.keys.start()
        asked = [] if self.broker is None else [self.broker.start()]
        remote = self._role.needs_store and self._settings.store.backend == "qdrant"
        if remote:
            asked.append(probe_qdrant(self._settings, self._clock))
        await run_all(asked)
        backend = "qdrant" if remote else "edge"
        self._store_service = await asyncio.to_thread(
            build_store_service, self._settings, self._data_dir, self._clock, backend
        )

    async def close(self) -> None:
        """Close every service. The store is flushed."""
        await self.keys.close()
        if self.broker is not None:
            await self.broker.close()
        if self.shared is not None:
            await self.shared.close()
        if self._store_service is not None:
            await self._store_service.close()
