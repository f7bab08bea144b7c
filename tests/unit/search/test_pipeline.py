import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from penstock.kernel.context import Context, Deadline, enforce_deadline, point_id
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.late_interaction import max_cosines
from penstock.kernel.settings import SearchSettings
from penstock.kernel.vectors import SparseVector
from penstock.ranking.program import late_interaction_scores
from penstock.search.pipeline import SearchPipeline
from penstock.search.request import QUERY_CHARACTERS_MAX, ArmWeights, SearchRequest, SearchResult
from penstock.stores.commands import (
    CreateCollection,
    DeleteDocuments,
    FetchPayloads,
    FetchTokenVectors,
    Retrieve,
    SearchBatch,
    StoreCommand,
    UpsertPoints,
)
from penstock.stores.data_model import TEXT_FOLDED, ArmQuery, ChunkPayload, CollectionInfo, Match, Point
from tests.clock import BEGIN_S, virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore
from tests.fakes.models import DIM, FakeEmbedder, FakeSparseEncoder, embedding, fails_with, takes, terms, token_vectors

WORK = Context.background()
TEXTS = {"cat": "the cat sat", "dog": "a dog sat", "parse": "parse json text", "mat": "on the mat"}
DOWN = Unavailable("down", dependency="model")


async def newest(_collection: str, _ctx: Context) -> int:
    return TEXT_FOLDED


@dataclass
class House:
    """A pipeline over fakes, with a few documents."""

    store: MemoryStore = field(default_factory=MemoryStore)
    embedder: FakeEmbedder = field(default_factory=FakeEmbedder)
    sparse: FakeSparseEncoder = field(default_factory=FakeSparseEncoder)
    reads_whole: Callable[[str], bool] = lambda _: True
    candidates: int = 100
    #: Whether the bus around the pipeline ends it at the deadline, or an arm notices it first.
    cut_off: bool = True

    #: Components of the collection's token vectors; 0: it was made before there were any.
    late: int = DIM

    async def fill(self) -> "House":
        await self.store.run(CreateCollection(CollectionInfo("c", DIM, "m", token_dim=self.late)), WORK)
        points = [
            Point(
                ChunkPayload(id, 0, text, language=id[0], metadata={"k": id}),
                embedding(text),
                terms(text),
                token_vectors(text),
            )
            for id, text in TEXTS.items()
        ]
        await self.store.run(UpsertPoints("c", points), WORK)
        self.store.asked.clear()
        return self

    async def search(self, query: str = "the cat", ctx: Context = WORK, **wishes: Any) -> SearchResult:
        pipeline = SearchPipeline(
            embedder=self.embedder,
            sparse=self.sparse,
            store=self.store,
            settings=SearchSettings(candidates=self.candidates),
            clock=LoopClock(),
            prepare_sparse=lambda text, _: text.replace("_", " "),
            text_version=newest,
            fits_dense_model=self.reads_whole,
        )
        request = SearchRequest(wishes.pop("collection", "c"), query=query, **wishes)
        async with enforce_deadline(ctx.deadline if self.cut_off else Deadline.never()):
            return await pipeline.run(request, ctx)

    def searches(self) -> list[ArmQuery]:
        """Return what the arms were asked."""
        return [query for query in self._queries() if query.among is None]

    def completed(self) -> list[ArmQuery]:
        """Return what was asked of known candidates."""
        return [query for query in self._queries() if query.among is not None]

    def _queries(self) -> list[ArmQuery]:
        return [query for one in self.store.asked if isinstance(one, SearchBatch) for query in one.queries]


def is_sparse(query: ArmQuery) -> bool:
    return isinstance(query.vector, SparseVector)


def ids(result: SearchResult) -> list[str]:
    return [hit.id for hit in result.hits]


def until(seconds: float) -> Context:
    return replace(WORK, deadline=Deadline(BEGIN_S + seconds, "search"))


@virtual
async def test_the_best_document_comes_first_and_every_stage_is_timed():
    result = await (await House().fill()).search()
    assert ids(result)[0] == "cat"
    assert result.hits[0].text == "the cat sat"
    assert set(result.stages) == {"dense_encode", "sparse_encode", "arms", "rerank", "fetch", "retrieve"}
    assert result.degraded == []


