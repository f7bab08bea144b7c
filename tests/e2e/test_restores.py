"""Restores under fire, with the real engine: killed at every step, on a full disk, stopped, two at once, crafted."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from penstock.kernel.context import Context, Deadline
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores.backends.edge import disk, restore_check
from penstock.stores.backends.edge.edge_snapshots import RESTORE_STEPS
from penstock.stores.backends.edge.process_group import EdgeProcessGroup
from penstock.stores.commands import (
    CreateCollection,
    DescribeCollection,
    DropCollection,
    ListCollections,
    ListDocuments,
    Retrieve,
    UpsertPoints,
)
from penstock.stores.data_model import ChunkPayload, CollectionInfo, Point
from tests.e2e.conftest import environment
from tests.fakes import archives
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import sparse, unit

DYING = Path(__file__).with_name("dying_restore.py")
WORK = Context.background()
LAYOUT = CollectionInfo("", 2, "m")

#: Archives that are tried with the engine; many more are tried without it.
CRAFTED = 16

#: What the snapshots of the first release hold, by collection.
RELEASED = {"alpha": {"alpha0", "alpha1", "alpha2"}, "beta": {"beta0", "beta1"}}

#: What the tests write in their place.
WRITTEN = {"alpha": {"new"}, "gamma": {"g0", "g1"}}


def real(test):
    """Run a test on a loop of its own: it waits for processes."""

    @functools.wraps(test)
    def run(*args, **named):
        asyncio.run(test(*args, **named))

    return run


@asynccontextmanager
async def fleet(data_dir, shards=1, **settings):
    one = EdgeProcessGroup(data_dir, TimeoutSettings(), LoopClock(), StoreSettings(shards=shards, **settings))
    await one.start()
    try:
        yield one
    finally:
        await one.close()


def lay(data_dir, name="s.snapshot", shards=1):
    """Put a snapshot of the first release among the snapshots."""
    (data_dir / "snapshots").mkdir(parents=True, exist_ok=True)
    (data_dir / "snapshots" / name).write_bytes(archives.released(shards))
    return name


async def write(store, collections=WRITTEN):
    for name, ids in collections.items():
        await store.run(CreateCollection(CollectionInfo(name, 2, "m")), WORK)
        points = [
            Point(ChunkPayload(id=id, chunk=0, text=id, hash="h", chunks=1), unit(1, 0), sparse(t1=1)) for id in ids
        ]
        await store.run(UpsertPoints(name, points), WORK)


async def held(store):
    """Return the documents of each collection, each found by listing and by searching."""
    found = {}
    for info in await store.run(ListCollections(), WORK):
        listed = {head.id for head in (await store.run(ListDocuments(info.name, (), None, 100), WORK)).documents}
        assert await searched(store, info.name) == listed
        assert info.documents == len(listed)
        found[info.name] = listed
    return found


async def searched(store, collection):
    wanted = RetrievalQuery(100, 100, np.asarray([1, 0], "f4"), sparse(t1=1), None, {}, "rrf", False, "", False)
    found = await store.run(Retrieve(collection, wanted, ()), WORK)
    assert not found.failures
    return {hit.payload.id for hit in found.hits}


def files(data_dir):
    """Return what lies in the data directory but for what is being removed, and for the engine's own files."""
    found = set()
    for directory, below, names in os.walk(data_dir):
        place = Path(directory).relative_to(data_dir)
        found |= {str(place / name) for name in (*below, *names) if not name.startswith(".gone-")}
        # The engine's own files come and go.
        below[:] = [name for name in below if not name.startswith(".gone-") and len(place.parts) < 2]
    return found


@pytest.mark.parametrize("shards", [1, 2])
@real
async def test_a_snapshot_of_the_first_release_is_restored(tmp_path, shards):
    name = lay(tmp_path, shards=shards)
    async with fleet(tmp_path, shards) as one:
        restored = await one.snapshots.restore(name, LAYOUT, WORK, force=False)
        assert {info.name: info.documents for info in restored} == {"alpha": 3, "beta": 2}
        assert {(info.text, info.renewing) for info in restored} == {(1, False)}
        assert await held(one.store) == RELEASED
        with pytest.raises(Invalid) as caught:
            await one.snapshots.restore(name, LAYOUT, WORK, force=False)
        assert caught.value.code == "collection_exists"
    assert not (tmp_path / ".staging").exists()
    async with fleet(tmp_path, shards) as one:
        assert await held(one.store) == RELEASED


