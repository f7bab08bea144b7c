"""Lifecycle and health of a Qdrant server that holds the points."""

from __future__ import annotations

import httpx

from penstock.kernel.context import Clock, Context
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.stores.backends.qdrant.client import QdrantConnection, QdrantRequest
from penstock.stores.backends.qdrant.point_memory import PointMemory
from penstock.stores.backends.qdrant.probe import probe, read_version
from penstock.stores.backends.qdrant.store import QdrantStore
from penstock.stores.contract import SnapshotStore
from penstock.stores.key_value_cache import ShrinkableCache
from penstock.stores.store_service import StoreService


class QdrantServer(StoreService):
    """A Qdrant server in the place of store processes of ours.

    Raises:
        Invalid: The settings cannot be used.
    """

    def __init__(
        self,
        settings: QdrantSettings,
        timeouts: TimeoutSettings,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        cache_bytes: int = 0,
    ) -> None:
        self._connection = QdrantConnection(settings, clock, transport)
        self._settings = settings
        self._clock = clock
        self._transport = transport
        self._memory = PointMemory(cache_bytes)
        self.store = QdrantStore(self._connection, settings, timeouts, clock, self._memory)
        self.snapshots = SnapshotStore()

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return self._connection.connections

    @property
    def caches(self) -> tuple[ShrinkableCache, ...]:
        """The memory of points that searches have read."""
        return (self._memory.cache,)

    async def probe(self, ctx: Context) -> None:
        """Ask the server for its version, as a health check.

        Raises:
            PenstockError: See :mod:`penstock.stores.backends.qdrant.error_mapping`.
        """
        told = await self._connection.send(QdrantRequest("GET", "/", accepts_timeout=False), ctx)
        self._connection.version = read_version(told) or self._connection.version

    async def start(self) -> None:
        """See :func:`penstock.stores.backends.qdrant.probe.probe`."""
        self._connection.version = await probe(self._settings, self._clock, self._transport)

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()