@virtual
async def test_the_limit_cuts_the_hits_and_lifts_the_candidates():
    house = await House(candidates=2).fill()
    assert len((await house.search(limit=1)).hits) == 1
    assert {query.limit for query in house.searches()} == {2}
    assert len((await house.search(limit=4)).hits) == 4


@virtual
async def test_both_arms_are_asked_at_the_same_time():
    house = await House(embedder=FakeEmbedder(takes(3)), sparse=FakeSparseEncoder(takes(4))).fill()
    result = await house.search()
    assert result.took_ms == 4000
    assert (result.stages["dense_encode"], result.stages["sparse_encode"]) == (3000, 4000)


@virtual
async def test_the_sparse_arm_gets_the_prepared_query():
    house = await House().fill()
    await house.search("the_cat")
    assert house.sparse.asked == [["the cat"]]
    assert house.embedder.asked == [["the_cat"]]


@pytest.mark.parametrize("error", [DOWN, Rejected("full"), Expired("embed"), Broken("bug")])
@pytest.mark.parametrize("arm", ["dense", "sparse"])
@virtual
async def test_an_arm_that_is_down_is_made_up_for_and_named(arm, error):
    house = await House().fill()
    (house.embedder if arm == "dense" else house.sparse).hook = fails_with(error)
    result = await house.search(explain=True)
    assert result.degraded == [f"no_{arm}"]
    assert ids(result)[0] == "cat"
    assert "rerank" not in result.stages
    other = "sparse" if arm == "dense" else "dense"
    assert set(result.hits[0].explain) == {other}


@virtual
async def test_a_store_that_fails_one_arm_degrades_too():
    house = await House().fill()

    async def hook(command: StoreCommand[Any]) -> None:
        if isinstance(command, SearchBatch) and any(is_sparse(query) for query in command.queries):
            raise Broken("a bad query")

    house.store.hook = hook
    assert (await house.search()).degraded == ["no_sparse"]


@virtual
async def test_a_bug_in_an_arm_is_logged_and_overload_is_not(caplog):
    caplog.set_level(logging.INFO)
    house = await House(embedder=FakeEmbedder(fails_with(Rejected("full")))).fill()
    await house.search()
    assert caplog.messages == []
    house.embedder.hook = fails_with(Broken("bug"))
    await house.search()
    assert caplog.messages == ["no_dense: bug"]


@virtual
async def test_both_arms_down_is_an_error():
    house = await House(embedder=FakeEmbedder(fails_with(DOWN)), sparse=FakeSparseEncoder(fails_with(DOWN))).fill()
    with pytest.raises(Unavailable, match="down"):
        await house.search()


@virtual
async def test_the_only_arm_asked_down_is_an_error():
    house = await House(embedder=FakeEmbedder(fails_with(DOWN))).fill()
    with pytest.raises(Unavailable):
        await house.search(weights=ArmWeights(sparse=0))


@virtual
async def test_what_is_the_requests_own_fault_is_not_degraded():
    house = await House().fill()
    with pytest.raises(Invalid) as caught:
        await house.search(collection="absent")
    assert caught.value.code == "collection_not_found"
    with pytest.raises(Invalid):
        await house.search(" ")


@virtual
async def test_an_arm_that_fails_at_once_leaves_no_coroutine_behind():
    house = await House(embedder=FakeEmbedder(fails_with(Invalid("no")))).fill()
    with pytest.raises(Invalid):
        await house.search()


@virtual
async def test_the_deadline_expires_the_search_and_cancels_the_arms():
    house = await House(embedder=FakeEmbedder(takes(60))).fill()
    with pytest.raises(Expired) as caught:
        await house.search(ctx=until(5))
    assert caught.value.operation == "search"
    assert asyncio.get_running_loop().time() == BEGIN_S + 5
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_an_arms_own_error_at_the_deadline_is_no_degradation():
    async def late(_: Any) -> None:
        await asyncio.sleep(5)
        raise Expired("search")

    house = await House(embedder=FakeEmbedder(late), cut_off=False).fill()
    with pytest.raises(Expired):
        await house.search(ctx=until(5))


