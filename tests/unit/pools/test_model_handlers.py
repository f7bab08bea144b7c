"""What the ML pools do with a message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import pytest

from penstock.kernel.context import Context, Criticality, Deadline
from penstock.kernel.errors import Invalid
from penstock.kernel.messages import EmbedBatch, RerankTexts, SparseBatch, TextKind
from penstock.kernel.vectors import DenseVectors, Embeddings, SparseVector
from penstock.models.cancellation import CancellationToken
from penstock.models.prompts import Prompts
from penstock.pools.model_handlers import ThreadModelHandlers
from tests.clock import virtual

T = TypeVar("T")
WORK = Context.background()


class Dense:
    model, dim, token_dim, tokens_max = "fake", 1, 4, 8

    def __init__(self) -> None:
        self.stops: list[CancellationToken] = []

    def run(self, texts: Sequence[str], stop: CancellationToken) -> DenseVectors:
        self.stops.append(stop)
        if "" in texts:
            raise Invalid("an empty text")
        return np.array([[len(text)] for text in texts], np.float32)

    def run_with_token_vectors(self, texts: Sequence[str], kind: TextKind, stop: CancellationToken) -> Embeddings:
        rows = 2 if kind is TextKind.QUERY else 1
        return Embeddings(self.run(texts, stop), [np.zeros((rows, self.token_dim), np.int8) for _ in texts])


class Sparse:
    def _encode(self, texts: Sequence[str], value: float) -> list[SparseVector]:
        return [SparseVector(np.array([len(text)], np.uint32), np.array([value], np.float32)) for text in texts]

    def encode_queries(self, texts: Sequence[str], _stop: CancellationToken) -> list[SparseVector]:
        return self._encode(texts, 1.0)

    def encode_documents(self, texts: Sequence[str], _stop: CancellationToken) -> list[SparseVector]:
        return self._encode(texts, 2.0)


class Rerank:
    def __init__(self) -> None:
        self.stops: list[CancellationToken] = []

    def run(self, query: str, texts: Sequence[str], stop: CancellationToken) -> DenseVectors:
        self.stops.append(stop)
        return np.array([float(query in text) for text in texts], np.float32)


class Threads:
    """Runs a call one step later, in no thread."""

    def __init__(self) -> None:
        self.calls = 0
        self.stops: list[Callable[[], None]] = []

    async def run(self, call: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
        self.calls += 1
        self.stops.append(stop)
        await asyncio.sleep(0)
        return call()


@pytest.fixture
def threads() -> Threads:
    return Threads()


@pytest.fixture
def workers(threads: Threads) -> ThreadModelHandlers:
    return ThreadModelHandlers(Dense(), Sparse(), Rerank(), threads)


@virtual
async def test_a_batch_is_one_run_of_the_dense_model(workers: ThreadModelHandlers, threads: Threads) -> None:
    embedded = await workers.embed(EmbedBatch(["a", "bbb", "cc"], TextKind.DOCUMENT), WORK)
    assert embedded.dense.tolist() == [[1], [3], [2]]
    assert embedded.late is None
    assert threads.calls == 1


@virtual
async def test_texts_have_the_prompt_of_their_kind(threads: Threads) -> None:
    handlers = ThreadModelHandlers(Dense(), Sparse(), Rerank(), threads, prompts=Prompts("ask: ", "tell: "))
    for kind, length in ((TextKind.QUERY, 6), (TextKind.DOCUMENT, 7)):
        assert (await handlers.embed(EmbedBatch(["a"], kind), WORK)).dense.tolist() == [[length]]


@virtual
async def test_token_vectors_that_are_wanted_come_of_the_same_run(
    workers: ThreadModelHandlers, threads: Threads
) -> None:
    for kind, rows in ((TextKind.QUERY, 2), (TextKind.DOCUMENT, 1)):
        embedded = await workers.embed(EmbedBatch(["a", "bbb"], kind, late=True), WORK)
        assert embedded.dense.tolist() == [[1], [3]]
        assert [tokens.shape for tokens in embedded.late] == [(rows, 4), (rows, 4)]
    assert threads.calls == 2


@pytest.mark.parametrize(("kind", "value"), [(TextKind.QUERY, 1.0), (TextKind.DOCUMENT, 2.0)])
def test_queries_and_documents_are_encoded_each_in_their_way(
    kind: TextKind, value: float, workers: ThreadModelHandlers
) -> None:
    @virtual
    async def scenario() -> None:
        encoded = await workers.sparse(SparseBatch(["a", "bb"], kind), WORK)
        assert [(v.indices.tolist(), v.values.tolist()) for v in encoded] == [([1], [value]), ([2], [value])]

    scenario()


@virtual
async def test_texts_are_scored_against_the_query(workers: ThreadModelHandlers) -> None:
    scores = await workers.rerank(RerankTexts("b", ["abc", "xyz"]), WORK)
    assert scores.tolist() == [1, 0]


@virtual
async def test_bulk_work_has_threads_of_its_own() -> None:
    threads, bulk = Threads(), Threads()
    workers = ThreadModelHandlers(Dense(), Sparse(), Rerank(), threads, bulk)
    for criticality in Criticality:
        ctx = Context(Deadline.never(), criticality)
        await workers.embed(EmbedBatch(["a"], TextKind.DOCUMENT), ctx)
    assert (threads.calls, bulk.calls) == (2, 1)


@virtual
async def test_an_error_of_a_model_passes(workers: ThreadModelHandlers) -> None:
    with pytest.raises(Invalid):
        await workers.embed(EmbedBatch([""], TextKind.QUERY), WORK)


@virtual
async def test_each_run_of_a_model_has_a_stop_of_its_own() -> None:
    dense, rerank, threads = Dense(), Rerank(), Threads()
    workers = ThreadModelHandlers(dense, Sparse(), rerank, threads)
    for _ in range(2):
        await workers.embed(EmbedBatch(["a"], TextKind.QUERY), WORK)
    await workers.rerank(RerankTexts("b", ["abc"]), WORK)
    stops = [*dense.stops, *rerank.stops]
    for number, ask in enumerate(threads.stops):
        ask()
        assert [stop.is_cancelled for stop in stops] == [True] * (number + 1) + [False] * (2 - number)