@real
async def test_fewer_shards_leave_nothing_of_more(tmp_path):
    name = lay(tmp_path)
    async with fleet(tmp_path, 2) as one:
        await write(one.store, {"alpha": {f"old{n}" for n in range(20)}})
        await one.snapshots.restore(name, LAYOUT, WORK, force=True)
        assert await held(one.store) == RELEASED
        await one.store.run(DropCollection("alpha"), WORK)
        await write(one.store, {"alpha": {"new"}})
        assert (await held(one.store))["alpha"] == {"new"}


@pytest.mark.parametrize(
    ("step", "shards"), [*((step, 1) for step in RESTORE_STEPS if step != "placed"), ("committed", 2), ("done", 2)]
)
@real
async def test_a_crash_leaves_all_as_it_was_or_all_restored(tmp_path, step, shards):
    await crash(tmp_path, step, 1, shards)


@pytest.mark.parametrize(("count", "shards"), [(1, 1), (1, 2), (3, 2)])
@real
async def test_a_crash_between_two_places_is_made_good(tmp_path, count, shards):
    await crash(tmp_path, "placed", count, shards)


async def crash(data_dir, step, count, shards):
    name = lay(data_dir, shards=shards)
    async with fleet(data_dir, shards) as one:
        await write(one.store)
    command = [sys.executable, DYING, data_dir, shards, step, count, name]
    died = await asyncio.to_thread(subprocess.run, list(map(str, command)), env=environment(), timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    committed = RESTORE_STEPS.index(step) >= RESTORE_STEPS.index("committed")
    async with fleet(data_dir, shards) as one:
        assert await held(one.store) == ({**WRITTEN, **RELEASED} if committed else WRITTEN)
        assert not (data_dir / ".staging").exists()
        await one.snapshots.restore(name, LAYOUT, WORK, force=True)
        assert await held(one.store) == {**WRITTEN, **RELEASED}


@real
async def test_a_store_process_that_dies_while_it_takes_in_is_asked_again(tmp_path, monkeypatch):
    name = lay(tmp_path)
    async with fleet(tmp_path) as one:
        await write(one.store)
        ask, killed = one.snapshots._clients[0].call, []

        async def dying(command, ctx):
            if type(command).__name__ == "InstallCollection" and len(killed) < 2:
                killed.append(command)
                one.snapshots._clients[0]._process.kill()
            return await ask(command, ctx)

        monkeypatch.setattr(one.snapshots._clients[0], "call", dying)
        await one.snapshots.restore(name, LAYOUT, WORK, force=True)
        assert await held(one.store) == {**WRITTEN, **RELEASED}


@real
async def test_a_place_that_cannot_be_taken_is_told_and_not_taken_later(tmp_path, monkeypatch):
    name = lay(tmp_path)
    async with fleet(tmp_path) as one:
        await write(one.store)
        link, taken = one.snapshots._clients[0], []
        ask = link.call

        async def failing(command, ctx):
            if type(command).__name__ == "InstallCollection" and command.collection == "beta":
                raise Broken("no memory", code="store_failed")
            return await ask(command, ctx)

        monkeypatch.setattr(link, "call", failing)
        with pytest.raises(Unavailable, match=r"1 of 2 .*\(alpha\).*no memory"):
            await one.snapshots.restore(name, LAYOUT, WORK, force=True, on_restored=taken.append)
        assert taken == ["alpha"]
    async with fleet(tmp_path) as one:
        assert await held(one.store) == {**WRITTEN, "alpha": RELEASED["alpha"]}
        await one.snapshots.restore(name, LAYOUT, WORK, force=True)
        assert await held(one.store) == {**WRITTEN, **RELEASED}


@real
async def test_a_collection_deleted_when_it_has_taken_its_place_keeps_no_other_from_its_own(tmp_path, monkeypatch):
    name = lay(tmp_path)
    async with fleet(tmp_path) as one:
        run = one.store.run

        async def deleted(command, ctx):
            if command == DescribeCollection("alpha"):
                await run(DropCollection("alpha"), ctx)
            return await run(command, ctx)

        monkeypatch.setattr(one.store, "run", deleted)
        restored = await one.snapshots.restore(name, LAYOUT, WORK, force=True)
        assert [info.name for info in restored] == ["beta"]
        monkeypatch.undo()
        assert await held(one.store) == {"beta": RELEASED["beta"]}


@real
async def test_without_room_nothing_changes_and_it_can_be_tried_again(tmp_path, monkeypatch):
    name = lay(tmp_path)
    async with fleet(tmp_path) as one:
        await write(one.store)
        before = files(tmp_path)
        for module, limit in ((disk.shutil, "free"), (disk, "written")):
            with monkeypatch.context() as patch:
                if limit == "free":
                    patch.setattr(module, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1 << 20))
                else:
                    patch.setattr(module, "COPY_FREE_BYTES_MIN", 1 << 60)
                for ask in (
                    lambda: one.snapshots.restore(name, LAYOUT, WORK, force=True),
                    lambda: one.snapshots.create(WORK),
                ):
                    with pytest.raises(Unavailable, match="make room") as caught:
                        await ask()
                    assert caught.value.code == "disk_full"
                    assert files(tmp_path) == before
        assert await held(one.store) == WRITTEN
        await one.snapshots.restore(name, LAYOUT, WORK, force=True)
        assert await held(one.store) == {**WRITTEN, **RELEASED}


