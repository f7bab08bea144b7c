"""A Qdrant server as the app knows it: looked at before the start, closed in the end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import httpx

from penstock.kernel.clock import Clock
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.kernel.work import Work
from penstock.stores.backends.qdrant.connection import Call, Connection
from penstock.stores.backends.qdrant.errors import STORE
from penstock.stores.backends.qdrant.store import QdrantStore
from penstock.stores.contract import MovableStore, NoSnapshots, Snapshots, Upkeep

log = logging.getLogger(__name__)

#: A server that has not answered its first questions after so long is down.
CHECK_S: Final = 3.0

#: Where the address is set, for people.
_URL: Final = "concurrency.qdrant.url (QDRANT_URL)"


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
        self._clock = clock
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

    def upkeep(self) -> list[Upkeep]:
        """Return nothing: the server optimises by itself."""
        return []

    def when_ready(self, _call: Callable[[], None]) -> None:
        """Do nothing: a server that comes back is found out by its breaker."""

    async def start(self) -> None:
        """Ask the server who it is and whether the key will do.

        Raises:
            Unavailable: It cannot be reached, or does not answer (``store_unreachable``).
            Invalid: It is there, and it is wrong: its address, its key.

        Bounds: ``CHECK_S``.
        """
        url = self._connection.url
        work = Work.background().within(CHECK_S, "check", self._clock.now())
        try:
            version = await self._version(work)
            await self._connection.ask(Call("GET", "/collections", timed=False), work)
        except Rejected:
            return
        except Expired:
            detail = f"{_URL}: {url} has not answered within {CHECK_S:g} s"
            raise Unavailable(detail, dependency=STORE, code="store_unreachable") from None
        except Unavailable as error:
            detail = f"{_URL}: {url}: {error.detail}"
            raise Unavailable(detail, dependency=STORE, code="store_unreachable") from error
        except Broken as error:
            raise Invalid(
                f"{_URL}: {url} cannot be used: {error.detail}", field="concurrency.qdrant.url", code=error.code
            ) from error
        log.info("points are kept by the Qdrant server %s, version %s", url, version)

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()

    async def _version(self, work: Work) -> str:
        told = await self._connection.ask(Call("GET", "/", timed=False), work)
        if not isinstance(told, dict) or "qdrant" not in str(told.get("title")).lower():
            raise Broken("there is another program", code="store_wrong")
        return str(told.get("version"))
