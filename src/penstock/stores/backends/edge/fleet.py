"""The store processes of a server: how many there are, and what they are as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Final

from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.cores import cores
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.kernel.together import together
from penstock.stores.backends.edge import wire
from penstock.stores.backends.edge.link import StoreLink
from penstock.stores.backends.edge.shards import ShardedStore
from penstock.stores.backends.edge.snapshots import EdgeSnapshots, Step, unwatched
from penstock.stores.backends.edge.store import EdgeStore
from penstock.stores.cache import CacheState, Remembering
from penstock.stores.contract import MovableStore, Snapshots
from penstock.stores.records import Upkeep

#: Cores for each store process where nobody says how many there should be: the others are for models.
CORES_PER_SHARD: Final = 8

#: Store processes where nobody says how many; each search asks all of them.
SHARDS_MAX: Final = 4


#: Damaged collections that a warning names; of more it is told how many they are.
WARNINGS_MAX: Final = 10


class EdgeFleet:
    """Every store process of a data directory.

    Args:
        data_dir: The data directory: ``collections`` is the first process's, ``collections-2`` the second's.
        timeouts: The limit of one operation.
        clock: The loop's clock.
        settings: How many there are, and when collections are optimised.
        step: Called at each step of a restore, see :mod:`penstock.stores.backends.edge.snapshots`.

    Attributes:
        store: All of them as one store.
        snapshots: Snapshots of all of them.
    """

    def __init__(
        self,
        data_dir: Path,
        timeouts: TimeoutSettings,
        clock: Clock,
        settings: StoreSettings,
        step: Step = unwatched,
    ) -> None:
        wanted = settings.shards or default_shards(cores())
        # What was spread over more than are wanted now needs them still.
        count = max(wanted, there(data_dir))
        self._stores = [EdgeStore(data_dir, timeouts, clock, settings, number, count) for number in range(count)]
        sharded = ShardedStore(self._stores, wanted)
        self.store: MovableStore = sharded if count > 1 else self._stores[0]
        links = [one.link for one in self._stores]
        self._snapshots = EdgeSnapshots(data_dir, links, sharded, settings.snapshots_keep, step)
        self.snapshots: Snapshots = self._snapshots

    @property
    def remote(self) -> bool:
        """Whether it is another server."""
        return False

    @property
    def missing(self) -> list[str]:
        """Why processes do not work, in words."""
        return list(dict.fromkeys(state for one in self._stores if (state := one.link.state)))

    @property
    def warnings(self) -> list[str]:
        """Which collections cannot be opened, and why."""
        damaged = {name: reason for one in self._stores for name, reason in one.link.damaged.items()}
        said = [f"collection {name!r} is damaged: {damaged[name]}" for name in sorted(damaged)[:WARNINGS_MAX]]
        more = len(damaged) - len(said)
        return [*said, f"{more} more collections are damaged"] if more else said

    @property
    def connections(self) -> int:
        """None: there is no server."""
        return 0

    @property
    def remembering(self) -> tuple[Remembering, ...]:
        """What the processes remember of points."""
        return (_PointCaches([one.link for one in self._stores]),)

    def upkeep(self) -> list[Upkeep]:
        """Return how the upkeep of each collection stands in each process."""
        return [upkeep for one in self._stores for upkeep in one.link.upkeep]

    def when_ready(self, call: Callable[[], None]) -> None:
        """Call ``call`` whenever one of the processes has come up again."""
        for one in self._stores:
            one.link.on_ready = call

    def watch(self) -> None:
        """See whether the processes go on; call it about every second."""
        for one in self._stores:
            one.link.look()

    async def look(self, ctx: Context) -> None:
        """Ask every process for a sign of life."""
        await together([one.ping(ctx) for one in self._stores])

    async def start(self) -> None:
        """Start every process; see :meth:`penstock.stores.backends.edge.link.StoreLink.start`."""
        await asyncio.to_thread(self._snapshots.recover)
        await together([one.start() for one in self._stores])
        await asyncio.to_thread(self._snapshots.recover)

    async def close(self) -> None:
        """Flush everything and end every process."""
        await self._snapshots.close()
        closing: list[Coroutine[Any, Any, None]] = [one.close() for one in self._stores]
        await asyncio.gather(*closing)


class _PointCaches:
    """What the processes remember of points, as one."""

    def __init__(self, links: Sequence[StoreLink]) -> None:
        self._links = links

    def shrink(self, share: float) -> None:
        """Have each give up the least recently used."""
        for link in self._links:
            link.tell(wire.Shrink(share))

    def state(self) -> CacheState:
        """Return the numbers as they were last told, about a second ago."""
        return reduce(_sum, (link.cache for link in self._links))


def _sum(one: CacheState, other: CacheState) -> CacheState:
    return CacheState(
        one.name,
        one.entries + other.entries,
        one.bytes + other.bytes,
        one.hits + other.hits,
        one.misses + other.misses,
        one.evictions + other.evictions,
    )


def default_shards(available: int) -> int:
    """Return how many store processes a machine of so many cores gets."""
    return min(SHARDS_MAX, max(1, available // CORES_PER_SHARD))


def there(data_dir: Path) -> int:
    """Return how many processes a data directory has been used with."""
    number = 1
    while (data_dir / f"collections-{number + 1}").is_dir():
        number += 1
    return number
