"""One suite over dense, sparse and rerank models: in this process by ONNX, or behind an endpoint of each shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from penstock.kernel.context import Context
from penstock.kernel.messages import EmbedBatch, RerankTexts, SparseBatch, TextKind
from penstock.kernel.settings import HttpSettings
from penstock.models.bm25 import Bm25Runner, Bm25Settings
from penstock.models.factory import CosineRerankRunner
from penstock.models.onnx_files import find_directory
from penstock.models.onnx_models import OnnxCrossEncoder, OnnxDenseEncoder, OnnxSparseEncoder
from penstock.models.remote_endpoint import ModelEndpoint, ModelEndpointSettings
from penstock.models.remote_formats import (
    DENSE_FORMATS,
    RERANK_FORMATS,
    SPARSE_FORMATS,
)
from penstock.models.remote_models import RemoteEmbedder, RemoteReranker, RemoteSparseEncoder
from penstock.pools.model_handlers import ThreadModelHandlers
from penstock.pools.thread_pool import ThreadPool
from tests import clock
from tests.fakes import graphs
from tests.fakes.api import Api
from tests.fakes.endpoint import FakeEndpoint, loopback
from tests.fakes.loop_clock import LoopClock
from tests.fakes.models import DIM

WORK = Context.background()
TEXTS = ["alpha of beta", "beta", "gamma and more gamma", "delta epsilon zeta eta theta"]
ODD = ["", " ", "\n", "\ud800 lone", "🦩 emoji", "שלום עולם", "\u202ereversed", "a" * 5000, "alpha " * 3000, "\0"]
KINDS = list(TextKind)


@dataclass(frozen=True)
class Backend:
    """How to have a model, and how to run a test with it.

    Attributes:
        open: Given a directory, the model for as long as its context lasts.
        run: Runs a coroutine: on virtual time where no thread and no socket is needed.
    """

    open: Callable[[Path], AbstractAsyncContextManager[Any]]
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run


class Local:
    """Runners in threads, as the Protocols have it."""

    def __init__(self, workers: ThreadModelHandlers) -> None:
        self._workers = workers

    async def embed(self, texts: Sequence[str], kind: TextKind, ctx: Context) -> Any:
        return await self._workers.embed(EmbedBatch(list(texts), kind), ctx)

    async def encode(self, texts: Sequence[str], kind: TextKind, ctx: Context) -> Any:
        return await self._workers.sparse(SparseBatch(list(texts), kind), ctx)

    async def rerank(self, query: str, texts: Sequence[str], ctx: Context) -> Any:
        return await self._workers.rerank(RerankTexts(query, list(texts)), ctx)


def local(make: Callable[[Path], dict[str, Any]]) -> Backend:
    """Return a model in threads of this process."""

    @asynccontextmanager
    async def opened(directory: Path) -> AsyncIterator[Any]:
        threads = ThreadPool(2, "test")
        nothing = {"dense": None, "sparse": None, "rerank": None}
        yield Local(ThreadModelHandlers(**{**nothing, **make(directory)}, threads=threads))
        await threads.close()

    return Backend(opened)


def remote(path: str, make: Callable[[ModelEndpoint], Any], *, real: bool = False) -> Backend:
    """Return a model behind an endpoint: a fake one on virtual time, or a real one on the loopback."""

    @asynccontextmanager
    async def faked(_: Path) -> AsyncIterator[Any]:
        settings = ModelEndpointSettings("embed", "models.dense", "http://models.test")
        endpoint = ModelEndpoint(settings, path, LoopClock(), FakeEndpoint(takes_s=0.01))
        yield make(endpoint)
        await endpoint.close()

    @asynccontextmanager
    async def served(_: Path) -> AsyncIterator[Any]:
        with loopback() as url:
            endpoint = ModelEndpoint(ModelEndpointSettings("embed", "models.dense", url), path, LoopClock())
            yield make(endpoint)
            await endpoint.close()

    return Backend(served) if real else Backend(faked, clock.run)


def on_virtual_time(test: Coroutine[Any, Any, None]) -> None:
    """Run a test; there is no ``FakeEndpoint`` to look into."""
    clock.run(test)


def penstock(path: str, make: Callable[[ModelEndpoint], Any]) -> Backend:
    """Return a model of another Penstock, behind the endpoints that it has for other vendors' clients."""

    @asynccontextmanager
    async def opened(_: Path) -> AsyncIterator[Any]:
        settings = ModelEndpointSettings("embed", "models.dense", "http://localhost")
        there = httpx.ASGITransport(Api(HttpSettings(rate_limit=0)).gate)
        endpoint = ModelEndpoint(settings, path, LoopClock(), there)
        yield make(endpoint)
        await endpoint.close()

    return Backend(opened, on_virtual_time)


def encoder(kind: str) -> Backend:
    return local(lambda where: {"dense": OnnxDenseEncoder(find_directory(graphs.write(where, kind), "models.dense"))})


