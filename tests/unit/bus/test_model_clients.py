"""Stubs that look like a model and ask a topic."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from penstock.bus.local import LocalBus
from penstock.bus.model_clients import PARTS_MAX, BusEmbedder, BusReranker, BusSparseEncoder
from penstock.kernel.context import Context, Criticality, Deadline
from penstock.kernel.errors import Expired, Rejected, Unavailable
from penstock.kernel.messages import EmbedBatch, RerankTexts, SparseBatch, TextKind, Topic
from penstock.kernel.settings import BusSettings, MlSettings, TimeoutSettings
from penstock.kernel.vectors import Embeddings, SparseVector
from penstock.pools.permits import Permits
from tests.clock import quiet, virtual
from tests.fakes.loop_clock import LoopClock

WORK = Context.background("alice")
TIMEOUTS = TimeoutSettings(embed=3.0, rerank=2.0)


def bus_serving(topic: Topic, handler) -> LocalBus:
    bus = LocalBus(BusSettings(), {}, LoopClock())
    bus.subscribe(topic, handler, Permits("pool", 4))
    return bus


def embedder(bus: LocalBus, late: int = 0) -> BusEmbedder:
    return BusEmbedder(bus, LoopClock(), TIMEOUTS, MlSettings(batch_tokens=64), dim=1, token_dim=late)


@virtual
async def test_a_batch_is_split_worked_in_parallel_and_put_together_in_order() -> None:
    batches: list[EmbedBatch] = []

    async def embed(message: EmbedBatch, ctx: Context) -> Embeddings:
        batches.append(message)
        assert ctx.client == "alice"
        await asyncio.sleep(1 / len(batches))  # later parts come back earlier
        assert message.late
        tokens = [np.full((1, 2), len(text), np.int8) for text in message.texts]
        return Embeddings(np.array([[len(text)] for text in message.texts], np.float32), tokens)

    texts = ["x" * n for n in (90, 3, 60, 30, 120, 9, 127)]
    stub = embedder(bus_serving(Topic.ML_EMBED, embed), late=2)
    vectors = await stub.embed(texts, TextKind.DOCUMENT, WORK, late_interaction=True)
    assert vectors.dense.dtype == np.float32
    assert vectors.dense[:, 0].tolist() == [len(text) for text in texts]
    assert [tokens.tolist() for tokens in vectors.late] == [[[len(text)] * 2] for text in texts]
    assert len(batches) > 1
    assert asyncio.get_running_loop().time() < 1002


@virtual
async def test_no_texts_need_no_model() -> None:
    bus = LocalBus(BusSettings(), {}, LoopClock())
    assert (await embedder(bus).embed([], TextKind.QUERY, WORK)).dense.shape == (0, 1)


@pytest.mark.parametrize(("late", "wanted"), [(0, True), (2, False)])
@virtual
async def test_token_vectors_that_nobody_wants_or_has_are_not_asked_for(late: int, wanted: bool) -> None:  # noqa: FBT001
    async def embed(message: EmbedBatch, _ctx: Context) -> Embeddings:
        assert not message.late
        return Embeddings(np.zeros((len(message.texts), 1), np.float32))

    stub = embedder(bus_serving(Topic.ML_EMBED, embed), late=late)
    assert (await stub.embed(["a"], TextKind.QUERY, WORK, late_interaction=wanted)).late is None


@virtual
async def test_the_first_error_cancels_the_other_parts() -> None:
    cancelled = []

    async def embed(message: EmbedBatch, _ctx: Context) -> np.ndarray:
        if "bad" in message.texts:
            raise Unavailable("the model is gone", dependency="model")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(len(message.texts))
            raise
        raise AssertionError

    bus = bus_serving(Topic.ML_EMBED, embed)
    with pytest.raises(Unavailable):
        await embedder(bus).embed(["x" * 170, "y" * 180, "bad"], TextKind.DOCUMENT, WORK)
    await quiet()
    assert cancelled == [1, 1]
    assert bus.state()[0].running == 0


async def stuck(message: object, _ctx: Context) -> None:
    await asyncio.Event().wait()


@virtual
async def test_each_model_has_its_own_limit_and_names_it() -> None:
    asked = [
        ("embed", embedder(bus_serving(Topic.ML_EMBED, stuck)).embed(["a"], TextKind.QUERY, WORK)),
        (
            "sparse",
            BusSparseEncoder(bus_serving(Topic.ML_SPARSE, stuck), LoopClock(), TIMEOUTS).encode(
                ["a"], TextKind.QUERY, WORK
            ),
        ),
        ("rerank", BusReranker(bus_serving(Topic.ML_RERANK, stuck), LoopClock(), TIMEOUTS).rerank("q", ["a"], WORK)),
    ]
    for operation, answer in asked:
        with pytest.raises(Expired) as caught:
            await answer
        assert caught.value.operation == operation


@virtual
async def test_sparse_and_rerank_hand_their_messages_on() -> None:
    vector = SparseVector(np.array([7], np.uint32), np.array([1.0], np.float32))

    async def sparse(message: SparseBatch, _ctx: Context) -> list[SparseVector]:
        assert message == SparseBatch(["a"], TextKind.QUERY)
        return [vector]

    async def rerank(message: RerankTexts, _ctx: Context) -> np.ndarray:
        assert message == RerankTexts("q", ["a", "b"])
        return np.array([1, 2], np.float32)

    encoder = BusSparseEncoder(bus_serving(Topic.ML_SPARSE, sparse), LoopClock(), TIMEOUTS)
    assert await encoder.encode(["a"], TextKind.QUERY, WORK) == [vector]
    reranker = BusReranker(bus_serving(Topic.ML_RERANK, rerank), LoopClock(), TIMEOUTS)
    assert (await reranker.rerank("q", ["a", "b"], WORK)).tolist() == [1, 2]


@virtual
async def test_texts_for_a_heavy_sparse_model_are_split_and_put_together_in_order() -> None:
    sizes: list[int] = []

    async def encode(message: SparseBatch, _ctx: Context) -> list[SparseVector]:
        sizes.append(len(message.texts))
        await asyncio.sleep(1 / len(sizes))
        return [SparseVector(np.array([len(t)], np.uint32), np.ones(1, np.float32)) for t in message.texts]

    texts = ["x" * n for n in (90, 3, 60, 30, 120, 9, 127)]
    for batch_tokens, parts in ((64, 4), (0, 1)):
        sizes.clear()
        bus = bus_serving(Topic.ML_SPARSE, encode)
        stub = BusSparseEncoder(bus, LoopClock(), TIMEOUTS, batch_tokens)
        vectors = await stub.encode(texts, TextKind.DOCUMENT, WORK)
        assert [int(one.indices[0]) for one in vectors] == [len(text) for text in texts]
        assert len(sizes) == parts
        await bus.close()  # its idle workers would be found unfinished when the next one takes its name


# Many texts

MANY = ["x" * 700 + str(number) for number in range(1000)]
NOW = Context(Deadline.never(), Criticality.STANDARD, "alice")


@virtual
async def test_a_thousand_texts_pass_below_their_clients_share_as_bulk_work() -> None:
    labels: list[Context] = []

    async def embed(message: EmbedBatch, ctx: Context) -> Embeddings:
        labels.append(ctx)
        await asyncio.sleep(0.02)
        return Embeddings(np.array([[float(text[700:])] for text in message.texts], np.float32))

    bus = bus_serving(Topic.ML_EMBED, embed)
    job = asyncio.create_task(embedder(bus).embed(MANY, TextKind.DOCUMENT, NOW))
    await asyncio.sleep(1.0)
    state = bus.state()[0]
    assert 0 < state.waiting + state.running <= PARTS_MAX
    assert (await job).dense[:, 0].tolist() == list(range(1000))
    assert {label.criticality for label in labels} == {Criticality.BULK}


@virtual
async def test_a_few_texts_keep_their_class() -> None:
    async def embed(message: EmbedBatch, ctx: Context) -> Embeddings:
        assert ctx.criticality is Criticality.STANDARD
        return Embeddings(np.zeros((len(message.texts), 1), np.float32))

    await embedder(bus_serving(Topic.ML_EMBED, embed)).embed(MANY[:PARTS_MAX], TextKind.QUERY, NOW)


@virtual
async def test_a_query_passes_a_thousand_texts_of_the_same_client() -> None:
    async def embed(message: EmbedBatch, _ctx: Context) -> Embeddings:
        await asyncio.sleep(0.1)
        return Embeddings(np.zeros((len(message.texts), 1), np.float32))

    bus, loop = bus_serving(Topic.ML_EMBED, embed), asyncio.get_running_loop()
    job = asyncio.create_task(embedder(bus).embed(MANY, TextKind.DOCUMENT, NOW))
    await asyncio.sleep(1.05)
    began_s = loop.time()
    await embedder(bus).embed(["a query"], TextKind.QUERY, NOW)
    assert loop.time() - began_s <= 0.21  # what runs, then itself
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    await quiet()


@virtual
async def test_requests_that_fill_their_clients_share_go_on_with_fewer_parts() -> None:
    async def embed(message: EmbedBatch, _ctx: Context) -> Embeddings:
        await asyncio.sleep(0.01)
        return Embeddings(np.zeros((len(message.texts), 1), np.float32))

    bus = LocalBus(BusSettings(buffer_size=64), {}, LoopClock())  # sixteen places for a client
    bus.subscribe(Topic.ML_EMBED, embed, Permits("pool", 4))
    jobs = [embedder(bus).embed(MANY[:100], TextKind.DOCUMENT, NOW) for _ in range(2)]
    assert [len(done.dense) for done in await asyncio.gather(*jobs)] == [100, 100]


@virtual
async def test_a_request_of_which_no_part_is_let_in_is_refused() -> None:
    bus = LocalBus(BusSettings(buffer_size=32), {}, LoopClock())
    bus.subscribe(Topic.ML_EMBED, stuck, Permits("pool", 1))
    others = [asyncio.create_task(embedder(bus).embed([text], TextKind.QUERY, NOW)) for text in MANY[:9]]
    await quiet()
    with pytest.raises(Rejected) as caught:
        await embedder(bus).embed(MANY, TextKind.DOCUMENT, NOW)
    assert caught.value.code == "client_share"
    for one in others:
        one.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await quiet()


@virtual
async def test_a_deadline_that_will_be_missed_is_told_early_and_nothing_runs_on() -> None:
    async def rerank(message: RerankTexts, _ctx: Context) -> np.ndarray:
        await asyncio.sleep(0.1)
        return np.zeros(len(message.texts), np.float32)

    bus, loop = bus_serving(Topic.ML_RERANK, rerank), asyncio.get_running_loop()
    began_s = loop.time()
    hurried = NOW.within(5.0, "request", began_s)
    with pytest.raises(Expired, match="send fewer texts") as caught:
        await BusReranker(bus, LoopClock(), TIMEOUTS, 256).rerank("q", MANY, hurried)
    assert caught.value.operation == "rerank"
    assert loop.time() - began_s < 1.5
    await quiet()
    assert bus.state()[0].running == 0


@virtual
async def test_texts_to_rerank_are_split_and_their_scores_put_together_in_order() -> None:
    async def rerank(message: RerankTexts, _ctx: Context) -> np.ndarray:
        assert len(message.texts) <= 4
        return np.array([float(text[700:]) for text in message.texts], np.float32)

    reranker = BusReranker(bus_serving(Topic.ML_RERANK, rerank), LoopClock(), TIMEOUTS)
    assert (await reranker.rerank("q", MANY, NOW)).tolist() == list(range(1000))


@virtual
async def test_requests_whose_parts_wait_too_long_for_each_other_go_on_narrower() -> None:
    async def rerank(message: RerankTexts, _ctx: Context) -> np.ndarray:
        await asyncio.sleep(0.2)
        return np.zeros(len(message.texts), np.float32)

    # Sixteen parts each of six requests, two at once: the last would wait for ten seconds, and T6 is two.
    bus = LocalBus(BusSettings(), {}, LoopClock())
    bus.subscribe(Topic.ML_RERANK, rerank, Permits("pool", 2))
    clients = [Context(Deadline.never(), Criticality.INTERACTIVE, name) for name in "abcdef"]
    asked = [BusReranker(bus, LoopClock(), TIMEOUTS, 1024).rerank("q", MANY[:200], client) for client in clients]
    assert [len(scores) for scores in await asyncio.gather(*asked)] == [200] * 6


@pytest.mark.parametrize(("texts", "asked", "given"), [(16, 1, 1), (17, 1, 2), (17, 0, 0)])
@virtual
async def test_texts_to_rerank_are_bulk_work_beyond_sixteen_windows_unless_for_a_search(
    texts: int, asked: int, given: int
) -> None:
    async def rerank(message: RerankTexts, ctx: Context) -> np.ndarray:
        assert ctx.criticality == given
        return np.zeros(len(message.texts), np.float32)

    reranker = BusReranker(bus_serving(Topic.ML_RERANK, rerank), LoopClock(), TIMEOUTS)
    await reranker.rerank("q", ["x" * 800] * texts, Context(Deadline.never(), Criticality(asked), "alice"))
