"""The embedded store's process: killed, closed, started again, asked by many at once."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.kernel.context import point_id
from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.stores.backends.edge import process_client
from penstock.stores.backends.edge.process_client import EdgeStore
from penstock.stores.backends.edge.process_group import EdgeProcessGroup
from penstock.stores.commands import (
    CreateCollection,
    DescribeCollection,
    FetchPayloads,
    GetDocuments,
    ListCollections,
    UpsertPoints,
)
from penstock.stores.data_model import ArmQuery, CollectionInfo, Match
from penstock.stores.key_value_cache import CacheState
from tests.contract.shop import METADATA, WORK, point
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import search_arm, unit


def edge(tmp_path: Path) -> EdgeStore:
    return EdgeStore(tmp_path, TimeoutSettings(), LoopClock())


def test_a_killed_store_process_fails_who_waits_and_loses_nothing_acknowledged(tmp_path):
    async def scenario() -> None:
        store = edge(tmp_path)
        await store.start()
        try:
            await store.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
            for n in range(20):
                await store.run(UpsertPoints("c", [point(f"d{n}")]), WORK)
            pid = store.process.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            waiting = [asyncio.create_task(store.run(DescribeCollection("c"), WORK)) for _ in range(3)]
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            for outcome in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(outcome, Unavailable)
                assert outcome.retryable
            assert (await store.run(DescribeCollection("c"), WORK)).documents == 20
            assert store.process.pid != pid
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_killed_store_process_comes_back_though_nobody_asks(tmp_path):
    async def scenario() -> None:
        store = edge(tmp_path)
        await store.start()
        try:
            os.kill(store.process.pid or 0, signal.SIGKILL)
            # The listener ends with the process and leaves a mender.
            await asyncio.wait_for(store.process._reader_task, 30)
            await asyncio.wait_for(store.process._restart_task, 30)
            assert store.process.alive
            assert await store.run(ListCollections(), WORK) == []
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_frozen_process_is_told_and_well_again_once_it_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(process_client, "FREEZE_TIMEOUT_S", 2.5)

    async def scenario() -> None:
        store = edge(tmp_path)
        woken = []
        await store.start()
        store.process.on_ready = lambda: woken.append(True)
        try:
            assert store.process.failure_reason == ""
            os.kill(store.process.pid or 0, signal.SIGSTOP)
            try:
                async with asyncio.timeout(30):
                    while "has not moved" not in store.process.failure_reason:  # noqa: ASYNC110 - a process is told by nobody
                        await asyncio.sleep(0.1)
            finally:
                os.kill(store.process.pid or 0, signal.SIGCONT)
            async with asyncio.timeout(30):
                while store.process.failure_reason:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.1)
            assert woken == [True], "what was held against it is forgotten"
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_start_is_waited_for_as_long_as_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(process_client, "START_TIMEOUT_S", 2.0)
    monkeypatch.setattr(process_client, "START_POLL_S", 0.1)
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import sys, time\n"
        "from penstock.stores.backends.edge import collection_registry, process\n"
        "discover = collection_registry.CollectionRegistry._discover\n"
        "def slowly(self):\n"
        "    for _ in range(40):\n"
        "        self.activity.record('x'); time.sleep(0.1)\n"
        "    discover(self)\n"
        "collection_registry.CollectionRegistry._discover = slowly\n"
        "process.main()\n"
    )
    stuck = tmp_path / "stuck.py"
    stuck.write_text("import time\ntime.sleep(60)\n")

    async def scenario() -> None:
        store = edge(tmp_path)
        store.process._program = (str(slow),)
        await store.start()
        await store.close()
        frozen = edge(tmp_path)
        frozen.process._program = (str(stuck),)
        monkeypatch.setattr(process_client, "CLOSE_TIMEOUT_S", 0.1)
        with pytest.raises(Unavailable, match="did not start in time"):
            await frozen.start()

    asyncio.run(scenario())


def test_a_closed_store_stays_closed(tmp_path):
    async def scenario() -> None:
        store = edge(tmp_path)
        await store.start()
        await store.close()
        assert not store.process.alive
        with pytest.raises(Unavailable, match="closed"):
            await store.run(ListCollections(), WORK)
        await store.close()

    asyncio.run(scenario())


def test_what_was_stored_is_there_after_a_restart(tmp_path):
    async def scenario() -> None:
        store = edge(tmp_path)
        await store.start()
        await store.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
        await store.run(UpsertPoints("c", [point("a", metadata=METADATA["odd"])]), WORK)
        await store.close()
        again = edge(tmp_path)
        await again.start()
        assert (await again.run(GetDocuments("c", ["a"]), WORK)).keys() == {"a"}
        await again.close()

    asyncio.run(scenario())


def test_two_stores_on_one_directory_are_told_apart_by_a_clear_code(tmp_path, monkeypatch):
    monkeypatch.setattr(process_client, "LOCKED_ATTEMPTS_MAX", 2)
    monkeypatch.setattr(process_client, "LOCKED_PAUSE_S", 0.01)

    async def scenario() -> None:
        first, second = edge(tmp_path), edge(tmp_path)
        await first.start()
        try:
            await first.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
            with pytest.raises(Unavailable, match="another process") as caught:
                await second.start()
            assert caught.value.code == "store_locked"
            assert not second.process.alive
            assert (await first.run(DescribeCollection("c"), WORK)).name == "c"
        finally:
            await first.close()
        await second.start()
        assert [info.name for info in await second.run(ListCollections(), WORK)] == ["c"]
        await second.close()

    asyncio.run(scenario())


def test_many_searches_at_once_are_answered_each_with_its_own(tmp_path):
    async def scenario() -> None:
        store = edge(tmp_path)
        await store.start()
        try:
            await store.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
            await store.run(UpsertPoints("c", [point(f"d{n}", language=f"l{n}") for n in range(50)]), WORK)
            queries = [ArmQuery(unit(1, 0), 5, (Match("language", [f"l{n}"]),)) for n in range(50)]
            found = await asyncio.gather(*(search_arm(store, "c", query, WORK) for query in queries))
            assert [[s.point for s in hits] for hits in found] == [[point_id(f"d{n}", 0)] for n in range(50)]
            # One bad query among good ones spoils its own answer only.
            bad = ArmQuery(unit(1, 0, 0), 5)
            mixed = await asyncio.gather(
                search_arm(store, "c", queries[0], WORK),
                search_arm(store, "c", bad, WORK),
                search_arm(store, "c", queries[1], WORK),
                return_exceptions=True,
            )
            assert isinstance(mixed[1], Exception)
            assert [s.point for s in mixed[0]] == [point_id("d0", 0)]
            assert [s.point for s in mixed[2]] == [point_id("d1", 0)]
        finally:
            await store.close()

    asyncio.run(scenario())


async def told(fleet: EdgeProcessGroup, fits: Callable[[CacheState], bool]) -> CacheState:
    """Return what the processes tell of what they remember, as soon as it fits."""
    (cache,) = fleet.caches
    while not fits(cache.state()):  # noqa: ASYNC110 - a condition, not an event
        await asyncio.sleep(0.01)
    return cache.state()


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_remembered_of_points_is_told_and_given_up_when_memory_is_short(tmp_path, processes):
    async def scenario() -> None:
        fleet = EdgeProcessGroup(tmp_path, TimeoutSettings(), LoopClock(), StoreSettings(shards=processes))
        await fleet.start()
        try:
            store, names = fleet.store, [f"d{n}" for n in range(8)]
            await store.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
            await store.run(UpsertPoints("c", [point(name) for name in names]), WORK)
            places = [point_id(name, 0) for name in names]
            assert (await fleet.store.run(FetchPayloads("c", places), WORK)).keys() == set(places)
            async with asyncio.timeout(30):
                state = await told(fleet, lambda state: state.entries == len(names))
                assert state.misses >= len(names)
                assert state.bytes > 0
                fleet.caches[0].shrink(0.0)
                state = await told(fleet, lambda state: state.entries == 0)
                assert (state.bytes, state.evictions) == (0, len(names))
            assert (await fleet.store.run(FetchPayloads("c", places), WORK)).keys() == set(places)
        finally:
            await fleet.close()
            fleet.caches[0].shrink(0.0)  # nobody is there to be told

    asyncio.run(scenario())
