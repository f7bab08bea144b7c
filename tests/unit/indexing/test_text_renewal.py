"""Renewal of a collection's BM25 vectors: searchable at every step, right in the end, whatever happens meanwhile."""

import asyncio
import contextlib
from dataclasses import replace

import numpy as np
import pytest

from penstock.indexing.document_records import ChunkBatch
from penstock.indexing.index_pipeline import ChunkBatchWriter
from penstock.indexing.model_inputs import BM25_INPUTS
from penstock.indexing.text_renewal import PASSES_MAX, TextRenewal
from penstock.kernel.context import Context, point_id
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.messages import TextKind
from penstock.models.bm25 import Bm25Runner, Bm25Settings
from penstock.pools.text_versions import TextVersions
from penstock.stores.commands import (
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    ReplaceSparse,
    ScrollPoints,
    SetTextVersion,
    UpsertPoints,
)
from penstock.stores.data_model import (
    TEXT_FOLDED,
    TEXT_PLAIN,
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    Match,
    Point,
)
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore, search_arm
from tests.fakes.models import DIM, FakeEmbedder, embedding

WORK = Context.background()
RUNNER = Bm25Runner(Bm25Settings())
TEXTS = {f"d{n}": f"茶叶应当放在第{n}个柜子里" for n in range(200)} | {"en": "plain words", "fr": "un résumé"}


class Bm25:
    """The real encoder, on the loop."""

    hook = None

    async def encode(self, texts, kind, _ctx):
        if self.hook is not None:
            await self.hook()
        return (RUNNER.encode_queries if kind is TextKind.QUERY else RUNNER.encode_documents)(texts)


class House:
    """A store with a collection of an older release, and what renews and writes it."""

    def __init__(self, **info):
        self.store, self.bm25, self.embedder = MemoryStore(), Bm25(), FakeEmbedder()
        self.versions = TextVersions(self.store, LoopClock(), shared=False)
        self.renewal = TextRenewal(self.store, self.bm25, BM25_INPUTS.chunk, self.versions.forget)
        self.writer = ChunkBatchWriter(self.embedder, self.bm25, self.store, self.versions.version)
        self.info = CollectionInfo("c", DIM, "m", **info)

    async def fill(self):
        await self.store.run(CreateCollection(self.info), WORK)
        for id, text in TEXTS.items():
            await self.plain(id, text)
        return self

    async def plain(self, id, text):
        """Write a document as an older release does."""
        (vector,) = RUNNER.encode_documents([BM25_INPUTS.chunk(text, "", "", TEXT_PLAIN)])
        await self.store.run(UpsertPoints("c", [Point(ChunkPayload(id, 0, text), embedding(text), vector)]), WORK)

    async def found(self, query):
        """Return the documents that a search by words finds now."""
        version = await self.versions.version("c", WORK)
        (vector,) = RUNNER.encode_queries([BM25_INPUTS.query(query, version)])
        hits = await search_arm(self.store, "c", ArmQuery(vector, 300), WORK)
        points = (await self.store.run(ScrollPoints("c", None, 1000), WORK)).points
        ids = {point_id(one.payload.id, 0): one.payload.id for one in points}
        return {ids[hit.point] for hit in hits}

    async def info_now(self):
        return await self.store.run(DescribeCollection("c"), WORK)

    async def wrong(self):
        """Return the documents whose vectors are not those of the newest version."""
        points = (await self.store.run(ScrollPoints("c", None, 1000), WORK)).points
        return [
            one.payload.id
            for one in points
            if set(one.sparse.indices)
            != set(RUNNER.encode_documents([BM25_INPUTS.chunk(one.payload.text, "", "", TEXT_FOLDED)])[0].indices)
        ]


@virtual
async def test_an_older_collection_is_renewed():
    house = await House().fill()
    assert await house.found("茶叶") == set()
    assert await house.renewal.run("c", WORK) == 201
    assert await house.wrong() == []
    assert ((await house.info_now()).text, (await house.info_now()).renewing) == (TEXT_FOLDED, False)
    assert await house.found("茶叶") == set(TEXTS) - {"en", "fr"}
    assert await house.found("resume") == {"fr"}
    assert await house.renewal.run("c", WORK) == 0


