"""A Qdrant server as the app knows it: looked at before the start, closed in the end."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.stores.backends.qdrant.connection import Call, Connection
from penstock.stores.backends.qdrant.look import look
from penstock.stores.backends.qdrant.store import QdrantStore
from penstock.stores.cache import Remembering
from penstock.stores.contract import MovableStore, NoSnapshots, Snapshots
from penstock.stores.records import Upkeep


class QdrantServer:
    """A Qdrant server in the place of store processes of ours.

    Args:
        settings: Where it is.
        timeouts: The limit of one operation.
        clock: The loop's clock.
        transport: Carries the requests; the network by default.

    Attributes:
        store: It as a store.
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
        self._connection = Connection(settings, clock, transport)
        self._settings = settings
        self._clock = clock
        self._transport = transport
        self.store: MovableStore = QdrantStore(self._connection, settings, timeouts, clock)
        self.snapshots: Snapshots = NoSnapshots()

    @property
    def remote(self) -> bool:
        """Whether the store is another server, toward which calls are limited and retried."""
        return True

    @property
    def missing(self) -> list[str]:
        """What of it is not there; its breaker tells of a server that does not answer."""
        return []

    @property
    def warnings(self) -> list[str]:
        """None: a server tells of its own collections."""
        return []

    @property
    def connections(self) -> int:
        """How many connections are open (L3)."""
        return self._connection.connections

    @property
    def remembering(self) -> tuple[Remembering, ...]:
        """Nothing: what a server remembers is its own affair."""
        return ()

    def upkeep(self) -> list[Upkeep]:
        """Return nothing: the server optimises by itself."""
        return []

    def when_ready(self, _call: Callable[[], None]) -> None:
        """Do nothing: a server that comes back is found out by its breaker."""

    def watch(self) -> None:
        """Do nothing: :meth:`look` asks."""

    async def look(self, ctx: Context) -> None:
        """Ask the server who it is.

        Raises:
            PenstockError: See :mod:`penstock.stores.backends.qdrant.errors`.
        """
        await self._connection.ask(Call("GET", "/", timed=False), ctx)

    async def start(self) -> None:
        """See :func:`penstock.stores.backends.qdrant.look.look`."""
        await look(self._settings, self._clock, self._transport)

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()
