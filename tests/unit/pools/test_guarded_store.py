"""What stands behind a guard answers as before, and is not asked while the breaker is open."""

import pytest

from penstock.kernel.context import Context, point_id
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.pools.guard import CircuitOpen, Guard
from penstock.pools.guarded_store import COMPATIBLE_MAX, GuardedStore, VectorLayout
from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores import commands
from penstock.stores.backends.edge import command_handlers
from penstock.stores.backends.edge.sharded_store import ShardedStore
from penstock.stores.backends.qdrant.store import QdrantStore
from penstock.stores.commands import (
    AddVectors,
    CollectionCommand,
    CountDocuments,
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    DropCollection,
    DropSource,
    FetchPayloads,
    FetchPoints,
    FetchTokenVectors,
    GetDocuments,
    ListCollections,
    ListDocuments,
    ListPending,
    ListSources,
    PutSource,
    ReplaceSparse,
    Retrieve,
    ScrollPoints,
    SealDocument,
    SearchBatch,
    SetTextVersion,
    StoreCommand,
    TrimDocument,
    UpsertPoints,
)
from penstock.stores.data_model import (
    ArmQuery,
    ChunkPayload,
    ChunkVectors,
    CollectionInfo,
    DocumentInfo,
    Match,
    Point,
    SparseReplacement,
)
from penstock.stores.sources import SourceRecord
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore
from tests.fakes.models import DIM, embedding, fails_with, terms

WORK = Context.background()
DOWN = Unavailable("down", dependency="x")
POINT = Point(ChunkPayload("d", 0, "a cat"), embedding("a cat"), terms("a cat"))

UPSERT = UpsertPoints("c", [POINT])
SEARCH = SearchBatch("c", [ArmQuery(embedding("cat"), 5)])

COMMANDS: list[StoreCommand[object]] = [
    CreateCollection(CollectionInfo("new", DIM, "m")),
    ListCollections(),
    DescribeCollection("c"),
    UPSERT,
    AddVectors("c", [ChunkVectors("d", 0, "h", embedding("a cat"))]),
    ListPending("c", (), None, 5),
    ReplaceSparse("c", [SparseReplacement("d", 0, terms("a dog"))]),
    SetTextVersion("c", 2, renewing=False),
    PutSource("c", SourceRecord("tree")),
    ListSources("c"),
    DropSource("c", "tree"),
    CountDocuments("c", ()),
    FetchPoints("c", [point_id("d", 0)]),
    SealDocument("c", DocumentInfo("d", "h", 1)),
    TrimDocument("c", "d", 1),
    SEARCH,
    FetchTokenVectors("c", ["p"]),
    Retrieve("c", RetrievalQuery(1, 5, dense=embedding("cat")), ()),
    FetchPayloads("c", ["p"]),
    ListDocuments("c", (), None, 5),
    GetDocuments("c", ["d"]),
    ScrollPoints("c", None, 5),
    DeleteDocuments("c", (Match("id", ["d"]),)),
    DropCollection("new"),
]


def guard(failures: int = 1) -> Guard:
    return Guard("q", GuardSettings(failures=failures), LoopClock(), patience_s=5, random=lambda: 0.0)


async def store() -> MemoryStore:
    inner = MemoryStore()
    await inner.run(CreateCollection(CollectionInfo("c", DIM, "m")), WORK)
    inner.asked.clear()
    return inner


@virtual
async def test_every_operation_reaches_the_store_and_its_answer_comes_back():
    guarded, bare = await store(), await store()
    behind = GuardedStore(guarded, guard())
    for command in COMMANDS:
        assert await behind.run(command, WORK) == await bare.run(command, WORK)
    assert [type(command) for command in guarded.asked] == [type(command) for command in bare.asked]


