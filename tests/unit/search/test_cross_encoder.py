"""A cross-encoder in a search: it orders the best, gets a share of the time, and never makes a search fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kernel.context import Context, Deadline, enforce_deadline
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.settings import SearchSettings
from penstock.policies.ladder import Rung
from penstock.search.cross_encoder import (
    CROSS_ENCODER_TIME_SHARE,
    CrossEncoder,
    reorder_by_relevance,
    texts_to_read,
)
from penstock.search.pipeline import SearchPipeline
from penstock.search.request import ArmWeights, SearchRequest, SearchResult
from penstock.stores.commands import CreateCollection, FetchTokenVectors, StoreCommand, UpsertPoints
from penstock.stores.data_model import TEXT_FOLDED, ChunkPayload, CollectionInfo, Point
from tests.clock import BEGIN_S, virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore
from tests.fakes.models import DIM, FakeEmbedder, FakeSparseEncoder, Hook, embedding, fails_with, nothing, takes, terms

WORK = Context.background()
TEXTS = {f"d{n}": f"the cat number {n}" for n in range(30)} | {"last": "something else"}


async def newest(_collection: str, _ctx: Context) -> int:
    return TEXT_FOLDED


class Backwards:
    """Likes best what it is given last."""

    def __init__(self, hook: Hook = nothing) -> None:
        self.hook = hook
        self.asked: list[tuple[str, list[str], float]] = []

    async def rerank(self, query: str, texts: Sequence[str], ctx: Context) -> np.ndarray:
        self.asked.append((query, list(texts), ctx.deadline.at_s))
        async with enforce_deadline(ctx.deadline):
            await self.hook(texts)
        return np.arange(len(texts), dtype=np.float32) * 100 - 1000


@dataclass
class House:
    """A pipeline over fakes with a cross-encoder."""

    cross: Backwards = field(default_factory=Backwards)
    texts: int = 5
    rung: Rung = Rung.FULL
    store: MemoryStore = field(default_factory=MemoryStore)
    sparse: FakeSparseEncoder = field(default_factory=FakeSparseEncoder)

    async def fill(self) -> House:
        await self.store.run(CreateCollection(CollectionInfo("c", DIM, "m")), WORK)
        points = [Point(ChunkPayload(id, 0, text), embedding(text), terms(text)) for id, text in TEXTS.items()]
        await self.store.run(UpsertPoints("c", points), WORK)
        return self

    async def search(self, *, crossed: bool = True, ctx: Context = WORK, **wishes: Any) -> SearchResult:
        pipeline = SearchPipeline(
            embedder=FakeEmbedder(),
            sparse=self.sparse,
            store=self.store,
            settings=SearchSettings(candidates=20, candidates_reduced=8),
            clock=LoopClock(),
            prepare_sparse=lambda text, _: text,
            text_version=newest,
            fits_dense_model=lambda _: True,
            rung_of=lambda _: self.rung,
            cross_encoder=CrossEncoder(self.cross, self.texts) if crossed else None,
        )
        async with enforce_deadline(ctx.deadline):
            return await pipeline.run(SearchRequest("c", query="the cat", **wishes), ctx)


def ids(result: SearchResult) -> list[str]:
    return [hit.id for hit in result.hits]


def until(seconds: float) -> Context:
    return replace(WORK, deadline=Deadline(BEGIN_S + seconds, "search"))


@virtual
async def test_the_best_are_put_in_the_order_that_the_cross_encoder_gives_and_the_rest_stay():
    house = await House().fill()
    before, after = ids(await house.search(crossed=False)), await house.search()
    assert ids(after) == [*before[4::-1], *before[5:10]]
    ((query, texts, _),) = house.cross.asked
    assert (query, texts) == ("the cat", [TEXTS[id] for id in before[:5]])
    assert (after.degraded, "cross" in after.stages) == ([], True)
    scores = [hit.score for hit in after.hits]
    assert scores == sorted(scores, reverse=True)


@virtual
async def test_a_longer_answer_begins_as_the_shorter():
    house = await House(texts=20).fill()
    more = [f"the cat number {n}" for n in range(150)]
    points = [Point(ChunkPayload(f"m{n}", 0, text), embedding(text), terms(text)) for n, text in enumerate(more)]
    await house.store.run(UpsertPoints("c", points), WORK)
    answers = [await house.search(limit=limit) for limit in (1, 10, 49, 60, 101, 150)]
    for shorter, longer in pairwise(answers):
        assert longer.hits[: len(shorter.hits)] == shorter.hits
    assert [len(answer.hits) for answer in answers] == [1, 10, 49, 60, 101, 150]


@virtual
async def test_hits_below_the_limit_are_read_too():
    house = await House().fill()
    before = ids(await house.search(crossed=False))
    assert ids(await house.search(limit=1)) == [before[4]]


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("down", dependency="rerank"),
        Rejected("busy"),
        Broken("garbage"),
        Invalid("too long", code="query_too_long"),
        Expired("rerank"),
    ],
    ids=repr,
)
@virtual
async def test_a_cross_encoder_that_fails_leaves_the_order_as_it_was_and_the_answer_says_so(error):
    house = await House(Backwards(fails_with(error))).fill()
    before, after = await house.search(crossed=False), await house.search()
    assert ids(after) == ids(before)
    assert after.degraded == ["no_rerank"]
    with pytest.raises(Rejected, match="no_rerank"):
        await house.search(strict=True)


@virtual
async def test_a_cross_encoder_that_hangs_takes_its_share_of_the_time_and_no_more():
    house = await House(Backwards(takes(3600))).fill()
    after = await house.search(ctx=until(2.0))
    assert asyncio.get_running_loop().time() - BEGIN_S == pytest.approx(2.0 * CROSS_ENCODER_TIME_SHARE, abs=0.1)
    assert after.degraded == ["no_rerank"]
    assert len(after.hits) == 10


@virtual
async def test_on_the_first_rung_it_reads_fewer_and_on_the_next_none():
    house = await House(rung=Rung.FEWER_CANDIDATES).fill()
    assert (await house.search()).degraded == ["rerank_reduced"]
    assert [len(texts) for _, texts, _ in house.cross.asked] == [2]
    house.rung = Rung.NO_RERANK
    assert (await house.search()).degraded == ["no_rerank"]
    assert len(house.cross.asked) == 1


@pytest.mark.parametrize("wish", [{"rerank": False}, {"weights": ArmWeights(sparse=0.0)}], ids=repr)
@virtual
async def test_who_wants_no_rerank_or_one_arm_gets_what_was_there_before(wish):
    house = await House().fill()
    assert ids(await house.search(**wish)) == ids(await house.search(crossed=False, **wish))
    assert house.cross.asked == []


@virtual
async def test_with_one_arm_down_the_other_one_s_best_are_read():
    house = await House(sparse=FakeSparseEncoder(fails_with(Unavailable("down", dependency="sparse")))).fill()
    after = await house.search()
    assert after.degraded == ["no_sparse"]
    assert len(house.cross.asked) == 1


@virtual
async def test_a_failed_rescoring_and_a_failed_cross_encoder_are_told_once():
    house = await House(Backwards(fails_with(Broken("x")))).fill()

    async def down(command: StoreCommand[Any]) -> None:
        if isinstance(command, FetchTokenVectors):
            raise Unavailable("down", dependency="store")

    house.store.hook = down
    assert (await house.search()).degraded == ["no_rerank"]


@virtual
async def test_where_nothing_is_found_nothing_is_read():
    house = House()
    await house.store.run(CreateCollection(CollectionInfo("c", DIM, "m")), WORK)
    assert (await house.search()).hits == []
    assert house.cross.asked == []


# --- Places


def test_scores_stay_in_the_range_of_those_that_were_read():
    after = reorder_by_relevance({"a": 0.9, "b": 0.7, "c": 0.5, "d": 0.4}, [-7.0, 3.0, -2.0])
    assert list(after.items()) == [("b", pytest.approx(0.9)), ("c", 0.7), ("a", pytest.approx(0.5)), ("d", 0.4)]


def test_candidates_of_one_score_are_ordered_all_the_same():
    ranked = {"a": 0.5, "b": 0.5}
    assert list(reorder_by_relevance(ranked, [0.0, 1.0])) == ["b", "a"]
    assert reorder_by_relevance(ranked, []) == ranked
    assert reorder_by_relevance({}, []) == {}
    assert set(reorder_by_relevance(ranked, [2.0, 2.0]).values()) == {0.5}
    assert next(iter(reorder_by_relevance({"a": 0.9, "b": 0.1}, [0.0, 5e-324]).items())) == ("b", 0.9)


@given(
    st.lists(st.floats(-10, 10), min_size=1, max_size=20).map(lambda scores: sorted(scores, reverse=True)),
    st.lists(st.floats(-100, 100), max_size=20),
)
def test_nothing_is_lost_and_what_was_read_stays_above_what_was_not(scores, relevance):
    ranked = {str(number): score for number, score in enumerate(scores)}
    relevance = relevance[: len(ranked)]
    after = reorder_by_relevance(ranked, relevance)
    assert set(after) == set(ranked)
    assert list(after.items())[len(relevance) :] == list(ranked.items())[len(relevance) :]
    assert all(score >= scores[max(0, len(relevance) - 1)] - 1e-9 for score in list(after.values())[: len(relevance)])


def test_fewer_candidates_mean_fewer_texts_in_the_same_share():
    assert [texts_to_read(20, candidates, 100) for candidates in (100, 200, 30, 1)] == [20, 20, 6, 1]
