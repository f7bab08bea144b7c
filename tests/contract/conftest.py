"""The stores that the contract's suite runs over."""

import asyncio
from collections.abc import Iterator

import pytest

from penstock.kernel.settings import TimeoutSettings
from penstock.stores.backends.edge.process_client import EdgeStore
from penstock.stores.backends.edge.sharded_store import ShardedStore
from tests.contract.shop import QDRANT_FEATURES, QDRANT_VERSIONS, Features, Shop
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore
from tests.fakes.qdrant import qdrant_server, remove_all


@pytest.fixture(scope="module", params=["memory", "edge", "sharded", *QDRANT_VERSIONS])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with asyncio.Runner() as runner:
        if request.param == "memory":
            yield Shop(runner, MemoryStore())
            return
        if request.param == "sharded":
            sharded = ShardedStore([MemoryStore(), MemoryStore(), MemoryStore()], 3)
            yield Shop(runner, sharded, Features(rarity=False))
            return
        if request.param in QDRANT_VERSIONS:
            server = qdrant_server(QDRANT_VERSIONS[request.param])
            runner.run(server.start())
            yield Shop(runner, server.store, QDRANT_FEATURES)
            runner.run(remove_all(server))
            return
        store = EdgeStore(tmp_path_factory.mktemp("edge"), TimeoutSettings(), LoopClock())
        runner.run(store.start())
        yield Shop(runner, store)
        runner.run(store.close())