def splade(kind: str) -> Backend:
    return local(
        lambda where: {"sparse": OnnxSparseEncoder(find_directory(graphs.write(where, kind), "models.sparse"))}
    )


def crossed(kind: str) -> Backend:
    return local(lambda where: {"rerank": OnnxCrossEncoder(find_directory(graphs.write(where, kind), "models.rerank"))})


def openai(endpoint: ModelEndpoint) -> RemoteEmbedder:
    return RemoteEmbedder(endpoint, DENSE_FORMATS["openai"], 32, "tiny", dim=DIM)


def tei(endpoint: ModelEndpoint) -> RemoteEmbedder:
    return RemoteEmbedder(endpoint, DENSE_FORMATS["tei"], 3, dim=DIM)


def cosine(where: Path) -> dict[str, Any]:
    return {
        "rerank": CosineRerankRunner(OnnxDenseEncoder(find_directory(graphs.write(where, "dense"), "models.dense")))
    }


DENSE = {
    "onnx, one vector a text": encoder("dense"),
    "onnx, one vector a token": encoder("tokens"),
    "openai": remote("/v1/embeddings", openai),
    "tei": remote("/embed", tei),
    "openai on the loopback": remote("/v1/embeddings", openai, real=True),
    "tei on the loopback": remote("/embed", tei, real=True),
    "penstock as openai": penstock(
        "/v1/embeddings", lambda e: RemoteEmbedder(e, DENSE_FORMATS["openai"], 32, "penstock", dim=DIM)
    ),
    "penstock as tei": penstock("/embed", tei),
}
SPARSE = {
    "bm25": local(lambda _: {"sparse": Bm25Runner(Bm25Settings())}),
    "onnx, logits": splade("splade"),
    "onnx, weights": splade("weights"),
    "tei": remote("/embed_sparse", lambda endpoint: RemoteSparseEncoder(endpoint, SPARSE_FORMATS["tei"], 3)),
    "tei on the loopback": remote(
        "/embed_sparse", lambda e: RemoteSparseEncoder(e, SPARSE_FORMATS["tei"], 3), real=True
    ),
    "penstock as tei": penstock("/embed_sparse", lambda e: RemoteSparseEncoder(e, SPARSE_FORMATS["tei"], 3)),
}
RERANK = {
    "cosine": local(cosine),
    "onnx, one score": crossed("cross"),
    "onnx, two classes": crossed("cross2"),
    "tei": remote("/rerank", lambda endpoint: RemoteReranker(endpoint, RERANK_FORMATS["tei"], 3)),
    "cohere": remote("/v2/rerank", lambda endpoint: RemoteReranker(endpoint, RERANK_FORMATS["cohere"], 32, "tiny")),
    "tei on the loopback": remote("/rerank", lambda e: RemoteReranker(e, RERANK_FORMATS["tei"], 3), real=True),
    "cohere on the loopback": remote(
        "/v2/rerank", lambda e: RemoteReranker(e, RERANK_FORMATS["cohere"], 32, "t"), real=True
    ),
    "penstock as tei": penstock("/rerank", lambda e: RemoteReranker(e, RERANK_FORMATS["tei"], 3)),
    "penstock as cohere": penstock("/v2/rerank", lambda e: RemoteReranker(e, RERANK_FORMATS["cohere"], 32, "penstock")),
}


def over(backends: dict[str, Backend]) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Any]:
    """Run a test over each of these; it is given the model."""

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Any:
        @pytest.mark.parametrize("backend", backends.values(), ids=backends.keys())
        def ordinary(backend: Backend, tmp_path: Path) -> None:
            async def main() -> None:
                async with backend.open(tmp_path) as model:
                    await test(model)

            backend.run(main())

        ordinary.__name__ = test.__name__
        return ordinary

    return decorate


# --- Dense


@over(DENSE)
async def test_each_text_has_a_vector_of_length_one_in_the_texts_order(model):
    for kind in KINDS:
        vectors = (await model.embed(TEXTS, kind, WORK)).dense
        assert vectors.dtype == np.float32
        assert vectors.shape[0] == len(TEXTS)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
        order = [2, 0, 3, 1]
        again = (await model.embed([TEXTS[place] for place in order], kind, WORK)).dense
        np.testing.assert_allclose(again, vectors[order], atol=1e-5)
        assert vectors[0] @ vectors[1] < 0.999


@over(DENSE)
async def test_no_texts_have_no_vectors(model):
    assert (await model.embed([], TextKind.DOCUMENT, WORK)).dense.shape[0] == 0


@over(DENSE)
async def test_odd_texts_have_vectors_too(model):
    vectors = (await model.embed(ODD, TextKind.DOCUMENT, WORK)).dense
    assert vectors.shape[0] == len(ODD)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


@over(DENSE)
async def test_many_texts_at_once_keep_their_order(model):
    texts = [" ".join(["alpha"] * (1 + n % 9) + ["beta"] * (n % 4)) for n in range(100)]
    vectors = (await model.embed(texts, TextKind.DOCUMENT, WORK)).dense
    for place in (0, 37, 99):
        alone = (await model.embed([texts[place]], TextKind.DOCUMENT, WORK)).dense
        np.testing.assert_allclose(vectors[place], alone[0], atol=1e-5)


