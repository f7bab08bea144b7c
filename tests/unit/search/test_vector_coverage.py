"""Searches of collections in which some chunks have no vectors yet."""

import asyncio

import msgspec
import pytest

from penstock.indexing.embedding_backfill import EmbeddingBackfill
from penstock.kernel.context import Context, Criticality, Deadline
from penstock.kernel.errors import Rejected, Unavailable
from penstock.kernel.settings import SearchSettings, Settings
from penstock.policies.ladder import Rung
from penstock.ranking.program import LATE_INTERACTION, mix_scores
from penstock.ranking.retrieval import Arm
from penstock.search.pipeline import SearchPipeline
from penstock.search.request import ArmWeights, Like, SearchRequest
from penstock.stores.commands import AddVectors, CreateCollection, DescribeCollection, SearchBatch, UpsertPoints
from penstock.stores.data_model import TEXT_FOLDED, ChunkPayload, CollectionInfo, Point
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore
from tests.fakes.models import DIM, FakeEmbedder, FakeSparseEncoder, embedding, fails_with, terms

WORK = Context.background()


async def newest(_collection, _ctx):
    return TEXT_FOLDED


class House:
    """A pipeline and a backfill over one store; documents by their ids, pending or whole."""

    def __init__(self, rung=Rung.FULL):
        self.store, self.embedder, self.rung = MemoryStore(), FakeEmbedder(), rung
        self.backfill = EmbeddingBackfill(self.store, self.embedder, Settings(), LoopClock(), model="m", shared=False)

    async def fill(self, *, pending=(), whole=(), collection="c"):
        await self.store.run(CreateCollection(CollectionInfo(collection, DIM, "m")), WORK)
        points = [Point(ChunkPayload(text, 0, text, pending="h"), None, terms(text)) for text in pending]
        points += [Point(ChunkPayload(text, 0, text), embedding(text), terms(text)) for text in whole]
        await self.store.run(UpsertPoints(collection, points), WORK)
        return self

    async def pending(self, collection="c"):
        return (await self.store.run(DescribeCollection(collection), WORK)).pending

    async def search(self, query="the cat", collection="c", *, timeout_s=60.0, **wishes):
        pipeline = SearchPipeline(
            embedder=self.embedder,
            sparse=FakeSparseEncoder(),
            store=self.store,
            settings=SearchSettings(),
            clock=LoopClock(),
            prepare_sparse=lambda text, _: text,
            text_version=newest,
            fits_dense_model=lambda _: True,
            rung_of=lambda _: self.rung,
            backfill=self.backfill,
        )
        until = Deadline(asyncio.get_running_loop().time() + timeout_s, "search")
        return await pipeline.run(
            SearchRequest(collection, query=query, **wishes), Context(until, Criticality.STANDARD)
        )


@virtual
async def test_a_whole_collection_says_nothing_of_coverage():
    house = await House().fill(whole=["the cat", "a dog"])
    answer = await house.search()
    assert (answer.coverage, "backfill" in answer.stages) == (msgspec.UNSET, False)


@virtual
async def test_the_best_hits_are_embedded_on_the_spot_and_the_answer_says_what_is_covered():
    many = [f"cat number {n}" for n in range(20)]
    house = await House().fill(pending=["the cat sat", *many], whole=["a dog"])
    answer = await house.search(limit=10)
    assert answer.hits[0].id == "the cat sat"
    assert answer.coverage == pytest.approx(9 / 22, abs=0.001)
    assert await house.pending() == 13
    assert answer.stages["backfill"] >= 0
    assert answer.degraded == []


@virtual
async def test_a_collection_without_any_vector_is_found_by_words():
    house = await House().fill(pending=["the cat sat", "a dog"])
    answer = await house.search(timeout_s=0.001)
    assert answer.hits[0].id == "the cat sat"
    assert answer.coverage == 0.0


@virtual
async def test_under_load_nothing_is_embedded_on_the_spot():
    house = await House(Rung.FEWER_CANDIDATES).fill(pending=["the cat sat"], whole=["a dog"])
    answer = await house.search()
    assert (await house.pending(), answer.coverage) == (1, 0.5)


@virtual
async def test_a_search_by_words_alone_neither_embeds_nor_tells_coverage():
    house = await House().fill(pending=["the cat sat"], whole=["a dog"])
    answer = await house.search(weights=ArmWeights(0.0, 1.0))
    assert (answer.hits[0].id, answer.coverage, await house.pending()) == ("the cat sat", msgspec.UNSET, 1)


@virtual
async def test_several_collections_tell_the_least_coverage():
    house = await (await House().fill(pending=["the cat sat"], whole=["a dog"])).fill(whole=["cats"], collection="d")
    answer = await house.search(collection="c,d,", timeout_s=0.001)
    assert answer.coverage == 0.5


@virtual
async def test_a_failing_model_leaves_the_answer_by_words():
    house = await House().fill(pending=["the cat sat"], whole=["a dog"])
    house.embedder = FakeEmbedder(fails_with(Unavailable("down", dependency="embed")))
    answer = await house.search()
    assert (answer.hits[0].id, answer.degraded) == ("the cat sat", ["no_dense"])


@virtual
async def test_a_model_that_hangs_over_the_hits_costs_the_search_a_share_of_its_time_and_not_its_answer():
    house = await House().fill(pending=["the cat sat"], whole=["a dog"])

    async def hang_over_documents(texts):
        if texts != ["the cat"]:
            await asyncio.sleep(3600)

    house.embedder = FakeEmbedder(hang_over_documents)
    house.backfill._embedder = house.embedder
    answer = await house.search(timeout_s=10)
    assert (answer.hits[0].id, answer.coverage, answer.degraded) == ("the cat sat", 0.5, [])
    assert answer.took_ms < 5000


@virtual
async def test_a_store_that_fails_the_second_time_leaves_the_first_answer():
    house = await House().fill(pending=["the cat sat"], whole=["a dog"])

    async def fail_after_the_vectors(command):
        written = any(isinstance(one, AddVectors) for one in house.store.asked[:-1])
        if written and isinstance(command, SearchBatch):
            raise Unavailable("down", dependency="store")

    house.store.hook = fail_after_the_vectors
    answer = await house.search()
    assert (answer.hits[0].id, answer.degraded) == ("the cat sat", [])


@virtual
async def test_the_store_is_asked_once_more_and_no_more_than_once():
    house = await House().fill(pending=[f"cat {n}" for n in range(40)])
    await house.search(limit=20)
    asked = [command for command in house.store.asked if isinstance(command, AddVectors)]
    assert len(asked) == 1


@virtual
async def test_what_is_like_a_pending_document_is_told_to_try_again():
    house = await House().fill(pending=["the cat sat"], whole=["a dog"])
    with pytest.raises(Rejected) as refused:
        await house.search(query="", like=Like("the cat sat"))
    assert refused.value.code == "vectors_pending"


def test_a_point_without_vectors_is_neither_like_nor_unlike_the_query():
    scores = {Arm.DENSE: {"near": 0.9, "far": 0.1}, Arm.SPARSE: {"new": 5.0}, LATE_INTERACTION: {}}
    mixed = mix_scores(["far", "near", "new"], scores, {Arm.DENSE: 1.0, Arm.SPARSE: 0.0})
    assert list(mixed) == ["near", "new", "far"]
    assert mixed["new"] == pytest.approx(0.5)
    alone = mix_scores(["new", "other"], {Arm.SPARSE: {"new": 5.0}}, {Arm.DENSE: 1.0, Arm.SPARSE: 1.0})
    assert list(alone) == ["new", "other"]
