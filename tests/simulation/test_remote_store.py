"""The whole server on virtual time with its points on another server: well, slow, dead, back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from penstock.core.dependencies import Dependencies
from penstock.core.guards import STORE_CALLS_MIN
from penstock.kernel.errors import Unavailable
from penstock.policies.breaker import BreakerState
from penstock.stores.commands import SearchBatch, StoreCommand
from tests.clock import virtual
from tests.simulation.world import SMALL, World, changed

#: Room for many searches at once: what holds them back is to be the limit.
ROOMY = changed(SMALL, search={"workers": 16}, ml={"embed_workers": 16, "max_inflight": 32}, qdrant={"pool_size": 32})


class RemoteWorld(World):
    """A world whose store is another server."""

    def __init__(self) -> None:
        super().__init__(settings=ROOMY)

    def _parts(self) -> Dependencies:
        return replace(super()._parts(), remote_dependencies=frozenset({"store"}))


@virtual
async def test_searches_get_permits_as_the_limit_toward_the_store_moves():
    async with RemoteWorld() as world:
        remote = world.core.remotes["store"]
        assert world.core.pools.search.limit == min(16, remote.limit // 2)
        assert world.core.pools.index.limit == min(ROOMY.index.workers, remote.limit // 4)
        remote.on_limit(32)
        assert world.core.pools.search.limit == 16
        remote.on_limit(STORE_CALLS_MIN)
        assert (world.core.pools.search.limit, world.core.pools.index.limit) == (4, 2)
        remote.on_limit(1)
        assert (world.core.pools.search.limit, world.core.pools.index.limit) == (1, 1)


@virtual
async def test_searches_are_answered_through_the_limit_and_counted():
    async with RemoteWorld() as world:
        replies = await asyncio.gather(*(world.search(f"client-{n}") for n in range(10)))
        assert [reply.status for reply in replies] == [200] * 10
        assert int(world.metric("dependency_calls_total", dependency="store", outcome="calls")) >= 10


@virtual
async def test_a_store_that_fails_in_passing_is_asked_again_and_nobody_notices():
    async with RemoteWorld() as world:
        failed = 0

        async def once(command: StoreCommand[Any]) -> None:
            nonlocal failed
            if isinstance(command, SearchBatch) and not failed:
                failed += 1
                raise Unavailable("cut off", dependency="store")

        world.store.hook = once
        reply = await world.search("client-0")
        assert (reply.status, failed) == (200, 1)


@virtual
async def test_a_store_that_is_gone_makes_the_server_unready_until_it_is_back():
    async with RemoteWorld() as world:

        async def gone(_command: StoreCommand[Any]) -> None:
            raise Unavailable("gone", dependency="store")

        world.store.hook = gone
        for n in range(12):
            assert (await world.search(f"client-{n}")).status == 503
        assert world.core.guards["store"].state is BreakerState.OPEN
        assert "the vector store does not answer" in world.core.unready_reasons()
        world.store.hook = well
        await asyncio.sleep(30)
        for n in range(4):
            await world.search(f"client-{n}")
        assert world.core.unready_reasons() == []


async def well(_command: StoreCommand[Any]) -> None:
    """Let every command pass."""