@real
async def test_who_comes_while_one_is_made_or_restored_is_told(tmp_path):
    name = lay(tmp_path)
    async with fleet(tmp_path) as one:
        asked = [
            one.snapshots.restore(name, LAYOUT, WORK, force=True),
            one.snapshots.create(WORK),
            one.snapshots.create(WORK),
        ]
        first, *others = await asyncio.gather(*asked, return_exceptions=True)
        assert [info.name for info in first] == ["alpha", "beta"]
        assert [(type(other), other.code) for other in others] == [(Rejected, "snapshot_busy")] * 2
        assert (await one.snapshots.create(WORK)).collections == ["alpha", "beta"]


@real
async def test_who_hangs_up_or_waits_no_longer_leaves_nothing_behind(tmp_path):
    name = lay(tmp_path)
    async with fleet(tmp_path) as one:
        await write(one.store)
        before = files(tmp_path)
        soon = Context(Deadline(asyncio.get_running_loop().time() + 0.01, "request"), WORK.criticality, "", "", "")
        with pytest.raises(Expired):
            await one.snapshots.restore(name, LAYOUT, soon, force=True)
        await asyncio.wait([one.snapshots._task])
        for ask in (lambda: one.snapshots.restore(name, LAYOUT, WORK, force=True), lambda: one.snapshots.create(WORK)):
            waiting = asyncio.ensure_future(ask())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.wait([one.snapshots._task])
        assert files(tmp_path) == before
        assert await held(one.store) == WRITTEN


@pytest.mark.parametrize("shards", [1, 2])
@real
async def test_searches_find_the_old_or_the_new_and_never_half_of_each(tmp_path, shards):
    name = lay(tmp_path, shards=shards)
    ids = {f"new{n}" for n in range(8)}
    async with fleet(tmp_path, shards) as one:
        await write(one.store, {"alpha": ids})
        seen, done = Counter(), asyncio.Event()

        async def search():
            while not done.is_set():
                seen[frozenset(await searched(one.store, "alpha"))] += 1

        searching = [asyncio.ensure_future(search()) for _ in range(4)]
        await one.snapshots.restore(name, LAYOUT, WORK, force=True)
        done.set()
        await asyncio.gather(*searching)
        assert set(seen) <= {frozenset(ids), frozenset(RELEASED["alpha"])}
        assert await searched(one.store, "alpha") == RELEASED["alpha"]


@pytest.mark.parametrize("changed", [{"model": "n"}, {"dim": 3}, {"sparse": "learned"}])
@real
async def test_what_other_models_made_is_refused(tmp_path, changed):
    name = lay(tmp_path)
    async with fleet(tmp_path) as one:
        with pytest.raises(Invalid) as caught:
            await one.snapshots.restore(name, msgspec.structs.replace(LAYOUT, **changed), WORK, force=True)
        assert caught.value.code == "collection_conflict"
        assert await held(one.store) == {}


