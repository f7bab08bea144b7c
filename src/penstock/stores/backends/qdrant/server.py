"""``StoreService`` of a Qdrant server: probed before the start, closed at the end."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from penstock.kernel.context import Clock, Context
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.stores.backends.qdrant.client import QdrantConnection, QdrantRequest
from penstock.stores.backends.qdrant.probe import probe
from penstock.stores.backends.qdrant.store import QdrantStore
from penstock.stores.contract import SnapshotStore, UnsupportedSnapshots, VectorStore
from penstock.stores.data_model import IndexBuildStatus
from penstock.stores.key_value_cache import ShrinkableCache


class QdrantServer:
    """A Qdrant server in the place of store processes of ours.

    Args:
        settings: Where it is.
        timeouts: The limit of one operation.
        clock: The loop's clock.
        transport: Carries the requests; the network by default.

    Attributes:
        store: The server as a store.
        snapshots: Refuses: the server has its own.

    Raises:
        Invalid: The settings cannot be used.
    """

    def __init__(
        self,
        settings: QdrantSettings,
        timeouts: TimeoutSettings,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = QdrantConnection(settings, clock, transport)
        self._settings = settings
        self._clock = clock
        self._transport = transport
        self.store: VectorStore = QdrantStore(self._connection, settings, timeouts, clock)
        self.snapshots: SnapshotStore = UnsupportedSnapshots()

    @property
    def remote(self) -> bool:
        """True: calls go to another server, so they are limited and retried."""
        return True

    @property
    def down_reasons(self) -> list[str]:
        """Reasons why the store is down: none, since the breaker reports a server that does not answer."""
        return []

    @property
    def warnings(self) -> list[str]:
        """Warnings about collections: none, since the server reports its own."""
        return []

    @property
    def connections(self) -> int:
        """Number of open connections (L3)."""
        return self._connection.connections

    @property
    def caches(self) -> tuple[ShrinkableCache, ...]:
        """Caches in this machine's memory: none, since the server has its own."""
        return ()

    def index_builds(self) -> list[IndexBuildStatus]:
        """Return nothing: the server optimises by itself."""
        return []

    def when_ready(self, _call: Callable[[], None]) -> None:
        """Do nothing: the breaker notices a server that comes back."""

    def check_processes(self) -> None:
        """Do nothing: :meth:`probe` asks the server."""

    async def probe(self, ctx: Context) -> None:
        """Ask the server for its version, as a health check.

        Raises:
            PenstockError: See :mod:`penstock.stores.backends.qdrant.error_mapping`.
        """
        await self._connection.send(QdrantRequest("GET", "/", accepts_timeout=False), ctx)

    async def start(self) -> None:
        """See :func:`penstock.stores.backends.qdrant.probe.probe`."""
        await probe(self._settings, self._clock, self._transport)

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()