async def _rescoring_fails_after(house: House, seconds: float, error: Exception) -> None:
    async def hook(command: StoreCommand[Any]) -> None:
        if isinstance(command, FetchTokenVectors):
            await asyncio.sleep(seconds)
            raise error

    house.store.hook = hook


@virtual
async def test_a_failing_rerank_keeps_the_order_of_the_fusion():
    house = await House().fill()
    await _rescoring_fails_after(house, 0, DOWN)
    result = await house.search(explain=True)
    assert result.degraded == ["no_rerank"]
    assert "rerank" not in result.hits[0].explain
    assert [hit.explain["fusion"].rank for hit in result.hits] == list(range(1, len(result.hits) + 1))
    assert [hit.score for hit in result.hits] == [hit.explain["fusion"].score for hit in result.hits]


@virtual
async def test_a_rerank_cut_off_by_the_deadline_expires():
    house = await House(cut_off=False).fill()
    await _rescoring_fails_after(house, 3, Expired("search"))
    with pytest.raises(Expired):
        await house.search(ctx=until(3))


@virtual
async def test_rerank_gives_every_candidate_every_exact_score():
    house = await House(candidates=3).fill()
    result = await house.search("parse sat", explain=True, limit=4)
    for hit in result.hits:
        assert hit.explain["dense"].score == pytest.approx(float(embedding("parse sat") @ embedding(TEXTS[hit.id])))
    found = max_cosines(token_vectors("parse sat"), [token_vectors(TEXTS[hit.id]) for hit in result.hits])
    assert [hit.explain["late"].score for hit in result.hits] == pytest.approx(late_interaction_scores(found).tolist())
    completed = house.completed()
    assert completed
    for query in completed:
        assert query.limit == len(query.among)


@virtual
async def test_a_collection_without_token_vectors_is_ranked_by_its_arms():
    house = await House(late=0).fill()
    result = await house.search("the cat", explain=True)
    assert ids(result)[0] == "cat"
    assert set(result.hits[0].explain) == {"dense", "sparse", "fusion", "rerank", "signals"}
    assert result.degraded == []


@virtual
async def test_a_model_without_token_vectors_is_not_asked_for_them():
    house = await House(embedder=FakeEmbedder(token_dim=0)).fill()
    result = await house.search("the cat", explain=True)
    assert set(result.hits[0].explain) == {"dense", "sparse", "fusion", "rerank", "signals"}
    assert house.store.count(FetchTokenVectors) == 0


@virtual
async def test_without_rerank_the_fusion_decides():
    house = await House().fill()
    result = await house.search(rerank=False, explain=True)
    assert "rerank" not in result.stages
    assert set(result.hits[0].explain) == {"dense", "sparse", "fusion"}


@pytest.mark.parametrize(("weights", "left"), [(ArmWeights(dense=0), "sparse"), (ArmWeights(sparse=0), "dense")])
@virtual
async def test_an_arm_of_weight_zero_is_not_asked(weights, left):
    house = await House().fill()
    result = await house.search(weights=weights, explain=True)
    assert bool(house.embedder.asked) is (left == "dense")
    assert bool(house.sparse.asked) is (left == "sparse")
    assert set(result.hits[0].explain) == {left}
    assert result.degraded == []


@pytest.mark.parametrize("fusion", ["rrf", "minmax"])
@virtual
async def test_the_fusion_can_be_chosen(fusion):
    result = await (await House().fill()).search(fusion=fusion, rerank=False)
    assert ids(result)[0] == "cat"
    assert (result.hits[0].score > 1) is (fusion == "minmax")


@virtual
async def test_the_filter_holds_for_every_arm_and_candidate():
    house = await House().fill()
    conditions = (Match("language", ["d", "p"]),)
    result = await house.search("the cat parse", filter=conditions)
    assert set(ids(result)) == {"dog", "parse"}
    for query in house.searches():
        assert query.filter == conditions
    for query in house.completed():
        assert set(query.among) <= {point_id("dog", 0), point_id("parse", 0)}


@virtual
async def test_a_filter_that_nothing_meets_finds_nothing():
    result = await (await House().fill()).search(filter=(Match("id", ["absent"]),), explain=True)
    assert (result.hits, result.degraded) == ([], [])


