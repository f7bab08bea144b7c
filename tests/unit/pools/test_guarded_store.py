"""What stands behind a guard answers as before, and is not asked while the breaker is open."""

from collections.abc import Awaitable, Callable

import pytest

from penstock.kernel.context import Context, LoopClock
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import GuardSettings
from penstock.pools.guard import CircuitOpen, Guard
from penstock.pools.guarded_store import COMPATIBLE_MAX, GuardedStore, VectorLayout
from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import ArmQuery, ChunkPayload, CollectionInfo, DocumentInfo, Match, Point
from tests.clock import virtual
from tests.fakes.memory_store import MemoryStore
from tests.fakes.models import DIM, embedding, fails_with, terms

WORK = Context.background()
DOWN = Unavailable("down", dependency="x")
POINT = Point(ChunkPayload("d", 0, "a cat"), embedding("a cat"), terms("a cat"))

OPERATIONS: dict[str, Callable[[VectorStore], Awaitable[object]]] = {
    "create": lambda s: s.create(CollectionInfo("new", DIM, "m"), WORK),
    "collections": lambda s: s.collections(WORK),
    "collection": lambda s: s.collection("c", WORK),
    "upsert": lambda s: s.upsert("c", [POINT], WORK),
    "seal_document": lambda s: s.seal_document("c", DocumentInfo("d", "h", 1), WORK),
    "trim_document": lambda s: s.trim_document("c", "d", 1, WORK),
    "search": lambda s: s.search("c", ArmQuery(embedding("cat"), 5), WORK),
    "search_batch": lambda s: s.search_batch("c", [ArmQuery(embedding("cat"), 5)], WORK),
    "fetch_token_vectors": lambda s: s.fetch_token_vectors("c", ["p"], WORK),
    "retrieve": lambda s: s.retrieve("c", RetrievalQuery(1, 5, dense=embedding("cat")), (), WORK),
    "fetch_payloads": lambda s: s.fetch_payloads("c", ["p"], WORK),
    "list_documents": lambda s: s.list_documents("c", (), None, 5, WORK),
    "get_documents": lambda s: s.get_documents("c", ["d"], WORK),
    "delete": lambda s: s.delete("c", (Match("id", ["d"]),), WORK),
    "drop": lambda s: s.drop("new", WORK),
}


def guard(failures: int = 1) -> Guard:
    return Guard("q", GuardSettings(failures=failures), LoopClock(), patience_s=5, random=lambda: 0.0)


async def store() -> MemoryStore:
    inner = MemoryStore()
    await inner.create(CollectionInfo("c", DIM, "m"), WORK)
    inner.asked.clear()
    return inner


@virtual
async def test_every_operation_reaches_the_store_and_its_answer_comes_back():
    guarded, bare = await store(), await store()
    behind = GuardedStore(guarded, guard())
    for operation in OPERATIONS.values():
        assert await operation(behind) == await operation(bare)
    assert {name for name, _ in guarded.asked} == {*OPERATIONS} - {"retrieve"}
    assert [name for name, _ in guarded.asked] == [name for name, _ in bare.asked]


def test_no_operation_of_the_contract_is_forgotten():
    assert set(OPERATIONS) == {name for name in vars(VectorStore) if not name.startswith("_")}


@pytest.mark.parametrize("operation", OPERATIONS)
@virtual
async def test_a_store_that_failed_is_not_asked_again(operation):
    inner = await store()
    behind = GuardedStore(inner, guard())
    inner.hook = fails_with(DOWN)
    with pytest.raises(Unavailable, match="down"):
        await OPERATIONS[operation](behind)
    inner.asked.clear()
    with pytest.raises(CircuitOpen):
        await OPERATIONS[operation](behind)
    assert inner.asked == []


@virtual
async def test_removals_are_told_also_when_nobody_knows_whether_they_happened():
    inner, removed = await store(), []
    behind = GuardedStore(inner, guard(failures=9), removed.append)
    await behind.upsert("c", [POINT], WORK)
    assert removed == []
    await behind.delete("c", (), WORK)
    inner.hook = fails_with(DOWN)
    for removal in (behind.delete("c", (), WORK), behind.drop("c", WORK)):
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
    for operation in ("upsert", "search"):
        with pytest.raises(Invalid) as caught:
            await OPERATIONS[operation](behind)
        assert named in caught.value.detail
        assert (caught.value.code, caught.value.field) == ("collection_conflict", "collection")
    assert {name for name, _ in inner.asked} == {"collection"}
    await OPERATIONS["get_documents"](behind)
    await OPERATIONS["delete"](behind)


@virtual
async def test_a_collection_that_fits_is_asked_about_once_until_it_is_dropped():
    inner = await store()
    behind = GuardedStore(inner, guard(), layout=VectorLayout("m", DIM))
    for _ in range(3):
        await OPERATIONS["upsert"](behind)
        await OPERATIONS["search"](behind)
    assert [name for name, _ in inner.asked].count("collection") == 1
    await behind.drop("c", WORK)
    await inner.create(CollectionInfo("c", DIM, "other"), WORK)
    with pytest.raises(Invalid, match="vectors of other"):
        await OPERATIONS["search"](behind)


@virtual
async def test_what_is_known_of_collections_is_bounded():
    inner = await store()
    behind = GuardedStore(inner, guard(), layout=VectorLayout("m", DIM))
    behind._compatible = {str(number) for number in range(COMPATIBLE_MAX)}
    await OPERATIONS["search"](behind)
    assert behind._compatible == {"c"}
