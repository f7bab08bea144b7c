"""Migrations: whole, interrupted, refused, compared."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from penstock.kernel.context import Context, point_id
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.late_interaction import quantize
from penstock.ranking.retrieval import ScoredPoint
from penstock.stores.commands import (
    CreateCollection,
    DeleteDocuments,
    ListSources,
    PutSource,
    ScrollPoints,
    SealDocument,
    StoreCommand,
    UpsertPoints,
)
from penstock.stores.comparison import compare_collections, hit_overlap, same_point
from penstock.stores.data_model import ChunkPayload, CollectionInfo, DocumentInfo, Match, Point
from penstock.stores.migration import PAGE_ATTEMPTS_MAX, PAGE_POINTS, Migration, MigrationJournal, MigrationState
from penstock.stores.sources import SourceRecord, SourceRoot
from tests.clock import virtual
from tests.fakes.memory_store import MemoryStore, sparse, unit

WORK = Context.background()
INFO = CollectionInfo("c", 3, "m", token_dim=4, text=1, renewing=True)
ORDER = MigrationState("here", "there", "c", "c")
POINTS = 5 * PAGE_POINTS // 2


def point(number: int) -> Point:
    luck = np.random.default_rng(number)
    tokens = quantize(np.array([unit(1, -1, 0, 0)], np.float32)) if number % 3 else None
    terms = sparse(**{f"t{term}": 1 + number / 1000 for term in luck.choice(50, 5, replace=False)})
    return Point(
        ChunkPayload(f"d{number // 2}", number % 2, f"text {number}"), unit(*luck.normal(size=3)), terms, tokens
    )


async def filled(points: int = POINTS) -> MemoryStore:
    store = MemoryStore()
    await store.run(CreateCollection(INFO), WORK)
    await store.run(UpsertPoints("c", [point(number) for number in range(points)]), WORK)
    await store.run(SealDocument("c", DocumentInfo("d0", "hash", 2)), WORK)
    store.asked.clear()
    return store


class MemoryJournal:
    """A journal that outlives the runs of one test."""

    def __init__(self) -> None:
        self.state: MigrationState | None = None

    def read(self) -> MigrationState | None:
        return self.state

    def write(self, state: MigrationState) -> None:
        self.state = state

    def remove(self) -> None:
        self.state = None


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


def migration(source: Any, target: Any, journal: Any, order: MigrationState = ORDER) -> Migration:
    return Migration(source, target, order, journal, random.Random(3).random)


@virtual
async def test_sources_are_moved_with_their_collection() -> None:
    source, target = await filled(3), MemoryStore()
    there = SourceRecord("s", [SourceRoot("h", "/p")], "c0ffee")
    await source.run(PutSource("c", there), WORK)
    assert (await migration(source, target, MemoryJournal()).run()).comparison.matches
    assert await target.run(ListSources("c"), WORK) == [there]


def upserts(store: MemoryStore) -> list[int]:
    return [len(command.points) for command in store.asked if isinstance(command, UpsertPoints)]


def failing(operation: str, after: int, times: int, error: BaseException) -> Callable[[str, Any], Any]:
    """Return a hook by which an operation fails so many times, once it has succeeded so often."""
    calls = 0

    async def hook(command: StoreCommand[Any]) -> None:
        nonlocal calls
        if command.operation == operation:
            calls += 1
            if after < calls <= after + times:
                raise error

    return hook


DOWN = Unavailable("down", dependency="store")


@virtual
async def test_every_point_arrives_whole(journal):
    source, target = await filled(), MemoryStore()
    one = migration(source, target, journal)
    seen: list[int] = []
    one.on_progress = lambda: seen.append(one.moved_points)
    moved = await one.run()
    assert (moved.info.chunks, moved.info.documents, moved.resumed_points) == (POINTS, POINTS // 2, 0)
    assert moved.comparison.matches
    assert seen == [0, PAGE_POINTS, 2 * PAGE_POINTS, POINTS]
    assert all(same_point(source._points["c"][place], target._points["c"][place]) for place in source._points["c"])
    assert (moved.info.token_dim, moved.info.dim, moved.info.model) == (4, 3, "m")
    assert (moved.info.text, moved.info.renewing) == (1, True)
    assert journal.state is None


@virtual
async def test_an_empty_collection_is_moved_too(journal):
    source, target = MemoryStore(), MemoryStore()
    await source.run(CreateCollection(INFO), WORK)
    moved = await migration(source, target, journal).run()
    assert moved.comparison.matches
    assert moved.info.chunks == 0


@virtual
async def test_no_more_than_two_pages_are_in_memory(journal):
    source, target = await filled(10 * PAGE_POINTS), MemoryStore()
    ahead: list[int] = []

    async def hook(command: StoreCommand[Any]) -> None:
        if isinstance(command, UpsertPoints):
            await asyncio.sleep(1)
            ahead.append(source.count(ScrollPoints) - len(upserts(target)) + 1)

    target.hook = hook
    await migration(source, target, journal).run()
    assert max(ahead[:9]) <= 2
    assert set(upserts(target)) == {PAGE_POINTS}


@virtual
async def test_what_an_interrupted_run_has_moved_is_not_moved_again(journal):
    source, target = await filled(), MemoryStore()
    target.hook = failing("upsert_points", 1, 10**6, DOWN)
    with pytest.raises(Unavailable):
        await migration(source, target, journal).run()
    assert len(upserts(target)) == 1 + PAGE_ATTEMPTS_MAX
    target.hook = failing("none", 0, 0, DOWN)
    target.asked.clear()
    moved = await migration(source, target, journal).run()
    assert moved.resumed_points == PAGE_POINTS
    assert upserts(target) == [PAGE_POINTS, POINTS - 2 * PAGE_POINTS]
    assert moved.comparison.matches


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5])
@virtual
async def test_a_cancelled_run_goes_on_where_it_was(journal, seconds):
    source, target = await filled(), MemoryStore()

    async def slowly(command: StoreCommand[Any]) -> None:
        if isinstance(command, UpsertPoints):
            await asyncio.sleep(1)

    target.hook = slowly
    running = asyncio.create_task(migration(source, target, journal).run())
    await asyncio.sleep(seconds)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    moved = await migration(source, target, journal).run()
    assert moved.resumed_points == int(seconds) * PAGE_POINTS
    assert moved.comparison.matches


@virtual
async def test_a_store_that_fails_in_passing_is_asked_again(journal):
    source, target = await filled(), MemoryStore()
    source.hook = failing("scroll_points", 1, PAGE_ATTEMPTS_MAX - 1, DOWN)
    target.hook = failing("upsert_points", 1, PAGE_ATTEMPTS_MAX - 1, DOWN)
    assert (await migration(source, target, journal).run()).comparison.matches


@virtual
async def test_a_full_disk_ends_it_at_once(journal):
    source, target = await filled(), MemoryStore()
    target.hook = failing("upsert_points", 0, 10**6, Unavailable("full", dependency="store", code="disk_full"))
    with pytest.raises(Unavailable, match="full"):
        await migration(source, target, journal).run()
    assert len(upserts(target)) == 1


@virtual
async def test_a_target_that_was_deleted_meanwhile_is_filled_from_the_beginning(journal):
    source, target = await filled(), MemoryStore()
    target.hook = failing("upsert_points", 2, 10**6, DOWN)
    with pytest.raises(Unavailable):
        await migration(source, target, journal).run()
    fresh = MemoryStore()
    moved = await migration(source, fresh, journal).run()
    assert (moved.resumed_points, moved.comparison.matches) == (0, True)


@virtual
async def test_the_progress_of_another_migration_is_not_taken_for_this_one_s(journal):
    source, target = await filled(), MemoryStore()
    target.hook = failing("upsert_points", 2, 10**6, DOWN)
    with pytest.raises(Unavailable):
        await migration(source, target, journal).run()
    target.hook = failing("none", 0, 0, DOWN)
    other = msgspec.structs.replace(ORDER, target_collection="d")
    moved = await migration(source, target, journal, other).run()
    assert (moved.resumed_points, moved.info.name, moved.comparison.matches) == (0, "d", True)


@virtual
async def test_a_target_with_points_of_its_own_is_refused(journal):
    source, target = await filled(), await filled(2)
    with pytest.raises(Invalid, match="--as") as caught:
        await migration(source, target, journal).run()
    assert caught.value.code == "collection_exists"
    assert upserts(target) == []


@virtual
async def test_another_layout_is_refused(journal):
    source, target = await filled(), MemoryStore()
    await target.run(CreateCollection(CollectionInfo("c", 3, "another")), WORK)
    with pytest.raises(Invalid) as caught:
        await migration(source, target, journal).run()
    assert caught.value.code == "collection_conflict"


@virtual
async def test_an_absent_collection_is_told(journal):
    with pytest.raises(Invalid) as caught:
        await migration(MemoryStore(), MemoryStore(), journal).run()
    assert caught.value.code == "collection_not_found"


def test_a_journal_in_a_file_is_replaced_as_a_whole(tmp_path):
    journal = MigrationJournal(tmp_path / "migrations" / "m.json")
    assert journal.read() is None
    for moved in (1, 2):
        state = msgspec.structs.replace(ORDER, moved=moved, after="a")
        journal.write(state)
        assert journal.read() == state
    assert [file.name for file in (tmp_path / "migrations").iterdir()] == ["m.json"]
    journal.remove()
    journal.remove()
    assert journal.read() is None


@pytest.mark.parametrize("damage", [b"{", b'{"source":"\xff"}', b'{"x":' * 100_000], ids=("cut", "no UTF-8", "nested"))
def test_a_damaged_journal_is_told_with_its_path(tmp_path, damage):
    (tmp_path / "m.json").write_bytes(damage)
    with pytest.raises(Invalid, match=r"m\.json.*remove it") as caught:
        MigrationJournal(tmp_path / "m.json").read()
    assert caught.value.code == "migration_damaged"


@virtual
async def test_what_differs_is_told_and_the_progress_kept(journal):
    source, target = await filled(), MemoryStore()

    async def lose(command: StoreCommand[Any]) -> None:
        if isinstance(command, UpsertPoints):
            command.points.pop()

    target.hook = lose
    moved = await migration(source, target, journal).run()
    assert not moved.comparison.matches
    assert moved.comparison.differences[0] == f"chunks: {POINTS} in the source, {POINTS - 3} in the target"
    assert journal.state is not None
    assert journal.state.copied


@virtual
async def test_points_that_are_others_are_found_though_the_counts_agree():
    source, target = await filled(40), await filled(40)
    await target.run(UpsertPoints("c", [replace(point(n), dense=unit(1, 2, n)) for n in range(40)]), WORK)
    found = await compare_collections(source, target, "c", "c", random.Random(1).random)
    assert found.chunks == (40, 40)
    assert len(found.differing_points) == found.samples > 10
    assert found.dense_overlap < 0.9
    assert len(found.differences) >= 2


@virtual
async def test_documents_deleted_on_one_side_are_found():
    source, target = await filled(40), await filled(40)
    await target.run(DeleteDocuments("c", (Match("id", ["d3"]),)), WORK)
    found = await compare_collections(source, target, "c", "c", random.Random(1).random)
    assert "documents: 20 in the source, 19 in the target" in found.differences


def test_two_points_are_the_same_when_everything_is():
    one = point(1)
    assert same_point(one, point(1))
    assert not same_point(one, replace(one, token_vectors=None))
    assert not same_point(one, replace(one, token_vectors=np.full((1, 4), 7, np.int8)))
    assert not same_point(one, replace(one, dense=unit(1, 0, 0)))
    assert not same_point(one, replace(one, sparse=sparse(t1=1)))
    assert not same_point(one, replace(one, payload=ChunkPayload("other", 0, "x")))


def test_hits_that_tie_with_the_last_may_be_others():
    ids = [point_id(f"d{n}", 0) for n in range(4)]
    found = [ScoredPoint(ids[0], 0.9), ScoredPoint(ids[1], 0.5)]
    assert hit_overlap(found, [ScoredPoint(ids[0], 0.9), ScoredPoint(ids[2], 0.5)]) == 1.0
    assert hit_overlap(found, [ScoredPoint(ids[2], 0.9), ScoredPoint(ids[3], 0.5)]) == 0.5
    assert hit_overlap([], []) == 1.0
