"""``VectorStore`` over the store process."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from penstock.kernel.context import Clock, Context
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.stores.backends.edge.optimize_policy import OptimizePolicy
from penstock.stores.backends.edge.process_client import StoreProcessClient
from penstock.stores.commands import StoreCommand

R = TypeVar("R")


class EdgeStore:
    """Embedded Qdrant in one process, as a ``VectorStore``.

    Args:
        data_dir: The data directory; collections live in ``collections`` below it.
        timeouts: The limit of one operation.
        clock: The loop's clock.
        settings: When collections are optimised.
        number: Which of the server's store processes it is, from 0; the second's collections are in ``collections-2``.
        processes: Number of store processes; they share the cache's memory.
    """

    def __init__(
        self,
        data_dir: Path,
        timeouts: TimeoutSettings,
        clock: Clock,
        settings: StoreSettings | None = None,
        number: int = 0,
        processes: int = 1,
    ) -> None:
        kept = settings or StoreSettings()
        directory = data_dir / (f"collections-{number + 1}" if number else "collections")
        rule = OptimizePolicy(kept.optimize_points, kept.optimize_quiet)
        self.process = StoreProcessClient(directory, rule, cache_bytes=kept.cache_bytes // processes)
        self._timeouts = timeouts
        self._clock = clock

    async def start(self) -> None:
        """Start the store process; see :meth:`StoreProcessClient.start`."""
        await self.process.start()

    async def close(self) -> None:
        """Flush everything and end the store process."""
        await self.process.close()

    async def run(self, command: StoreCommand[R], ctx: Context) -> R:
        """Execute a command in the store process; see :meth:`penstock.stores.contract.VectorStore.run`."""
        return await self.process.call(command, ctx.within(self._timeouts.store, "store", self._clock.now()))
