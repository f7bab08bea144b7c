"""The pipeline under load: rung by rung, strict or not, with what it remembers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.settings import SearchSettings
from penstock.policies.ladder import Rung
from penstock.pools.guard import CircuitOpen
from penstock.search.pipeline import SearchPipeline
from penstock.search.request import ArmWeights, SearchRequest, SearchResult
from penstock.search.result_cache import ResultCache
from penstock.stores.commands import CreateCollection, FetchTokenVectors, SearchBatch, StoreCommand, UpsertPoints
from penstock.stores.data_model import TEXT_FOLDED, ChunkPayload, CollectionInfo, Point
from penstock.stores.memory_cache import MemoryCache
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore
from tests.fakes.models import DIM, FakeEmbedder, FakeSparseEncoder, embedding, fails_with, takes, terms

WORK = Context.background()
TEXTS = {"cat": "the cat sat", "dog": "a dog sat", "parse": "parse json text", "mat": "on the mat"}
DOWN = Unavailable("down", dependency="model")


async def newest(_collection: str, _ctx: Context) -> int:
    return TEXT_FOLDED


@dataclass
class House:
    """A pipeline over fakes, on the rung that the test sets."""

    rung: Rung = Rung.FULL
    remembers: bool = True
    store: MemoryStore = field(default_factory=MemoryStore)
    embedder: FakeEmbedder = field(default_factory=FakeEmbedder)
    sparse: FakeSparseEncoder = field(default_factory=FakeSparseEncoder)

    async def fill(self) -> House:
        await self.store.run(CreateCollection(CollectionInfo("c", DIM, "m")), WORK)
        points = [Point(ChunkPayload(id, 0, text), embedding(text), terms(text)) for id, text in TEXTS.items()]
        await self.store.run(UpsertPoints("c", points), WORK)
        self.answers = ResultCache(MemoryCache("answers", 10, 100_000, LoopClock(), 60.0))
        self.pipeline = SearchPipeline(
            embedder=self.embedder,
            sparse=self.sparse,
            store=self.store,
            settings=SearchSettings(candidates=4, candidates_reduced=2),
            clock=LoopClock(),
            prepare_sparse=lambda text, _: text,
            text_version=newest,
            fits_dense_model=lambda text: "endless" not in text,
            rung_of=lambda _: self.rung,
            result_cache=self.answers if self.remembers else None,
        )
        self.store.asked.clear()
        return self

    async def search(self, query: str = "the cat", **wishes: Any) -> SearchResult:
        return await self.pipeline.run(SearchRequest("c", query=query, **{"limit": 2, **wishes}), WORK)

    def operations(self) -> list[str]:
        return [command.operation for command in self.store.asked]


async def house(rung: Rung = Rung.FULL, **parts: Any) -> House:
    return await House(rung, **parts).fill()


async def refused(search: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        await search
    return caught.value


@virtual
async def test_fewer_candidates_are_taken_and_reranked():
    it = await house(Rung.FEWER_CANDIDATES)
    result = await it.search()
    assert result.degraded == ["rerank_reduced"]
    assert "rerank" in result.stages
    assert "fetch_token_vectors" in it.operations()
    arms, *_ = [command.queries for command in it.store.asked if isinstance(command, SearchBatch)]
    assert [query.limit for query in arms] == [2, 2]


@virtual
async def test_no_rerank_asks_both_arms_and_fuses_only():
    it = await house(Rung.NO_RERANK)
    result = await it.search(explain=True)
    assert result.degraded == ["no_rerank"]
    assert it.operations() == ["search_batch", "fetch_payloads"]
    assert set(result.hits[0].explain) == {"dense", "sparse", "fusion"}


@virtual
async def test_one_arm_runs_no_model():
    it = await house(Rung.ONE_ARM)
    result = await it.search(explain=True)
    assert result.degraded == ["one_arm"]
    assert result.hits[0].id == "cat"
    assert set(result.hits[0].explain) == {"sparse"}
    assert (it.embedder.asked, it.operations()) == ([], ["search_batch", "fetch_payloads"])


@virtual
async def test_an_arm_that_finds_nothing_alone_is_made_up_for_by_the_other():
    it = await house(Rung.ONE_ARM)
    result = await it.search("feline", explain=True)
    assert result.degraded == ["one_arm"]
    assert len(result.hits) == 2
    assert set(result.hits[0].explain) == {"dense"}


@pytest.mark.parametrize("error", [DOWN, Rejected("full"), Expired("embed"), Broken("bug")])
@virtual
async def test_the_kept_arm_down_is_made_up_for_by_the_other(error):
    it = await house(Rung.ONE_ARM, sparse=FakeSparseEncoder(fails_with(error)))
    result = await it.search()
    assert result.degraded == ["one_arm", "no_sparse"]
    assert result.hits[0].id == "cat"


@virtual
async def test_nothing_found_by_one_arm_and_the_other_down_is_an_empty_answer_that_says_so():
    it = await house(Rung.ONE_ARM, embedder=FakeEmbedder(fails_with(DOWN)))
    result = await it.search("feline")
    assert (result.hits, result.degraded) == ([], ["one_arm", "no_dense"])


@virtual
async def test_both_arms_down_one_after_the_other_is_the_first_ones_error():
    it = await house(
        Rung.ONE_ARM, embedder=FakeEmbedder(fails_with(DOWN)), sparse=FakeSparseEncoder(fails_with(Broken("bug")))
    )
    with pytest.raises(Broken):
        await it.search()


@virtual
async def test_a_request_of_one_arm_keeps_it_on_every_rung_that_works():
    it = await house(Rung.ONE_ARM)
    result = await it.search(weights=ArmWeights(sparse=0), strict=True)
    assert (result.degraded, len(it.embedder.asked)) == ([], 1)


@virtual
async def test_cached_only_gives_a_remembered_answer_and_begins_no_work():
    it = await house()
    whole = await it.search(explain=True)
    it.rung = Rung.CACHED_ONLY
    it.store.asked.clear()
    await asyncio.sleep(59)
    result = await it.search()
    assert [hit.id for hit in result.hits] == [hit.id for hit in whole.hits]
    assert (result.degraded, set(result.stages), result.took_ms) == (["cached"], {"cache"}, 0.0)
    assert (it.operations(), len(it.embedder.asked)) == ([], 1)
    await asyncio.sleep(1)
    assert (await refused(it.search())).code == "overloaded"


@virtual
async def test_a_remembered_answer_says_what_it_had_to_do_without_itself():
    it = await house(Rung.NO_RERANK)
    await it.search("endless cat")
    it.rung = Rung.CACHED_ONLY
    assert (await it.search("endless cat")).degraded == ["query_truncated", "no_rerank", "cached"]


@virtual
async def test_a_remembered_answer_does_not_make_itself_younger():
    it = await house()
    await it.search()
    it.rung = Rung.CACHED_ONLY
    for _ in range(2):
        await asyncio.sleep(25)
        await it.search()
    await asyncio.sleep(25)
    assert (await refused(it.search())).code == "overloaded"


@virtual
async def test_a_removal_during_a_search_forgets_its_answer():
    it = await house(embedder=FakeEmbedder(takes(1)))
    searching = asyncio.create_task(it.search())
    await asyncio.sleep(0.5)
    it.answers.invalidate("c")
    await searching
    it.rung = Rung.CACHED_ONLY
    assert (await refused(it.search())).code == "overloaded"


@pytest.mark.parametrize("remembers", [True, False])
@virtual
async def test_cached_only_refuses_what_it_does_not_remember(remembers):
    it = await house(Rung.CACHED_ONLY, remembers=remembers)
    error = await refused(it.search())
    assert (error.code, error.by_client) == ("overloaded", False)
    assert it.operations() == []


@virtual
async def test_without_a_memory_answers_are_whole_all_the_same():
    assert (await (await house(remembers=False)).search()).degraded == []


@virtual
async def test_the_last_rung_refuses_but_tells_a_senseless_request_first():
    it = await house(Rung.REFUSE)
    assert (await refused(it.search())).code == "overloaded"
    with pytest.raises(Invalid):
        await it.search(" ")


@pytest.mark.parametrize("rung", [rung for rung in Rung if Rung.FULL < rung < Rung.REFUSE])
@virtual
async def test_a_strict_search_is_refused_before_any_work_on_every_rung_that_takes_something(rung):
    it = await house()
    await it.search()
    it.rung = rung
    it.store.asked.clear()
    assert (await refused(it.search(strict=True))).code == "degraded"
    assert it.operations() == []


@pytest.mark.parametrize("error", [DOWN, Rejected("full"), Expired("embed"), Broken("bug")])
@pytest.mark.parametrize("arm", ["embedder", "sparse"])
@virtual
async def test_a_strict_search_is_refused_when_an_arm_is_down_and_the_other_arm_is_cancelled(arm, error):
    it = await house(embedder=FakeEmbedder(takes(60)), sparse=FakeSparseEncoder(takes(60)))
    getattr(it, arm).hook = fails_with(error)
    caught = await refused(it.search(strict=True))
    assert caught.code == "degraded"
    assert caught.__cause__ is error
    assert len(asyncio.all_tasks()) == 1
    assert asyncio.get_running_loop().time() < 1001


@virtual
async def test_a_strict_refusal_hands_the_breakers_hint_on():
    it = await house(embedder=FakeEmbedder(fails_with(CircuitOpen("embed", 17.0))))
    assert (await refused(it.search(strict=True))).retry_after_s == 17.0
    assert (await it.search()).degraded == ["no_dense"]


@virtual
async def test_a_strict_search_is_refused_when_the_rerank_fails():
    it = await house()

    async def hook(command: StoreCommand[Any]) -> None:
        if isinstance(command, FetchTokenVectors):
            raise DOWN

    it.store.hook = hook
    assert (await it.search("sat parse")).degraded == ["no_rerank"]
    assert (await refused(it.search("sat parse", strict=True))).code == "degraded"


@virtual
async def test_a_strict_search_whose_only_arm_is_down_gets_that_arms_error():
    it = await house(embedder=FakeEmbedder(fails_with(DOWN)))
    with pytest.raises(Unavailable):
        await it.search(strict=True, weights=ArmWeights(sparse=0))


@virtual
async def test_a_strict_search_with_a_query_cut_short_is_answered():
    assert (await (await house()).search("endless cat", strict=True)).degraded == ["query_truncated"]