@virtual
async def test_a_chunk_deleted_between_search_and_fetch_is_left_out():
    house = await House().fill()

    async def hook(command: StoreCommand[Any]) -> None:
        if isinstance(command, FetchPayloads):
            house.store.hook = lambda *_: asyncio.sleep(0)
            await house.store.run(DeleteDocuments("c", (Match("id", ["cat"]),)), WORK)

    house.store.hook = hook
    result = await house.search()
    assert "cat" not in ids(result)
    assert len(result.hits) == 3


@virtual
async def test_explain_tells_each_stages_rank_and_score():
    house = await House().fill()
    result = await house.search("the cat", explain=True)
    first, places = result.hits[0], result.hits[0].explain
    assert set(places) == {"dense", "sparse", "late", "fusion", "rerank", "signals"}
    assert {places[name].rank for name in ("dense", "sparse", "fusion", "rerank")} == {1}
    # Another text has the same two words for the fake model; equal ones stand in the order of their ids.
    assert places["late"].score == max(hit.explain["late"].score for hit in result.hits)
    assert places["fusion"].score == pytest.approx(2 / 61)
    assert places["signals"].score == first.score
    wordless = next(hit for hit in result.hits if hit.id == "parse")
    assert (wordless.explain["sparse"].rank, wordless.explain["sparse"].score) == (None, None)
    assert wordless.explain["rerank"].rank is not None


@virtual
async def test_without_explain_a_hit_has_none():
    result = await (await House().fill()).search()
    assert "explain" not in msgspec.to_builtins(result.hits[0])


@virtual
async def test_a_query_longer_than_the_model_reads_is_said():
    house = await House(reads_whole=lambda text: len(text) < 20).fill()
    assert (await house.search("the cat")).degraded == []
    assert (await house.search("the cat " * 10)).degraded == ["query_truncated"]


@virtual
async def test_an_endless_query_is_cut_before_any_model_sees_it():
    house = await House().fill()
    result = await house.search("cat " * QUERY_CHARACTERS_MAX)
    assert result.degraded == ["query_truncated"]
    assert len(house.embedder.asked[0][0]) == len(house.sparse.asked[0][0]) == QUERY_CHARACTERS_MAX


async def with_a_test_of_the_cat() -> House:
    house = await House().fill()
    text = "the cat sat"
    payload = ChunkPayload("test_cat", 0, text, path="tests/conftest.py")
    await house.store.run(UpsertPoints("c", [Point(payload, embedding(text), terms(text), token_vectors(text))]), WORK)
    return house


@virtual
async def test_what_is_tested_comes_before_its_test():
    result = await (await with_a_test_of_the_cat()).search(explain=True)
    assert ids(result)[0] == "cat"
    scores = {hit.id: (hit.explain["rerank"].score, hit.explain["signals"].score) for hit in result.hits}
    assert scores["cat"][0] == scores["test_cat"][0]
    assert scores["cat"][1] > scores["test_cat"][1]


@virtual
async def test_a_query_about_tests_leaves_them_where_they_are():
    result = await (await with_a_test_of_the_cat()).search("tests of sat", explain=True)
    scores = {hit.id: (hit.explain["rerank"].score, hit.explain["signals"].score) for hit in result.hits}
    assert scores["cat"][0] == scores["cat"][1]
    assert scores["test_cat"][0] <= scores["test_cat"][1]


@virtual
async def test_without_rerank_places_are_not_weighed():
    result = await (await with_a_test_of_the_cat()).search(rerank=False)
    assert {"cat", "test_cat"} <= set(ids(result)[:2])


@virtual
async def test_hits_beyond_the_size_of_an_answer_are_left_out_and_that_is_told() -> None:
    house = await House().fill()
    whole = await house.search("alpha")
    run = house.store.run

    async def cut(command: StoreCommand[Any], ctx: Context) -> Any:
        result = await run(command, ctx)
        return replace(result, hits=result.hits[:1], truncated=True) if isinstance(command, Retrieve) else result

    house.store.run = cut
    answer = await house.search("alpha")
    assert [hit.id for hit in answer.hits] == [whole.hits[0].id]
    assert answer.degraded == ["hits_truncated"]
    assert (await house.search("alpha", limit=1)).degraded == []
    with pytest.raises(Rejected, match="hits_truncated"):
        await house.search("alpha", strict=True)
