"""Models behind endpoints: batches, prefixes, and answers that make no sense."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, Invalid, Unavailable
from penstock.kernel.messages import TextKind
from penstock.models.prompts import Prompts
from penstock.models.remote_endpoint import BatchTooLarge, ModelEndpoint, ModelEndpointSettings
from penstock.models.remote_formats import DENSE_FORMATS, RERANK_FORMATS, SPARSE_FORMATS
from penstock.models.remote_models import (
    GROW_AFTER_BATCHES,
    AdaptiveBatchSize,
    RemoteEmbedder,
    RemoteReranker,
    RemoteSparseEncoder,
)
from tests.clock import virtual
from tests.fakes.endpoint import FakeEndpoint, always
from tests.fakes.loop_clock import LoopClock
from tests.fakes.models import DIM

WORK = Context.background()
DOCUMENT, QUERY = TextKind.DOCUMENT, TextKind.QUERY


def embedder(transport: FakeEndpoint, dim: int = DIM, batch: int = 32, **prefixes: str) -> RemoteEmbedder:
    return RemoteEmbedder(at("/embed", transport), DENSE_FORMATS["tei"], batch, dim=dim, prompts=Prompts(**prefixes))


def at(path: str, transport: FakeEndpoint) -> ModelEndpoint:
    return ModelEndpoint(
        ModelEndpointSettings("embed", "models.dense", "http://models.test"), path, LoopClock(), transport
    )


def sizes(transport: FakeEndpoint) -> list[int]:
    return [len(message["inputs"]) for message in transport.messages()]


@virtual
async def test_more_texts_than_a_request_may_hold_go_in_several_one_after_the_other():
    transport = FakeEndpoint(takes_s=0.1)
    vectors = await embedder(transport, batch=4).embed([f"n{n}" for n in range(10)], DOCUMENT, WORK)
    assert (sizes(transport), transport.most, vectors.dense.shape) == ([4, 4, 2], 1, (10, DIM))


@virtual
async def test_a_batch_that_is_too_large_is_halved_and_the_size_remembered():
    transport = FakeEndpoint(batch_max=5)
    model = embedder(transport, batch=32)
    texts = [f"n{n}" for n in range(20)]
    whole = await embedder(FakeEndpoint()).embed(texts, DOCUMENT, WORK)
    np.testing.assert_allclose((await model.embed(texts, DOCUMENT, WORK)).dense, whole.dense)
    assert sizes(transport) == [20, 10, 5, 5, 5, 5]
    await model.embed(texts, DOCUMENT, WORK)
    assert sizes(transport)[6:] == [5, 5, 5, 5]


@virtual
async def test_a_document_that_alone_is_too_large_is_the_caller_s_and_a_query_is_not():
    transport = FakeEndpoint(batch_max=0)
    with pytest.raises(BatchTooLarge):
        await embedder(transport).embed(["a", "b", "c"], DOCUMENT, WORK)
    assert sizes(transport) == [3, 1]
    with pytest.raises(Broken) as caught:
        await embedder(transport).embed(["a"], QUERY, WORK)
    assert caught.value.code == "batch_too_large"


def test_a_size_grows_again_after_many_batches_were_taken():
    size = AdaptiveBatchSize(32)
    size.on_too_large(32)
    size.on_too_large(3)
    assert repr(size) == "<AdaptiveBatchSize 1 of 32>"
    for _ in range(5 * GROW_AFTER_BATCHES):
        size.on_accepted()
    assert size.texts == 32
    size.on_accepted()
    assert size.texts == 32


@virtual
async def test_nothing_is_asked_for_no_texts():
    transport = FakeEndpoint()
    assert (await embedder(transport).embed([], QUERY, WORK)).dense.shape == (0, DIM)
    assert transport.messages() == []


@virtual
async def test_prefixes_stand_before_texts_and_no_text_is_empty():
    transport = FakeEndpoint()
    model = embedder(transport, query="query: ", document="passage: ")
    await model.embed(["a", ""], QUERY, WORK)
    await model.embed(["a"], DOCUMENT, WORK)
    await embedder(transport).embed(["", "\ud800"], DOCUMENT, WORK)
    sent = [message["inputs"] for message in transport.messages()]
    assert sent == [["query: a", "query: "], ["passage: a"], [" ", "?"]]


@virtual
async def test_vectors_get_length_one_and_the_dimension_is_learnt_where_it_is_not_known():
    transport = FakeEndpoint()
    transport.behave = always(200, json=[[3.0, 4.0]])
    embedded = await embedder(transport, dim=0).embed(["a"], QUERY, WORK)
    np.testing.assert_allclose(embedded.dense, [[0.6, 0.8]])
    assert embedded.late is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([[1.0, 2.0]], "2 dimensions, not 8"),
        ([[0.0] * DIM], "all zeros"),
        ([[1.0] * DIM] * 2, "2 entries for 1 texts"),
        ("sorry", "another shape"),
        ({}, "another shape"),
    ],
)
@virtual
async def test_an_answer_that_makes_no_sense_is_the_endpoint_s_fault(answer, said):
    transport = FakeEndpoint()
    transport.behave = always(200, json=answer)
    with pytest.raises(Broken, match=f"models.dense answers what makes no sense: .*{said}") as caught:
        await embedder(transport).embed(["a"], DOCUMENT, WORK)
    assert caught.value.code == "endpoint_bad_response"


@virtual
async def test_a_huge_answer_is_cut_off_at_what_so_many_texts_can_take():
    transport = FakeEndpoint()
    transport.behave = always(200, content=b"[" + b"1.0," * 10_000_000)
    for ask in (
        lambda: embedder(transport).embed(["a"], DOCUMENT, WORK),
        lambda: RemoteSparseEncoder(at("/embed_sparse", transport), SPARSE_FORMATS["tei"], 8).encode(
            ["a"], DOCUMENT, WORK
        ),
        lambda: RemoteReranker(at("/rerank", transport), RERANK_FORMATS["tei"], 8).rerank("q", ["a"], WORK),
    ):
        with pytest.raises(Broken, match="longer than"):
            await ask()


@virtual
async def test_garbage_of_sparse_vectors_and_scores_is_the_endpoint_s_fault_too():
    transport = FakeEndpoint()
    transport.behave = always(200, json=[[{"index": 0, "value": "much"}]])
    with pytest.raises(Broken, match="another shape"):
        await RemoteSparseEncoder(at("/embed_sparse", transport), SPARSE_FORMATS["tei"], 8).encode(["a"], QUERY, WORK)
    with pytest.raises(Broken, match="another shape"):
        await RemoteReranker(at("/rerank", transport), RERANK_FORMATS["tei"], 8).rerank("q", ["a"], WORK)


@virtual
async def test_an_error_in_a_later_batch_is_the_whole_call_s():
    transport, left = FakeEndpoint(), [1]

    async def behave(_request):
        left[0] -= 1
        return httpx.Response(500) if left[0] < 0 else None

    transport.behave = behave
    with pytest.raises(Unavailable):
        await embedder(transport, batch=1).embed(["a", "b", "c"], DOCUMENT, WORK)
    assert sizes(transport) == [1, 1]


@virtual
async def test_texts_that_are_refused_are_the_caller_s_where_they_are_documents():
    transport = FakeEndpoint()
    transport.behave = always(400, json={"error": {"message": "maximum context length"}})
    with pytest.raises(Invalid, match="maximum context length"):
        await embedder(transport).embed(["a"], DOCUMENT, WORK)
    with pytest.raises(Broken, match="maximum context length"):
        await embedder(transport).embed(["a"], QUERY, WORK)
