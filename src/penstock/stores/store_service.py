"""Contract of a store's lifecycle (start, health, close), for our own processes or a separate server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from penstock.kernel.context import Context
from penstock.policies.token_leases import TokenGrant, TokenRequest
from penstock.stores.contract import SnapshotStore, VectorStore
from penstock.stores.data_model import IndexBuildStatus
from penstock.stores.key_value_cache import KeyValueCache, ShrinkableCache


class SharedTokenBuckets(Protocol):
    """Buckets, one for each client, that several servers take tokens from."""

    async def reserve(self, asks: Sequence[TokenRequest], rate: float, burst: float) -> list[TokenGrant]:
        """Take tokens for several clients in one exchange; without a client, only check that the backend is reachable.

        Args:
            asks: Tokens wanted, owed or given back, by client.
            rate: Tokens a second that each bucket gets.
            burst: Tokens that it holds at most.

        Raises:
            Unavailable: It cannot be reached; the tokens may have been taken.
        """


class StoreService(ABC):
    """A store with its lifecycle and its health; the defaults are those of a server that looks after itself.

    Attributes:
        store: The vector store.
        snapshots: The store's snapshots.
        remote: Whether the store is another server, so that calls to it are limited and retried.
    """

    store: VectorStore
    snapshots: SnapshotStore
    remote = True

    @property
    def down_reasons(self) -> list[str]:
        """Reasons why the store or a part of it is down; empty while everything runs."""
        return []

    @property
    def warnings(self) -> list[str]:
        """Partial failures, such as damaged collections, while the store as a whole works."""
        return []

    @property
    def connections(self) -> int:
        """Number of open connections to a server; 0 if there is no server."""
        return 0

    @property
    def caches(self) -> tuple[ShrinkableCache, ...]:
        """The store's caches in this machine's memory."""
        return ()

    @property
    def breakers(self) -> Sequence[Any]:
        """Breakers of the store's nodes, where it has several addresses."""
        return ()

    def index_builds(self) -> list[IndexBuildStatus]:
        """Return the status of each collection's index builds; nothing for a server that builds by itself."""
        return []

    def when_ready(self, call: Callable[[], None]) -> None:  # noqa: B027 - for stores whose parts come and go
        """Call ``call`` whenever a part of the store has come up again; the breaker notices a server's return."""

    def check_processes(self) -> None:  # noqa: B027 - for stores with processes
        """Check the heartbeats of the store's processes; called about every second."""

    @abstractmethod
    async def probe(self, ctx: Context) -> None:
        """Check that the store answers, by its cheapest operation.

        Raises:
            PenstockError: It does not.
        """

    @abstractmethod
    async def start(self) -> None:
        """Start the store, or check that its server is there.

        Raises:
            PenstockError: Saying what is missing, within seconds.
        """

    @abstractmethod
    async def close(self) -> None:
        """Flush and end the store's processes, or close the connections to its server."""


class SharedState(Protocol):
    """State shared by several servers. It may fail at any time. A caller then goes on without it."""

    def cache(self, name: str) -> KeyValueCache:
        """Return the cache of a name, which the others see too."""

    def token_buckets(self) -> SharedTokenBuckets:
        """Return the buckets of clients' rates, which the others take from too."""

    @property
    def connections(self) -> int:
        """Number of open connections."""

    async def close(self) -> None:
        """Close the connections."""