@over(DENSE)
async def test_calls_at_once_do_not_disturb_each_other(model):
    expected = (await model.embed(TEXTS, TextKind.QUERY, WORK)).dense
    for embedded in await asyncio.gather(*(model.embed(TEXTS, TextKind.QUERY, WORK) for _ in range(8))):
        np.testing.assert_allclose(embedded.dense, expected, atol=1e-5)


@over(DENSE)
async def test_a_cancelled_call_leaves_the_model_as_it_was(model):
    for steps in range(6):
        call = asyncio.create_task(model.embed(TEXTS * 8, TextKind.DOCUMENT, WORK))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
    assert (await model.embed(TEXTS, TextKind.QUERY, WORK)).dense.shape[0] == len(TEXTS)


# --- Sparse


@over(SPARSE)
async def test_each_text_has_a_sparse_vector_in_the_texts_order(model):
    for kind in KINDS:
        vectors = await model.encode(TEXTS, kind, WORK)
        assert len(vectors) == len(TEXTS)
        for one in vectors:
            assert (one.indices.dtype, one.values.dtype) == (np.uint32, np.float32)
            assert len(set(one.indices.tolist())) == len(one.indices) == len(one.values) > 0
            assert (one.values > 0).all()
        (alone,) = await model.encode([TEXTS[2]], kind, WORK)
        assert dict(zip(alone.indices.tolist(), alone.values.tolist(), strict=True)) == pytest.approx(
            dict(zip(vectors[2].indices.tolist(), vectors[2].values.tolist(), strict=True))
        )


@over(SPARSE)
async def test_no_texts_have_no_sparse_vectors(model):
    assert await model.encode([], TextKind.QUERY, WORK) == []


@over(SPARSE)
async def test_odd_texts_have_sparse_vectors_too_if_only_empty_ones(model):
    vectors = await model.encode(ODD, TextKind.DOCUMENT, WORK)
    assert len(vectors) == len(ODD)
    assert all(np.isfinite(one.values).all() for one in vectors)


@over(SPARSE)
async def test_a_text_is_nearer_to_its_own_words_than_to_others(model):
    (query,) = await model.encode(["gamma"], TextKind.QUERY, WORK)
    near, far = await model.encode(["more gamma", "alpha"], TextKind.DOCUMENT, WORK)
    assert product(query, near) > product(query, far)


def product(one: Any, other: Any) -> float:
    values = dict(zip(other.indices.tolist(), other.values.tolist(), strict=True))
    return sum(w * values.get(i, 0.0) for i, w in zip(one.indices.tolist(), one.values.tolist(), strict=True))


# --- Rerank


@over(RERANK)
async def test_a_text_of_the_query_s_words_scores_best_and_scores_keep_the_texts_order(model):
    scores = await model.rerank("gamma more", TEXTS, WORK)
    assert (scores.shape, scores.dtype) == ((len(TEXTS),), np.float32)
    assert int(scores.argmax()) == 2
    order = [3, 2, 1, 0]
    again = await model.rerank("gamma more", [TEXTS[place] for place in order], WORK)
    np.testing.assert_allclose(again, scores[order], atol=1e-5)


@over(RERANK)
async def test_no_texts_have_no_scores(model):
    assert (await model.rerank("alpha", [], WORK)).shape == (0,)


@over(RERANK)
async def test_odd_texts_have_scores_too(model):
    scores = await model.rerank("alpha beta", ODD, WORK)
    assert scores.shape == (len(ODD),)
    assert np.isfinite(scores).all()


# --- What endpoints alone must do


@pytest.mark.parametrize(
    "backend", [b for b in (*DENSE.values(), *SPARSE.values(), *RERANK.values()) if b.run is clock.run]
)
def test_the_time_left_goes_along_and_a_call_that_is_cancelled_hangs_up(backend, tmp_path):
    async def main() -> None:
        async with backend.open(tmp_path) as model:
            ask = {"embed": lambda w: model.embed(TEXTS, TextKind.QUERY, w)}
            ask |= {"encode": lambda w: model.encode(TEXTS, TextKind.QUERY, w)}
            ask |= {"rerank": lambda w: model.rerank("alpha", TEXTS, w)}
            (call,) = (make for name, make in ask.items() if hasattr(model, name))
            transport = model._endpoint._client._transport
            deadline = WORK.within(2.5, "search", LoopClock().now())
            await call(deadline)
            assert transport.asked[0].headers["x-request-timeout-ms"] == "2500"
            transport.takes_s = 60.0
            asked = asyncio.create_task(call(replace(WORK)))
            await clock.quiet()
            asked.cancel()
            await asyncio.wait([asked])
            assert (transport.running, transport.hung_up) == (0, 1)

    backend.run(main())
