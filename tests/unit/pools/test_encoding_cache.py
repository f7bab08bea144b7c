"""Models that remember: hits, misses, both in one batch, and caches that fail."""

import asyncio

import numpy as np
import pytest

from penstock.kernel.context import Context
from penstock.kernel.errors import Unavailable
from penstock.kernel.messages import TextKind
from penstock.kernel.vectors import SparseVector
from penstock.models.bm25 import INLINE_CHARACTERS_MAX, Bm25Runner, Bm25Settings
from penstock.pools.encoding_cache import CachedEmbedder, CachedSparseEncoder
from penstock.stores.memory_cache import MemoryCache
from tests.clock import quiet, virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.models import DIM, FakeEmbedder, FakeSparseEncoder, embedding, fails_with, takes, terms, token_vectors

WORK = Context.background()
DOWN = Unavailable("down", dependency="x")
QUERY, DOCUMENT = TextKind.QUERY, TextKind.DOCUMENT


def memory(entries: int = 100) -> MemoryCache:
    return MemoryCache("embed", entries, 1_000_000, LoopClock())


class FailingCache(MemoryCache):
    """Fails always."""

    async def get(self, keys):
        raise DOWN

    async def put(self, entries):
        raise DOWN


@virtual
async def test_a_text_is_encoded_once_and_the_order_is_kept():
    model, cache = FakeEmbedder(), memory()
    embedder = CachedEmbedder(model, cache, "m")
    assert embedder.dim == DIM
    first = (await embedder.embed(["a", "b"], DOCUMENT, WORK)).dense
    second = (await embedder.embed(["c", "b", "a", "c", "d"], DOCUMENT, WORK)).dense
    assert model.asked == [["a", "b"], ["c", "d"]]
    assert np.array_equal(first, [embedding("a"), embedding("b")])
    assert np.array_equal(second, [embedding(text) for text in "cbacd"])
    assert (second.dtype, second.shape) == (np.float32, (5, DIM))
    assert (cache.state().hits, cache.state().misses) == (2, 4)


@virtual
async def test_no_texts_make_no_rows_and_ask_nobody():
    model = FakeEmbedder()
    assert (await CachedEmbedder(model, memory(), "m").embed([], QUERY, WORK)).dense.shape == (0, DIM)
    assert model.asked == []


@virtual
async def test_what_a_caller_does_to_its_array_changes_nobody_elses():
    embedder = CachedEmbedder(FakeEmbedder(), memory(), "m")
    mine, theirs = await asyncio.gather(*(embedder.embed(["a"], QUERY, WORK) for _ in range(2)))
    mine.dense[:] = 7
    assert np.array_equal(theirs.dense, [embedding("a")])
    assert np.array_equal((await embedder.embed(["a"], QUERY, WORK)).dense, [embedding("a")])


@virtual
async def test_queries_documents_and_other_models_share_nothing():
    model, cache = FakeEmbedder(), memory()
    one, other = CachedEmbedder(model, cache, "one"), CachedEmbedder(model, cache, "other")
    for embedder, kind in [(one, QUERY), (one, DOCUMENT), (other, QUERY), (other, DOCUMENT)] * 2:
        await embedder.embed(["a"], kind, WORK)
    assert len(model.asked) == 4


@pytest.mark.parametrize("text", ["", "\0", "x" * 100_000, "日本語"])
@virtual
async def test_every_text_has_a_key(text):
    model = FakeEmbedder()
    embedder = CachedEmbedder(model, memory(), "m")
    for _ in range(2):
        assert np.array_equal(
            (await embedder.embed([text, "other"], QUERY, WORK)).dense, [embedding(text), embedding("other")]
        )
    assert len(model.asked) == 1


@virtual
async def test_the_same_text_asked_for_at_once_is_encoded_once():
    model = FakeEmbedder(takes(1))
    embedder = CachedEmbedder(model, memory(), "m")
    answers = await asyncio.gather(*(embedder.embed(["a"], QUERY, WORK) for _ in range(5)))
    assert model.asked == [["a"]]
    assert all(np.array_equal(answer.dense, [embedding("a")]) for answer in answers)


@virtual
async def test_a_cancelled_leaders_text_is_encoded_for_those_who_still_want_it():
    model = FakeEmbedder(takes(1))
    embedder = CachedEmbedder(model, memory(), "m")
    leader = asyncio.create_task(embedder.embed(["a", "b"], QUERY, WORK))
    follower = asyncio.create_task(embedder.embed(["b", "c"], QUERY, WORK))
    await quiet()
    leader.cancel()
    assert np.array_equal((await follower).dense, [embedding("b"), embedding("c")])
    assert model.asked == [["a", "b"], ["c"], ["b"]]