@real
async def test_the_oldest_of_the_servers_own_are_removed_and_no_others(tmp_path):
    mine = lay(tmp_path, "mine.snapshot")
    async with fleet(tmp_path, snapshots_keep=2) as one:
        made = [(await one.snapshots.create(WORK)).name for _ in range(4)]
        assert len(set(made)) == 4
        assert [one.name for one in await one.snapshots.list_snapshots()] == [mine, *made[2:]]


@real
async def test_a_damaged_collection_is_left_out_and_restored_from_an_older_snapshot(tmp_path):
    async with fleet(tmp_path) as one:
        await write(one.store)
        older = await one.snapshots.create(WORK)
        assert older.left_out == []
    (tmp_path / "collections" / "gamma" / "collection.json").write_bytes(b"{")
    async with fleet(tmp_path, snapshots_keep=1) as one:
        made = await one.snapshots.create(WORK)
        assert (made.collections, made.left_out) == (["alpha"], ["gamma"])
        assert [one.name for one in await one.snapshots.list_snapshots()] == [older.name, made.name]
        await one.snapshots.restore(older.name, LAYOUT, WORK, force=True)
        assert await held(one.store) == WRITTEN
        again = await one.snapshots.create(WORK)
        assert (again.left_out, [one.name for one in await one.snapshots.list_snapshots()]) == ([], [again.name])


@real
async def test_snapshots_are_listed_with_what_is_wrong_with_them_and_deleted(tmp_path):
    name = lay(tmp_path)
    (tmp_path / "snapshots" / "text").write_text("not a snapshot")
    (tmp_path / "snapshots" / "link").symlink_to(tmp_path / "snapshots" / name)
    (tmp_path / "snapshots" / "directory").mkdir()
    async with fleet(tmp_path) as one:
        told = {one.name: one for one in await one.snapshots.list_snapshots()}
        assert told[name].collections == ["alpha", "beta"]
        assert "no snapshot" in told["text"].reason
        assert "link" in told["link"].reason
        assert "directory" not in told
        await one.snapshots.delete(name)
        for absent in (name, "..", "../collections", "a/b", "", "\0", "directory/../text", "directory"):
            with pytest.raises(Invalid) as caught:
                await one.snapshots.delete(absent)
            assert caught.value.code == "snapshot_not_found"


@real
async def test_crafted_and_rotten_archives_are_restored_or_refused_and_harm_nobody(tmp_path):
    (tmp_path / "snapshots").mkdir()
    file, whole = tmp_path / "snapshots" / "s.snapshot", archives.records(archives.released())
    done = Counter()
    async with fleet(tmp_path) as one:
        await write(one.store)
        pid, before = one._stores[0].process.pid, files(tmp_path)
        for seed in range(CRAFTED):
            luck = random.Random(seed)
            file.write_bytes(luck.choice((archives.mutated, archives.rotten))(whole, luck))
            try:
                await one.snapshots.restore(file.name, LAYOUT, WORK, force=True)
            except Invalid as error:
                done[error.code] += 1
                assert files(tmp_path) - before <= {"snapshots/s.snapshot"}
                assert await held(one.store) == WRITTEN
            else:
                done["restored"] += 1
                assert await held(one.store) == {**WRITTEN, **RELEASED}
                await one.store.run(DropCollection("beta"), WORK)
                await one.store.run(DropCollection("alpha"), WORK)
                await write(one.store)
        assert one._stores[0].process.pid == pid
    assert set(done) == {"restored", "snapshot_damaged"}
    async with fleet(tmp_path) as one:
        assert await held(one.store) == WRITTEN


def test_an_engine_that_hangs_over_a_file_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(restore_check, "SILENCE_S_MAX", 0.5)
    os.mkfifo(tmp_path / "claims.json")  # nobody writes to it, so whoever reads it waits for ever
    with pytest.raises(Invalid, match="without end"):
        restore_check.check_restored(tmp_path / "claims.json", 0)


@real
async def test_what_a_killed_command_has_left_is_removed_at_the_start(tmp_path):
    for left in ("restore-999999999.snapshot", ".penstock-20260101-000000.snapshot-17"):
        lay(tmp_path, left)
    (tmp_path / ".staging" / "half" / "alpha").mkdir(parents=True)
    name = lay(tmp_path)
    async with fleet(tmp_path):
        assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [name]
        assert not (tmp_path / ".staging").exists()
