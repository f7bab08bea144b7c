"""A collection over several stores: who is asked what, and what one that is down costs."""

import pytest

from penstock.kernel.context import Context, point_id
from penstock.kernel.errors import Invalid, Unavailable
from penstock.stores.backends.edge.process_group import default_process_count, existing_process_count
from penstock.stores.backends.edge.sharded_store import ShardedStore, shard_of
from penstock.stores.commands import (
    CreateCollection,
    DescribeCollection,
    DropCollection,
    GetDocuments,
    ListCollections,
    SealDocument,
    TrimDocument,
    UpsertPoints,
)
from penstock.stores.data_model import ArmQuery, ChunkPayload, CollectionInfo, DocumentInfo, Point
from tests.clock import virtual
from tests.fakes.memory_store import MemoryStore, search_arm, sparse, unit

WORK = Context.background()
INFO = CollectionInfo("c", 2, "m")
IDS = [f"d{n}" for n in range(40)]


def point(id, chunk=0):
    return Point(ChunkPayload(id=id, chunk=chunk, text=id), unit(1, int(id[1:])), sparse(t1=1))


def down(*_):
    raise Unavailable("down", dependency="store")


async def filled(shards=2, stores=2):
    parts = [MemoryStore() for _ in range(stores)]
    store = ShardedStore(parts, shards)
    await store.run(CreateCollection(INFO), WORK)
    await store.run(UpsertPoints("c", [point(id, chunk) for id in IDS for chunk in range(2)]), WORK)
    return store, parts


@virtual
async def test_a_document_lies_in_one_shard_with_all_its_chunks():
    _, parts = await filled()
    for number, part in enumerate(parts):
        found = await part.run(GetDocuments("c", IDS), WORK)
        assert set(found) == {id for id in IDS if shard_of(id, 2) == number}
        assert (await part.run(DescribeCollection("c"), WORK)).chunks == 2 * len(found)
        assert 10 <= len(found) <= 30


def test_where_a_document_lies_never_changes():
    assert [shard_of(id, 4) for id in ("", "a", "src/x.py", "\ud800")] == [0, 3, 3, 0]


@virtual
async def test_a_search_finds_the_best_of_all_shards_in_order():
    store, _ = await filled()
    found = await search_arm(store, "c", ArmQuery(unit(1, 0), 6), WORK)
    places = [{point_id(f"d{n}", chunk) for chunk in range(2)} for n in range(3)]
    assert [{scored.point for scored in found[n : n + 2]} for n in (0, 2, 4)] == places


@virtual
async def test_what_is_about_one_document_asks_its_shard_alone():
    store, parts = await filled()
    for part in parts:
        part.asked.clear()
    id = IDS[0]
    await store.run(UpsertPoints("c", [point(id)]), WORK)
    await store.run(TrimDocument("c", id, 1), WORK)
    await store.run(SealDocument("c", DocumentInfo(id, "h", 1)), WORK)
    await store.run(GetDocuments("c", [id]), WORK)
    asked = [[command.operation for command in part.asked] for part in parts]
    assert asked[shard_of(id, 2)] == ["upsert_points", "trim_document", "seal_document", "get_documents"]
    assert asked[1 - shard_of(id, 2)] == []


@virtual
async def test_a_shard_that_is_down_costs_only_what_needs_it():
    store, parts = await filled()
    parts[1].hook = down
    mine = next(id for id in IDS if shard_of(id, 2) == 0)
    theirs = next(id for id in IDS if shard_of(id, 2) == 1)
    await store.run(UpsertPoints("c", [point(mine)]), WORK)
    for failing in (
        store.run(UpsertPoints("c", [point(theirs)]), WORK),
        search_arm(store, "c", ArmQuery(unit(1, 0), 6), WORK),
    ):
        with pytest.raises(Unavailable):
            await failing


@virtual
async def test_the_spread_is_fixed_when_a_collection_is_made():
    _, parts = await filled(shards=1, stores=2)
    wider = ShardedStore(parts, 2)
    assert (await wider.run(CreateCollection(INFO), WORK)).shards == 1
    await wider.run(CreateCollection(CollectionInfo("e", 2, "m")), WORK)
    assert [(info.name, info.shards, info.documents) for info in await wider.run(ListCollections(), WORK)] == [
        ("c", 1, 40),
        ("e", 2, 0),
    ]
    assert len(await parts[1].run(ListCollections(), WORK)) == 1
    assert len(await wider.run(GetDocuments("c", IDS), WORK)) == 40


@virtual
async def test_a_collection_over_more_shards_than_run_is_refused():
    _, parts = await filled()
    store = ShardedStore(parts[:1], 1)
    with pytest.raises(Invalid, match="over 2 store processes") as caught:
        await search_arm(store, "c", ArmQuery(unit(1, 0), 6), WORK)
    assert caught.value.code == "shards_missing"


@virtual
async def test_a_deletion_that_was_interrupted_can_be_repeated():
    store, parts = await filled()
    await parts[1].run(DropCollection("c"), WORK)
    await store.run(DropCollection("c"), WORK)
    assert await store.run(ListCollections(), WORK) == []
    with pytest.raises(Invalid) as caught:
        await store.run(DropCollection("c"), WORK)
    assert caught.value.code == "collection_not_found"


def test_small_machines_have_one_store_process():
    assert [default_process_count(cores) for cores in (1, 2, 4, 8, 16, 64)] == [1, 1, 1, 1, 2, 4]


def test_processes_that_were_there_are_counted(tmp_path):
    (tmp_path / "collections").mkdir()
    assert existing_process_count(tmp_path) == 1
    (tmp_path / "collections-2").mkdir()
    (tmp_path / "collections-4").mkdir()
    assert existing_process_count(tmp_path) == 2
