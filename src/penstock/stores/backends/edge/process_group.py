"""Group of a server's store processes: their number, and a common interface to all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Final

from penstock.kernel.context import Clock, Context, run_all
from penstock.kernel.cores import available_cores
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.stores.backends.edge import ipc
from penstock.stores.backends.edge.edge_snapshots import EdgeSnapshots, OnRestoreStep, ignore_restore_step
from penstock.stores.backends.edge.process_client import EdgeStore, StoreProcessClient
from penstock.stores.backends.edge.sharded_store import ShardedStore
from penstock.stores.data_model import IndexBuildStatus
from penstock.stores.key_value_cache import CacheState, ShrinkableCache
from penstock.stores.store_service import StoreService

#: Cores for each store process if ``store.shards`` is not set: the others are for models.
CORES_PER_PROCESS: Final = 8

#: Store processes at most if ``store.shards`` is not set; each search asks all of them.
PROCESSES_MAX: Final = 4


#: Damaged collections that warnings name; of further ones only the number is given.
WARNINGS_MAX: Final = 10


class EdgeProcessGroup(StoreService):
    """Every store process of a data directory.

    Args:
        data_dir: The data directory: ``collections`` is the first process's, ``collections-2`` the second's.
        timeouts: The limit of one operation.
        clock: The loop's clock.
        settings: How many there are, and when collections are optimised.
        on_step: Called at each step of a restore, see :mod:`penstock.stores.backends.edge.edge_snapshots`.
    """

    remote = False

    def __init__(
        self,
        data_dir: Path,
        timeouts: TimeoutSettings,
        clock: Clock,
        settings: StoreSettings,
        on_step: OnRestoreStep = ignore_restore_step,
    ) -> None:
        wanted = settings.shards or default_process_count(available_cores())
        # What was spread over more than are wanted now needs them still.
        count = max(wanted, existing_process_count(data_dir))
        self._stores = [EdgeStore(data_dir, timeouts, clock, settings, number, count) for number in range(count)]
        sharded = ShardedStore(self._stores, wanted)
        self.store = sharded if count > 1 else self._stores[0]
        clients = [one.process for one in self._stores]
        self.snapshots = self._snapshots = EdgeSnapshots(data_dir, clients, sharded, settings.snapshots_keep, on_step)

    @property
    def down_reasons(self) -> list[str]:
        """Reasons why processes do not work."""
        return list(dict.fromkeys(state for one in self._stores if (state := one.process.failure_reason)))

    @property
    def warnings(self) -> list[str]:
        """Warnings that name collections that cannot be opened, and the reasons."""
        damaged = {name: reason for one in self._stores for name, reason in one.process.damaged.items()}
        said = [f"collection {name!r} is damaged: {damaged[name]}" for name in sorted(damaged)[:WARNINGS_MAX]]
        more = len(damaged) - len(said)
        return [*said, f"{more} more collections are damaged"] if more else said

    @property
    def caches(self) -> tuple[ShrinkableCache, ...]:
        """The processes' caches of points."""
        return (_PointCaches([one.process for one in self._stores]),)

    def index_builds(self) -> list[IndexBuildStatus]:
        """Return the status of each collection's index builds in each process."""
        return [upkeep for one in self._stores for upkeep in one.process.index_builds]

    def when_ready(self, call: Callable[[], None]) -> None:
        """Call ``call`` whenever one of the processes has come up again."""
        for one in self._stores:
            one.process.on_ready = call

    def check_processes(self) -> None:
        """Check the processes' heartbeats; call about every second."""
        for one in self._stores:
            one.process.check_heartbeat()

    async def probe(self, ctx: Context) -> None:
        """Ping every process."""
        await run_all([one.run(ipc.Ping(), ctx) for one in self._stores])

    async def start(self) -> None:
        """Start every process; see :meth:`penstock.stores.backends.edge.process_client.StoreProcessClient.start`."""
        await asyncio.to_thread(self._snapshots.remove_leftovers)
        await run_all([one.start() for one in self._stores])
        await asyncio.to_thread(self._snapshots.remove_leftovers)

    async def close(self) -> None:
        """Flush everything and end every process."""
        await self._snapshots.close()
        closing: list[Coroutine[Any, Any, None]] = [one.close() for one in self._stores]
        await asyncio.gather(*closing)


class _PointCaches:
    """The processes' caches of points, as one."""

    def __init__(self, clients: Sequence[StoreProcessClient]) -> None:
        self._clients = clients

    def shrink(self, share: float) -> None:
        """Have each process evict its least recently used entries."""
        for client in self._clients:
            client.send(ipc.ShrinkCache(share))

    def state(self) -> CacheState:
        """Return the numbers as they were last reported, about a second ago."""
        return reduce(_sum, (client.cache_state for client in self._clients))


def _sum(one: CacheState, other: CacheState) -> CacheState:
    return CacheState(
        one.name,
        one.entries + other.entries,
        one.bytes + other.bytes,
        one.hits + other.hits,
        one.misses + other.misses,
        one.evictions + other.evictions,
    )


def default_process_count(available: int) -> int:
    """Return how many store processes a machine of so many cores gets."""
    return min(PROCESSES_MAX, max(1, available // CORES_PER_PROCESS))


def existing_process_count(data_dir: Path) -> int:
    """Return how many processes a data directory has been used with."""
    number = 1
    while (data_dir / f"collections-{number + 1}").is_dir():
        number += 1
    return number