@virtual
async def test_the_rest_of_a_point_stays():
    house = await House().fill()
    before = (await house.store.run(ScrollPoints("c", None, 1000), WORK)).points
    await house.renewal.run("c", WORK)
    after = (await house.store.run(ScrollPoints("c", None, 1000), WORK)).points
    for one, other in zip(before, after, strict=True):
        assert one.payload == other.payload
        np.testing.assert_array_equal(one.dense, other.dense)


@virtual
async def test_interrupted_at_any_step_it_stays_searchable_and_goes_on():
    house = await House().fill()
    whole, steps = TEXTS["d7"], 0
    while (await house.info_now()).text != TEXT_FOLDED:
        left = steps

        async def stops(command):
            nonlocal left
            if isinstance(command, SetTextVersion | ReplaceSparse | ScrollPoints):
                left -= 1
                if left < 0:
                    raise Unavailable("killed", dependency="store")

        house.store.hook = stops
        with contextlib.suppress(Unavailable):
            await house.renewal.run("c", WORK)
        house.store.hook = nothing
        # Another process knows what is recorded, and nothing else.
        house.versions.forget("c")
        assert "d7" in await house.found(whole)
        assert "fr" in await house.found("résumé")
        assert "en" in await house.found("words")
        steps += 1
    assert steps > 6
    assert await house.wrong() == []


@virtual
async def test_what_is_written_meanwhile_is_of_the_new_version():
    house = await House().fill()
    writes = []

    async def written():
        if len(writes) < 3:
            writes.append(None)
            chunk = ChunkPayload(f"new{len(writes)}", 0, "消防演习将于月底举行")
            await house.writer.write(ChunkBatch("c", [chunk]), WORK)
            assert f"new{len(writes)}" in await house.found("消防演习")

    async def hook(command):
        if isinstance(command, ReplaceSparse):
            house.store.hook = nothing
            await written()
            house.store.hook = hook

    house.store.hook = hook
    await house.renewal.run("c", WORK)
    assert len(writes) == 2
    assert await house.wrong() == []


@virtual
async def test_a_batch_that_was_begun_before_is_written_in_the_new_version():
    house = await House().fill()
    embedding_now, renewed = asyncio.Event(), asyncio.Event()

    async def slow(_texts):
        embedding_now.set()
        await renewed.wait()

    house.embedder.hook = slow
    chunk = ChunkPayload("late", 0, "消防演习将于月底举行")
    writing = asyncio.create_task(house.writer.write(ChunkBatch("c", [chunk]), WORK))
    await embedding_now.wait()
    await house.renewal.run("c", WORK)
    renewed.set()
    await writing
    assert await house.found("消防演习") == {"late"}


@virtual
async def test_a_document_replaced_or_deleted_meanwhile_is_not_brought_back():
    house = await House().fill()

    async def changes():
        house.bm25.hook = None
        await house.plain("d1", "老桥的石栏杆正在修复")
        await house.store.run(DeleteDocuments("c", (Match("id", ["d2"]),)), WORK)

    house.bm25.hook = changes
    await house.renewal.run("c", WORK)
    assert await house.found("石栏杆") == {"d1"}
    assert await house.found("茶叶") == set(TEXTS) - {"en", "fr", "d1", "d2"}
    assert await house.wrong() == []


@virtual
async def test_a_writer_that_does_not_know_of_it_is_told_in_the_end():
    house = await House().fill()
    count = 0

    async def hook(command):
        nonlocal count
        if isinstance(command, ReplaceSparse):
            count += 1
            house.store.hook = nothing
            await house.plain("old", f"茶叶{'茶' * count}")
            house.store.hook = hook

    house.store.hook = hook
    with pytest.raises(Unavailable) as caught:
        await house.renewal.run("c", WORK)
    assert caught.value.code == "write_conflict"
    assert count >= PASSES_MAX
    assert (await house.info_now()).renewing


@virtual
async def test_learned_vectors_are_not_made_again():
    house = await House(sparse="splade").fill()
    assert await house.renewal.run("c", WORK) == 0
    assert (await house.info_now()).text == TEXT_FOLDED
    assert house.store.count(ScrollPoints) == 0


@virtual
async def test_where_others_write_their_memory_is_waited_for():
    house = await House().fill()
    began_s = asyncio.get_running_loop().time()
    await replace(house.renewal, settle_s=20.0).run("c", WORK)
    assert asyncio.get_running_loop().time() - began_s >= 20.0


@virtual
async def test_a_collection_that_is_not_there_is_refused():
    with pytest.raises(Invalid):
        await House().renewal.run("c", WORK)


async def nothing(_command):
    pass
