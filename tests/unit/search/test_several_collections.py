"""One search over several collections."""

import pytest

from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, Invalid, Rejected, Unavailable
from penstock.search.request import SearchRequest, SearchResult
from penstock.search.result_cache import ResultCache
from penstock.search.several_collections import merge_collections
from penstock.stores.commands import CollectionCommand, CreateCollection, SearchBatch, StoreCommand, UpsertPoints
from penstock.stores.contract import CollectionDamaged
from penstock.stores.data_model import ChunkPayload, CollectionInfo, RetrievedHit
from penstock.stores.memory_cache import MemoryCache
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.models import DIM, FakeEmbedder, fails_with
from tests.unit.search.test_pages import point
from tests.unit.search.test_pipeline import DOWN, House

WORK = Context.background()


async def house_of_two() -> House:
    house = await House().fill()
    await house.store.run(CreateCollection(CollectionInfo("d", DIM, "m", token_dim=DIM)), WORK)
    points = [point("cat", "the cat sat"), point("cow", "the cow sat"), point("cow", "a cat and a cow", 1)]
    await house.store.run(UpsertPoints("d", points), WORK)
    house.store.asked.clear()
    return house


def fails_in(collection: str, error: Exception):
    async def hook(command: StoreCommand) -> None:
        if isinstance(command, SearchBatch) and command.collection == collection:
            raise error

    return hook


def found(result: SearchResult) -> list[tuple[str, str, int]]:
    return [(hit.collection, hit.id, hit.chunk) for hit in result.hits]


@virtual
async def test_hits_of_both_come_in_one_order_and_the_query_is_embedded_once():
    house = await house_of_two()
    result = await house.search("the cat", collection="c,d,")
    assert found(result)[:2] == [("c", "cat", 0), ("d", "cat", 0)]
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert len(result.hits) == 7
    assert (len(house.embedder.asked), len(house.sparse.asked)) == (1, 1)
    assert result.degraded == []


@virtual
async def test_pages_and_groups_go_over_both():
    house = await house_of_two()
    whole = found(await house.search("the cat", collection="c,d,"))
    paged, cursor = [], None
    while cursor is not None or not paged:
        page = await house.search("the cat", collection="c,d,", limit=2, cursor=cursor)
        paged, cursor = [*paged, *found(page)], page.next
        assert page.degraded == []
    assert paged == whole
    grouped = await house.search("the cat", collection="c,d,", group="document")
    assert len(grouped.hits) == 6
    assert {hit.others_total for hit in grouped.hits if (hit.collection, hit.id) == ("d", "cow")} == {1}


@virtual
async def test_a_query_of_other_letters_is_prepared_for_each_collection():
    house = await house_of_two()
    await house.search("katze ü", collection="c,d,")
    assert len(house.embedder.asked) == 1
    assert len(house.sparse.asked) >= 2


@pytest.mark.parametrize(
    "error",
    [CollectionDamaged("d", "torn"), Unavailable("x", dependency="store", code="collection_opening"), Rejected("x")],
)
@virtual
async def test_a_collection_that_cannot_be_searched_is_told(error):
    house = await house_of_two()
    house.store.hook = fails_in("d", error)
    result = await house.search("the cat", collection="c,d,")
    assert {hit.collection for hit in result.hits} == {"c"}
    assert result.degraded == ["collection_left_out"]
    assert [(one.collection, one.code) for one in result.left_out] == [("d", error.code)]
    with pytest.raises(Rejected, match="strict"):
        await house.search("the cat", collection="c,d,", strict=True)


@virtual
async def test_when_none_can_be_searched_the_error_is_told():
    house = await house_of_two()

    async def hook(command: StoreCommand) -> None:
        if isinstance(command, CollectionCommand):
            raise Broken("bug")

    house.store.hook = hook
    with pytest.raises(Broken):
        await house.search("the cat", collection="c,d,")


@virtual
async def test_an_unknown_collection_is_refused():
    with pytest.raises(Invalid, match="no collection"):
        await (await house_of_two()).search("the cat", collection="c,absent,")


@virtual
async def test_an_arm_that_fails_is_told_once():
    house = await house_of_two()
    house.embedder = FakeEmbedder(fails_with(DOWN))
    result = await house.search("the cat", collection="c,d,")
    assert result.degraded == ["no_dense"]
    assert len(result.hits) > 2


def hits(*scores: float) -> list[RetrievedHit]:
    return [RetrievedHit(f"p{n}", score, ChunkPayload("a", n, ""), {}) for n, score in enumerate(scores)]


def test_scores_of_another_kind_are_not_compared():
    ranked = {"c": hits(0.9, 0.1), "d": hits(14.0, 12.0)}
    assert [hit.point for hit in merge_collections(ranked, comparable=True)] == ["d/p0", "d/p1", "c/p0", "c/p1"]
    assert [hit.point for hit in merge_collections(ranked, comparable=False)] == ["c/p0", "d/p0", "c/p1", "d/p1"]


def test_an_answer_is_forgotten_when_something_was_removed_from_any_of_its_collections():
    cache = ResultCache(MemoryCache("answers", 10, 100_000, LoopClock(), 60))
    request = SearchRequest("c,d,", query="cat")
    before = cache.key(request)
    assert cache.key(SearchRequest("c,e,", query="cat")) != before
    cache.invalidate("d")
    assert cache.key(request) != before