def test_no_store_forgets_a_command():
    every = {kind for kind in vars(commands).values() if isinstance(kind, type) and issubclass(kind, StoreCommand)}
    every -= {StoreCommand, CollectionCommand}
    assert {type(command) for command in COMMANDS} == every
    assert ShardedStore._HANDLERS.keys() == QdrantStore._HANDLERS.keys() == every
    assert command_handlers._COMMANDS.keys() > every - {Retrieve}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.operation)
@virtual
async def test_a_store_that_failed_is_not_asked_again(command):
    inner = await store()
    behind = GuardedStore(inner, guard())
    inner.hook = fails_with(DOWN)
    with pytest.raises(Unavailable, match="down"):
        await behind.run(command, WORK)
    inner.asked.clear()
    with pytest.raises(CircuitOpen):
        await behind.run(command, WORK)
    assert inner.asked == []


@virtual
async def test_removals_are_told_also_when_nobody_knows_whether_they_happened():
    inner, removed = await store(), []
    behind = GuardedStore(inner, guard(failures=9), removed.append)
    await behind.run(UpsertPoints("c", [POINT]), WORK)
    assert removed == []
    await behind.run(DeleteDocuments("c", ()), WORK)
    inner.hook = fails_with(DOWN)
    for removal in (behind.run(DeleteDocuments("c", ()), WORK), behind.run(DropCollection("c"), WORK)):
        with pytest.raises(Unavailable):
            await removal
    assert removed == ["c"] * 3


@pytest.mark.parametrize(
    ("made", "hinted"),
    [("mini-0123456789abcdef", True), ("large-0123456789abcdef", False), ("mini-v2", False), ("text-3-small", False)],
)
def test_where_only_the_processor_can_differ_the_setting_is_named(made, hinted):
    with pytest.raises(Invalid) as caught:
        VectorLayout("mini-fedcba9876543210", DIM).check(CollectionInfo("c", DIM, made))
    assert ("PENSTOCK_MODEL_PRECISION" in caught.value.detail) is hinted


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        (VectorLayout("other", DIM), f"vectors of m ({DIM}-d), and this server makes those of other ({DIM}-d)"),
        (VectorLayout("m", 2 * DIM), f"this server makes those of m ({2 * DIM}-d)"),
        (VectorLayout("m", DIM, "splade"), f"this server makes those of m ({DIM}-d) with splade"),
    ],
)
@virtual
async def test_points_of_another_model_are_neither_written_nor_searched_and_both_are_named(layout, named):
    inner = await store()
    behind = GuardedStore(inner, guard(), layout=layout)
    for command in (UPSERT, SEARCH):
        with pytest.raises(Invalid) as caught:
            await behind.run(command, WORK)
        assert named in caught.value.detail
        assert (caught.value.code, caught.value.field) == ("collection_conflict", "collection")
    assert {type(command) for command in inner.asked} == {DescribeCollection}
    await behind.run(GetDocuments("c", ["d"]), WORK)
    await behind.run(DeleteDocuments("c", (Match("id", ["d"]),)), WORK)


@virtual
async def test_a_collection_that_fits_is_asked_about_once_until_it_is_dropped():
    inner = await store()
    behind = GuardedStore(inner, guard(), layout=VectorLayout("m", DIM))
    for _ in range(3):
        await behind.run(UPSERT, WORK)
        await behind.run(SEARCH, WORK)
    assert inner.count(DescribeCollection) == 1
    await behind.run(DropCollection("c"), WORK)
    await inner.run(CreateCollection(CollectionInfo("c", DIM, "other")), WORK)
    with pytest.raises(Invalid, match="vectors of other"):
        await behind.run(SEARCH, WORK)


@virtual
async def test_what_is_known_of_collections_is_bounded():
    inner = await store()
    behind = GuardedStore(inner, guard(), layout=VectorLayout("m", DIM))
    behind._compatible = {str(number) for number in range(COMPATIBLE_MAX)}
    await behind.run(SEARCH, WORK)
    assert behind._compatible == {"c"}