@virtual
async def test_token_vectors_are_remembered_with_the_dense_one():
    model, cache = FakeEmbedder(), memory()
    embedder = CachedEmbedder(model, cache, "m")
    assert embedder.token_dim == DIM
    texts = ["a", "b c d"]
    for _ in range(2):
        both = await embedder.embed(texts, DOCUMENT, WORK, late_interaction=True)
        assert np.array_equal(both.dense, [embedding(text) for text in texts])
        assert [tokens.tolist() for tokens in both.late] == [token_vectors(text).tolist() for text in texts]
    assert len(model.asked) == 1
    assert (await embedder.embed(texts, DOCUMENT, WORK)).late is None
    assert len(model.asked) == 2


@virtual
async def test_a_model_without_token_vectors_gives_none_when_asked():
    embedder = CachedEmbedder(FakeEmbedder(token_dim=0), memory(), "m")
    for _ in range(2):
        assert (await embedder.embed(["a"], QUERY, WORK, late_interaction=True)).late is None


@virtual
async def test_an_error_is_not_remembered():
    model = FakeEmbedder(fails_with(DOWN))
    embedder = CachedEmbedder(model, memory(), "m")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await embedder.embed(["a"], QUERY, WORK)
    assert len(model.asked) == 2


@virtual
async def test_a_cache_that_fails_is_one_that_has_forgotten_everything():
    model = FakeEmbedder()
    embedder = CachedEmbedder(model, FailingCache("c", 1, 1, LoopClock()), "m")
    for _ in range(2):
        assert np.array_equal((await embedder.embed(["a"], QUERY, WORK)).dense, [embedding("a")])
    assert len(model.asked) == 2


@virtual
async def test_bytes_of_another_length_are_a_miss():
    class Odd(MemoryCache):
        async def get(self, keys):
            return [b"12345"] * len(keys)

    dense, sparse = FakeEmbedder(), FakeSparseEncoder()
    odd = Odd("c", 1, 1000, LoopClock())
    assert np.array_equal((await CachedEmbedder(dense, odd, "m").embed(["a"], QUERY, WORK)).dense, [embedding("a")])
    assert len(await CachedSparseEncoder(sparse, odd, "m").encode(["a"], QUERY, WORK)) == 1
    assert (len(dense.asked), len(sparse.asked)) == (1, 1)


@virtual
async def test_a_vector_that_is_not_finite_is_not_remembered():
    class Wild(FakeEmbedder):
        async def embed(self, texts, kind, ctx, *, late_interaction=False):
            vectors = await super().embed(texts, kind, ctx, late_interaction=late_interaction)
            vectors.dense[0, 0] = np.nan
            return vectors

    class WildSparse(FakeSparseEncoder):
        async def encode(self, texts, kind, ctx):
            await super().encode(texts, kind, ctx)
            return [SparseVector(np.array([1], np.uint32), np.array([np.inf], np.float32)) for _ in texts]

    dense, sparse = Wild(), WildSparse()
    for _ in range(2):
        await (embedder := CachedEmbedder(dense, cache := memory(), "m")).embed(["a", "b"], QUERY, WORK)
        await embedder.embed(["a", "b"], QUERY, WORK)
        assert cache.state().entries == 1
    assert dense.asked == [["a", "b"], ["a"]] * 2
    encoder = CachedSparseEncoder(sparse, memory(), "m")
    for _ in range(2):
        await encoder.encode(["a"], QUERY, WORK)
    assert len(sparse.asked) == 2


@virtual
async def test_sparse_vectors_come_back_as_they_were():
    model, cache = FakeSparseEncoder(), memory()
    encoder = CachedSparseEncoder(model, cache, "bm25")
    for _ in range(2):
        vectors = await encoder.encode(["the cat sat", "", "a cat"], DOCUMENT, WORK)
        for vector, text in zip(vectors, ["the cat sat", "", "a cat"], strict=True):
            assert (vector.indices.dtype, vector.values.dtype) == (np.uint32, np.float32)
            assert np.array_equal(vector.indices, terms(text).indices)
            assert np.array_equal(vector.values, terms(text).values)
    assert len(model.asked) == 1
    assert cache.state().hits == 3


@virtual
async def test_queries_are_encoded_by_bm25_on_the_spot_if_they_are_short():
    model, cache, bm25 = FakeSparseEncoder(), memory(), Bm25Runner(Bm25Settings())
    encoder = CachedSparseEncoder(model, cache, "bm25", bm25)
    queries = ["the cat sat", "cat"]
    for found, wanted in zip(await encoder.encode(queries, QUERY, WORK), bm25.encode_queries(queries), strict=True):
        assert np.array_equal(found.indices, wanted.indices)
        assert np.array_equal(found.values, wanted.values)
    assert (model.asked, cache.state().entries) == ([], 0)
    for texts, kind in (["a" * (INLINE_CHARACTERS_MAX + 1)], QUERY), (queries, DOCUMENT):
        await encoder.encode(texts, kind, WORK)
        assert model.asked[-1] == texts
