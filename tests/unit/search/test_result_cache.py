"""Remembered answers: which requests share one, how old it may be, what makes it forgotten."""

import asyncio
from typing import Any

import msgspec
import pytest

from penstock.kernel.errors import Unavailable
from penstock.search import result_cache
from penstock.search.request import (
    ArmWeights,
    Facet,
    FacetValue,
    LeftOut,
    Like,
    OtherChunk,
    SearchHit,
    SearchRequest,
    SearchResult,
    StageRank,
)
from penstock.search.result_cache import ResultCache
from penstock.stores.data_model import Match, Range
from penstock.stores.memory_cache import MemoryCache
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock

ODD: dict[str, Any] = {"big": 2**63 + 1, "nested": {"list": [1, 2.5, None, True]}, "": "ä😀"}
HIT = SearchHit("d", 0, 0.5, "p", 1, 2, "text", "", "en", ODD)
RESULT = SearchResult([HIT], 3.0, {"fusion": 0.1}, ["no_dense"])
REQUEST = SearchRequest("c", query="cat", filter=(Match("id", ["a", 1, True]), Range("metadata.x", gt=1.5)))


def remembering(ttl_s: float = 60.0) -> ResultCache:
    return ResultCache(MemoryCache("answers", 10, 100_000, LoopClock(), ttl_s))


@virtual
async def test_an_answer_comes_back_as_it_was_until_it_is_too_old():
    cache = remembering()
    key = cache.key(REQUEST)
    assert await cache.get(key) is None
    await cache.put(key, RESULT)
    await asyncio.sleep(59)
    assert await cache.get(cache.key(REQUEST)) == RESULT
    await asyncio.sleep(1)
    assert await cache.get(key) is None


@virtual
async def test_explanations_are_not_kept():
    cache = remembering()
    explained = msgspec.structs.replace(HIT, explain={"dense": StageRank(1, 0.5)})
    await cache.put(b"k", SearchResult([explained], 3.0, {}, []))
    assert await cache.get(b"k") == SearchResult([HIT], 3.0, {}, [])


def test_requests_share_an_answer_only_if_it_would_be_the_same():
    cache = remembering()
    change = msgspec.structs.replace
    key = cache.key(REQUEST)
    assert cache.key(change(REQUEST, explain=True, strict=True)) == key
    others = [
        change(REQUEST, collection="d"),
        change(REQUEST, query="cat "),
        change(REQUEST, limit=11),
        change(REQUEST, filter=()),
        change(REQUEST, filter=(Match("id", ["a", 1, 1]), REQUEST.filter[1])),
        change(REQUEST, rerank=False),
        change(REQUEST, weights=ArmWeights(dense=0.5)),
        change(REQUEST, fusion="minmax"),
    ]
    assert len({key, *map(cache.key, others)}) == len(others) + 1


@virtual
async def test_a_removal_forgets_the_answers_of_its_collection_also_those_on_their_way(monkeypatch):
    cache = remembering()
    other = msgspec.structs.replace(REQUEST, collection="other")
    key, other_key = cache.key(REQUEST), cache.key(other)
    cache.invalidate("c")
    await cache.put(key, RESULT)
    await cache.put(other_key, RESULT)
    assert await cache.get(cache.key(REQUEST)) is None
    assert await cache.get(cache.key(other)) == RESULT
    monkeypatch.setattr(result_cache, "TRACKED_COLLECTIONS_MAX", 1)
    before = cache.key(REQUEST)
    cache.invalidate("third")
    assert await cache.get(cache.key(other)) is None
    assert cache.key(REQUEST) not in (key, before), "forgotten numbers do not come again"
    cache.invalidate("third")
    assert len(cache._removals) == 1


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90"])
@virtual
async def test_bytes_that_are_no_answer_are_none(data):
    memory = MemoryCache("answers", 10, 100_000, LoopClock())
    await memory.put({b"k": data})
    assert await ResultCache(memory).get(b"k") is None


@virtual
async def test_a_cache_that_fails_remembers_nothing():
    class Failing(MemoryCache):
        async def get(self, keys):
            raise Unavailable("down", dependency="redis")

        async def put(self, entries):
            raise Unavailable("down", dependency="redis")

    cache = ResultCache(Failing("answers", 1, 1, LoopClock()))
    await cache.put(b"k", RESULT)
    assert await cache.get(b"k") is None


@virtual
async def test_every_part_of_an_answer_comes_back():
    parts = {"others": [OtherChunk(1, 0.4, 5, 9)], "others_total": 3, "highlights": [[0, 4]], "collection": "c"}
    facet = Facet("metadata.k", [FacetValue(True, 2), FacetValue(1, 1), FacetValue("1", 1), FacetValue(0.5, 1)], 4, 0)
    whole = SearchResult(
        [msgspec.structs.replace(HIT, **parts)], 3.0, {}, [], "x" * 32, [LeftOut("d", "code", "detail")], [facet]
    )
    cache = remembering()
    await cache.put(b"k", whole)
    found = await cache.get(b"k")
    assert found == whole
    assert [type(one.value) for one in found.facets[0].values] == [bool, int, str, float]


def test_what_decides_about_an_answer_decides_about_its_key():
    cache, change = remembering(), msgspec.structs.replace
    said = [
        {},
        {"group": "document"},
        {"offset": 1},
        {"cursor": "x" * 32},
        {"highlights": True},
        {"facets": ("language",)},
        {"query": "", "like": Like("a")},
        {"query": "", "like": Like("a", 0)},
    ]
    assert len({cache.key(change(REQUEST, **fields)) for fields in said}) == len(said)
