"""One damaged collection is alone: every way of damaging it, a real engine in its process, and the others serve."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from penstock.kernel.errors import Unavailable
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.stores.backends.edge.checkpoint import CHECKPOINT_FILE
from penstock.stores.backends.edge.manifest import MANIFEST_FILE
from penstock.stores.backends.edge.process_group import EdgeProcessGroup
from penstock.stores.commands import (
    CreateCollection,
    DescribeCollection,
    DropCollection,
    ListCollections,
    ListDocuments,
    UpsertPoints,
)
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import STATE_CLOSED, STATE_DAMAGED, STATE_OPEN, ArmQuery, CollectionInfo
from tests.contract.shop import WORK, point
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import search_arm, unit

BAD, GOOD = CollectionInfo("bad", 2, "m"), CollectionInfo("good", 2, "m")

#: Documents of each collection.
DOCUMENTS = 30


def segment(home: Path) -> Path:
    return next(path for path in sorted((home / "shard" / "segments").iterdir()) if path.is_dir())


def file_named(home: Path, name: str) -> Path:
    return next(path for path in sorted(home.rglob(name)) if path.is_file())


def scramble(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(bytes(range(1, 256)) * (size // 255 + 1))
    os.truncate(path, size)


def truncate(name: str) -> Callable[[Path], None]:
    return lambda home: os.truncate(file_named(home, name), 0)


def scrambled(name: str) -> Callable[[Path], None]:
    return lambda home: scramble(file_named(home, name))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an empty manifest": lambda home: (home / MANIFEST_FILE).write_bytes(b""),
    "no manifest": lambda home: (home / MANIFEST_FILE).unlink(),
    "a manifest that is a directory": lambda home: ((home / MANIFEST_FILE).unlink(), (home / MANIFEST_FILE).mkdir()),
    "a newer format": lambda home: (home / MANIFEST_FILE).write_text(
        (home / MANIFEST_FILE).read_text().replace('"format": 1', '"format": 99')
    ),
    "no generation": lambda home: shutil.rmtree(home / "shard"),
    "an empty generation": lambda home: (shutil.rmtree(home / "shard"), (home / "shard").mkdir()),
    "no segments": lambda home: shutil.rmtree(home / "shard" / "segments"),
    "a segment gone": lambda home: shutil.rmtree(segment(home)),
    "no log": lambda home: shutil.rmtree(home / "shard" / "wal"),
    "a truncated page": truncate("page_0.dat"),
    "a truncated id tracker": truncate("mutable_id_tracker.mappings"),
    "a truncated segment state": truncate("segment.json"),
    "a scrambled segment state": scrambled("segment.json"),
    "a scrambled tracker": scrambled("tracker.dat"),
    "a scrambled configuration": scrambled("edge_config.json"),
}


async def running(data_dir: Path, shards: int, use: Callable[[EdgeProcessGroup], Awaitable[None]]) -> None:
    fleet = EdgeProcessGroup(data_dir, TimeoutSettings(), LoopClock(), StoreSettings(shards=shards))
    await fleet.start()
    try:
        await use(fleet)
    finally:
        await fleet.close()


async def filled(fleet: EdgeProcessGroup) -> None:
    for info in (BAD, GOOD):
        await fleet.store.run(CreateCollection(info), WORK)
        await fleet.store.run(UpsertPoints(info.name, [point(f"d{n}") for n in range(DOCUMENTS)]), WORK)


async def good_serves(store: VectorStore) -> None:
    assert (await store.run(DescribeCollection("good"), WORK)).documents == DOCUMENTS
    assert await search_arm(store, "good", ArmQuery(unit(1.0, 0.0), 3), WORK)
    await store.run(UpsertPoints("good", [point("d0")]), WORK)


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


#: Those that are tried in one of two store processes too.
SHARDED = ("no manifest", "no generation", "a segment gone", "a scrambled segment state")


@pytest.mark.parametrize(
    ("damage", "shards"), [*((damage, 1) for damage in DAMAGES), *((damage, 2) for damage in SHARDED)]
)
def test_a_damaged_collection_is_listed_left_alone_and_can_be_deleted(tmp_path: Path, damage: str, shards: int) -> None:
    # The part in the last store process: with two, the first knows nothing of it.
    home = tmp_path / ("collections" if shards == 1 else "collections-2") / "bad"
    asyncio.run(running(tmp_path, shards, filled))
    DAMAGES[damage](home)
    before = tree(home)

    async def use(fleet: EdgeProcessGroup) -> None:
        store = fleet.store
        bad, good = await store.run(ListCollections(), WORK)
        assert (bad.name, bad.state, good.state) == ("bad", STATE_DAMAGED, STATE_CLOSED)
        assert bad.reason
        for ask in (
            lambda: search_arm(store, "bad", ArmQuery(unit(1.0, 0.0), 3), WORK),
            lambda: store.run(UpsertPoints("bad", [point(f"e{n}") for n in range(DOCUMENTS)]), WORK),
            lambda: store.run(ListDocuments("bad", (), None, 10), WORK),
            lambda: store.run(CreateCollection(BAD), WORK),
        ):
            with pytest.raises(Unavailable, match="bad"):
                await ask()
        await good_serves(store)
        assert not fleet.down_reasons
        await told(fleet)
        if "scrambled" not in damage:
            assert tree(home) == before, "nothing of it is changed"
        await store.run(DropCollection("bad"), WORK)
        assert [info.name for info in await store.run(ListCollections(), WORK)] == ["good"]
        await store.run(CreateCollection(BAD), WORK)
        assert (await store.run(DescribeCollection("bad"), WORK)).documents == 0

    asyncio.run(running(tmp_path, shards, use))


async def told(fleet: EdgeProcessGroup) -> None:
    """Wait until the front has been told of the damage, about a second later."""
    async with asyncio.timeout(30):
        while not fleet.warnings:  # noqa: ASYNC110 - the notice comes by itself
            await asyncio.sleep(0.05)
    assert "'bad' is damaged" in fleet.warnings[0]


def test_a_mended_collection_opens_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(running(tmp_path, 1, filled))
    home = tmp_path / "collections" / "bad"
    whole = (home / MANIFEST_FILE).read_bytes()
    (home / MANIFEST_FILE).write_bytes(b"")

    async def use(fleet: EdgeProcessGroup) -> None:
        assert (await fleet.store.run(DescribeCollection("bad"), WORK)).state == STATE_DAMAGED
        (home / MANIFEST_FILE).write_bytes(whole)
        async with asyncio.timeout(60):
            while True:
                try:
                    assert await search_arm(fleet.store, "bad", ArmQuery(unit(1.0, 0.0), 3), WORK)
                    return
                except Unavailable:
                    await asyncio.sleep(0.1)

    asyncio.run(running(tmp_path, 1, use))


def test_a_foreign_owner_is_named_with_what_to_do(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    asyncio.run(running(tmp_path, 1, filled))
    home = tmp_path / "collections" / "bad"
    home.chmod(0)

    async def use(fleet: EdgeProcessGroup) -> None:
        bad = await fleet.store.run(DescribeCollection("bad"), WORK)
        assert bad.state == STATE_DAMAGED
        assert "chown" in bad.reason
        await good_serves(fleet.store)

    try:
        asyncio.run(running(tmp_path, 1, use))
    finally:
        home.chmod(0o700)


def test_what_was_closed_is_counted_without_being_opened(tmp_path: Path) -> None:
    asyncio.run(running(tmp_path, 1, filled))
    assert (tmp_path / "collections" / "good" / CHECKPOINT_FILE).exists()

    async def use(fleet: EdgeProcessGroup) -> None:
        listed = await fleet.store.run(ListCollections(), WORK)
        assert [(one.state, one.documents, one.chunks) for one in listed] == [(STATE_CLOSED, DOCUMENTS, DOCUMENTS)] * 2
        assert all(one.disk_bytes for one in listed)
        await good_serves(fleet.store)
        assert [one.state for one in await fleet.store.run(ListCollections(), WORK)] == [STATE_CLOSED, STATE_OPEN]

    asyncio.run(running(tmp_path, 1, use))


def test_a_collection_deleted_under_the_server_gets_no_writes(tmp_path: Path) -> None:
    async def use(fleet: EdgeProcessGroup) -> None:
        await filled(fleet)
        shutil.rmtree(tmp_path / "collections" / "bad")
        with pytest.raises(Unavailable) as caught:
            await fleet.store.run(UpsertPoints("bad", [point("late")]), WORK)
        assert caught.value.code == "directory_gone"
        await good_serves(fleet.store)
        shutil.rmtree(tmp_path / "collections")
        for write in (
            lambda: fleet.store.run(UpsertPoints("good", [point("late")]), WORK),
            lambda: fleet.store.run(CreateCollection(CollectionInfo("new", 2, "m")), WORK),
            lambda: fleet.store.run(DropCollection("good"), WORK),
        ):
            with pytest.raises(Unavailable) as caught:
                await write()
            assert caught.value.code == "directory_gone"
        assert not (tmp_path / "collections").exists()

    asyncio.run(running(tmp_path, 1, use))


def test_a_process_that_comes_back_does_not_begin_a_deleted_directory_anew(tmp_path: Path) -> None:
    async def use(fleet: EdgeProcessGroup) -> None:
        await filled(fleet)
        shutil.rmtree(tmp_path / "collections")
        os.kill(fleet._stores[0].process.pid or 0, signal.SIGKILL)
        async with asyncio.timeout(60):
            while True:
                try:
                    await fleet.store.run(ListCollections(), WORK)
                except Unavailable as error:
                    if error.code == "directory_gone":
                        break
                await asyncio.sleep(0.1)
        assert fleet.down_reasons
        assert not (tmp_path / "collections").exists()

    asyncio.run(running(tmp_path, 1, use))


@pytest.mark.parametrize(("opening", "deaths"), [(True, 1), (False, 2)])
def test_a_collection_that_kills_the_process_stays_closed(tmp_path: Path, *, opening: bool, deaths: int) -> None:
    """The engine dies over one collection: by a signal that only the engine brings about."""
    asyncio.run(running(tmp_path, 1, filled))
    (tmp_path / "die").touch()

    async def use(fleet: EdgeProcessGroup) -> None:
        seen = 0
        async with asyncio.timeout(120):
            while True:
                try:
                    await fleet.store.run(ListDocuments("bad", (), None, 10), WORK)
                except Unavailable as error:
                    if error.code == "collection_damaged":
                        break
                    seen += 1
                await asyncio.sleep(0.05)
        assert "SIGABRT" in (await fleet.store.run(DescribeCollection("bad"), WORK)).reason
        await good_serves(fleet.store)
        (tmp_path / "die").unlink()
        await fleet.store.run(DropCollection("bad"), WORK)
        await fleet.store.run(CreateCollection(BAD), WORK)
        await fleet.store.run(ListDocuments("bad", (), None, 10), WORK)
        assert seen >= deaths

    async def crashing(data_dir: Path) -> None:
        fleet = EdgeProcessGroup(data_dir, TimeoutSettings(), LoopClock(), StoreSettings(shards=1))
        program = (str(Path(__file__).with_name("crashing_store.py")), str(tmp_path / "die"), str(int(opening)))
        fleet._stores[0].process._program = program
        await fleet.start()
        try:
            await use(fleet)
        finally:
            await fleet.close()

    asyncio.run(crashing(tmp_path))
