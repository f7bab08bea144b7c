"""Lifecycle and health of a Qdrant server that holds the points."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from penstock.kernel.context import Clock, Context
from penstock.kernel.errors import PenstockError
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.policies.breaker import BreakerState
from penstock.stores.backends.qdrant.client import QdrantConnection, QdrantRequest
from penstock.stores.backends.qdrant.nodes import Node
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
        self._points = self.store = QdrantStore(self._connection, settings, timeouts, clock, self._memory)
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
        nodes = self._connection.nodes.nodes
        if len(nodes) == 1:
            nodes[0].version = read_version(told) or nodes[0].version

    @property
    def warnings(self) -> list[str]:
        """Addresses that are left alone or not ready, and collections with another number of replicas than wanted."""
        found = []
        nodes = self._connection.nodes.nodes
        for node in nodes if len(nodes) > 1 else ():
            if node.is_lost or node.state is not BreakerState.CLOSED:
                found.append(f"the Qdrant server at {node.url} is left alone: {node.reason}")
            elif not node.is_ready:
                found.append(f"the Qdrant server at {node.url} is not ready: its cluster has no leader yet")
        return found + sorted(self._points.replica_warnings.values())

    @property
    def breakers(self) -> tuple[Node, ...]:
        """The nodes, where there are several."""
        nodes = self._connection.nodes.nodes
        return tuple(nodes) if len(nodes) > 1 else ()

    def when_ready(self, call: Callable[[], None]) -> None:
        """Call ``call`` when a node is there again after all had been lost."""
        self._connection.on_return = call

    def check_processes(self) -> None:
        """Ask each node for its health; a single one only while it is lost."""
        nodes = self._connection.nodes.nodes
        for node in nodes:
            if len(nodes) > 1 or node.is_lost:
                self._connection.check(node)

    async def start(self) -> None:
        """See :func:`penstock.stores.backends.qdrant.probe.probe`."""
        found = await probe(self._settings, self._clock, self._transport)
        for node in self._connection.nodes.nodes:
            told = found[node.url]
            if isinstance(told, PenstockError):
                self._connection.nodes.lose(node, told.detail, self._clock.now())
            else:
                node.version = told

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()
