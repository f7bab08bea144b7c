"""The backfill over the in-memory store: who gets vectors, when, and what a failure costs."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from penstock.indexing import backlog as backlog_module
from penstock.indexing.embedding_backfill import (
    ON_THE_SPOT_CHUNKS,
    QUIET_S,
    SHARED_PERIOD_S,
    STEP_CHUNKS,
    WRITERS_SHARE_S,
    EmbeddingBackfill,
)
from penstock.kernel.context import Context, Criticality, Deadline, point_id
from penstock.kernel.errors import Broken, Invalid, Rejected, Unavailable
from penstock.kernel.settings import IndexSettings, Settings
from penstock.kernel.vectors import Embeddings
from penstock.stores.commands import (
    AddVectors,
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    FetchPoints,
    ListPending,
    UpsertPoints,
)
from penstock.stores.data_model import ChunkPayload, CollectionInfo, Match, PendingChunk, Point
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore, sparse

WORK = Context.background()


class Embedder:
    """An embedder that remembers its texts, takes its time and fails when told to."""

    dim = 4

    def __init__(self):
        self.texts = []
        self.contexts = []
        self.takes_s = 0.0
        self.poison = ""
        self.errors = []

    async def embed(self, texts, _kind, ctx, *, late_interaction):
        await asyncio.sleep(self.takes_s * len(texts))
        self.contexts.append(ctx)
        if self.errors:
            raise self.errors.pop(0)
        if self.poison and any(self.poison in text for text in texts):
            raise Invalid("it is too odd")
        self.texts += texts
        tokens = [np.ones((1, 2), np.int8) for _ in texts] if late_interaction else None
        return Embeddings(np.full((len(texts), self.dim), 0.5, np.float32), tokens)


class House:
    """A backfill with its parts, and one collection."""

    def __init__(self, *, shared=False, workers=1):
        self.store = MemoryStore()
        self.embedder = Embedder()
        self.shared, self.workers = shared, workers
        self.backfill = self.another()

    def another(self):
        settings = Settings(index=IndexSettings(workers=self.workers))
        return EmbeddingBackfill(self.store, self.embedder, settings, LoopClock(), model="m", shared=self.shared)

    async def open(self, *names):
        for name in names or ("c",):
            await self.store.run(CreateCollection(CollectionInfo(name, 4, "m", token_dim=2)), WORK)
        return self

    async def write(self, document, *texts, collection="c", digest="h1", path="", note=True):
        payloads = [ChunkPayload(document, number, text, path, pending=digest) for number, text in enumerate(texts)]
        points = [Point(payload, None, sparse(t1=1)) for payload in payloads]
        await self.store.run(UpsertPoints(collection, points), WORK)
        if note:
            self.backfill.note(collection, [PendingChunk(p.id, p.chunk, p.path, "") for p in payloads])
        return payloads

    async def pending(self, collection="c"):
        return (await self.store.run(DescribeCollection(collection), WORK)).pending

    @asynccontextmanager
    async def running(self):
        self.backfill.start()
        try:
            yield
        finally:
            await self.backfill.close()

    async def until_embedded(self, collection="c"):
        for _ in range(60_000):
            if not await self.pending(collection):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{collection} has chunks without vectors")


def within(seconds):
    now = asyncio.get_running_loop().time()
    return Context(Deadline(now + seconds, "search"), Criticality.INTERACTIVE)


@virtual
async def test_what_was_written_gets_its_vectors_and_keeps_its_words():
    house = await House().open()
    async with house.running():
        await house.write("a", "one", "two")
        await house.until_embedded()
    assert house.embedder.texts == ["one", "two"]
    (point,) = await house.store.run(FetchPoints("c", [point_id("a", 1)]), WORK)
    assert (point.dense.tolist(), point.payload.pending, point.token_vectors.shape) == ([0.5] * 4, "", (1, 2))
    assert point.sparse.indices.tolist() == [1]
    assert {ctx.criticality for ctx in house.embedder.contexts} == {Criticality.BULK}


@virtual
async def test_what_an_earlier_process_has_left_is_found_at_the_start():
    house = await House().open("c", "d", "e")
    await house.write("a", *("one",) * 3, note=False)
    await house.write("b", "two", collection="d", note=False)
    async with house.running():
        await house.until_embedded("c")
        await house.until_embedded("d")
    assert len(house.embedder.texts) == 4


@virtual
async def test_collections_of_another_model_are_left_alone():
    house = await House().open()
    await house.store.run(CreateCollection(CollectionInfo("other", 4, "n")), WORK)
    await house.write("a", "one", collection="other", note=False)
    async with house.running():
        await asyncio.sleep(60)
    assert house.embedder.texts == []


@virtual
async def test_words_come_first_and_vectors_are_not_starved():
    house = await House().open()
    async with house.running():
        await asyncio.sleep(WRITERS_SHARE_S)
        first, number = asyncio.get_running_loop().time(), 0
        while asyncio.get_running_loop().time() < first + 3 * WRITERS_SHARE_S:
            with house.backfill.writing():
                await asyncio.sleep(2 * QUIET_S)
                await house.write(f"d{number}", *("text",) * STEP_CHUNKS)
            await asyncio.sleep(QUIET_S / 2)
            number += 1
        assert 2 <= len(house.embedder.texts) / STEP_CHUNKS <= 4
        await asyncio.sleep(2 * QUIET_S)
        await house.until_embedded()
    assert len(house.embedder.texts) == number * STEP_CHUNKS


@virtual
async def test_source_is_embedded_before_documentation():
    house = await House().open()
    await house.write("guide", "guide", path="guide.md", note=False)
    await house.write("code", "code", path="code.py", note=False)
    async with house.running():
        await house.until_embedded()
    assert [text.split()[-1] for text in house.embedder.texts] == ["code", "guide"]


@virtual
async def test_a_text_that_changes_while_it_is_embedded_gets_the_vectors_of_its_new_one():
    house = await House().open()
    house.embedder.takes_s = 5.0
    async with house.running():
        await house.write("a", "old")
        await asyncio.sleep(2)
        await house.write("a", "new", digest="h2")
        await house.until_embedded()
    assert house.embedder.texts == ["old", "new"]
    added = [command for command in house.store.asked if isinstance(command, AddVectors)]
    assert [one.pending for command in added for one in command.vectors] == ["h1", "h2"]


@virtual
async def test_a_model_that_is_down_is_asked_again_and_nothing_is_lost():
    house = await House().open()
    house.embedder.errors = [
        Unavailable("down", dependency="embed"),
        Rejected("full"),
        Unavailable("x", dependency="e"),
    ]
    async with house.running():
        await house.write("a", "one", "two")
        await house.until_embedded()
    assert sorted(house.embedder.texts) == ["one", "two"]


@virtual
async def test_a_text_that_the_model_refuses_keeps_no_other_from_its_vectors(caplog):
    house = await House().open()
    house.embedder.poison = "odd"
    async with house.running():
        await house.write("a", "one", "odd", "two")
        await house.write("b", "three")
        await asyncio.sleep(60)
    assert sorted(house.embedder.texts) == ["one", "three", "two"]
    assert await house.pending() == 1
    assert "chunk 1 of a in c gets no vectors" in caplog.text
    odd = ChunkPayload("a", 1, "odd", pending="h1")
    house.embedder.contexts.clear()
    assert not await house.backfill.complete_best("c", [odd], within(60))
    assert house.embedder.contexts == []
    await house.write("a", "one", "even", "two", digest="h2")
    assert await house.backfill.complete_best("c", [odd], within(60))


@virtual
async def test_a_bug_over_one_step_does_not_end_the_work(caplog):
    house = await House().open()
    house.embedder.errors = [ZeroDivisionError("a bug")]
    async with house.running():
        await house.write("a", "one")
        await asyncio.sleep(10)
        await house.write("b", "two")
        await asyncio.sleep(60)
    assert house.embedder.texts == ["two"]
    assert "1 chunks of c get no vectors" in caplog.text


@virtual
async def test_a_model_that_goes_down_over_a_refused_text_loses_nothing():
    house = await House().open()
    house.embedder.poison = "odd"
    house.embedder.errors = [Broken("bad"), Unavailable("down", dependency="embed")]
    async with house.running():
        await house.write("a", "one", "odd", "two")
        await asyncio.sleep(60)
    assert sorted(house.embedder.texts) == ["one", "two"]


@virtual
async def test_vectors_that_are_not_finite_are_refused():
    house = await House().open()

    async def embed(texts, *_, **__):
        return Embeddings(np.full((len(texts), 4), np.nan, np.float32))

    house.embedder.embed = embed
    (payload,) = await house.write("a", "one")
    with pytest.raises(Broken):
        await house.backfill.complete("c", [(payload.id, 0)], WORK)
    assert await house.pending() == 1


@virtual
async def test_more_chunks_than_a_backlog_holds_are_listed_again(monkeypatch):
    monkeypatch.setattr(backlog_module, "CHUNKS_MAX", 20)
    house = await House(workers=2).open()
    async with house.running():
        await house.write("a", *(f"t{n}" for n in range(3 * STEP_CHUNKS)))
        await house.until_embedded()
    assert len(house.embedder.texts) >= 3 * STEP_CHUNKS


@virtual
async def test_a_collection_that_goes_while_it_is_embedded_ends_nothing_and_is_no_news(caplog):
    house = await House().open("c", "d")
    house.embedder.takes_s = 1.0
    async with house.running():
        await house.write("a", "one")
        await house.write("b", "two", collection="d")
        await asyncio.sleep(0.5)
        house.store._drop("c")
        house.backfill.forget("c")
        await house.until_embedded("d")
    assert caplog.text == ""


@virtual
async def test_a_restored_collection_is_looked_at_again():
    house = await House().open()
    async with house.running():
        await asyncio.sleep(60)
        await house.write("a", "one", note=False)
        house.backfill.forget("c")
        await house.until_embedded()


@virtual
async def test_what_another_server_has_left_is_found_after_a_while():
    house = await House(shared=True).open()
    async with house.running():
        await asyncio.sleep(1)
        await house.write("a", *("one",) * 40, note=False)
        await house.backfill.coverage("c", WORK)
        await asyncio.sleep(SHARED_PERIOD_S + 1)
        assert await house.pending() == 0


@virtual
async def test_a_store_that_does_not_answer_is_asked_again():
    house = await House().open()
    await house.write("a", "one", note=False)
    failures = 0

    async def fail(command):
        nonlocal failures
        if failures < 6:
            failures += 1
            raise Unavailable("down", dependency="store")

    house.store.hook = fail
    async with house.running():
        await asyncio.sleep(60)
    assert failures == 6
    assert house.embedder.texts == ["one"]


# Searches


@virtual
async def test_coverage_is_told_and_remembered_while_nothing_changes():
    house = await House().open()
    assert await house.backfill.coverage("c", WORK) == 1.0
    house.store.asked.clear()
    assert await house.backfill.coverage("c", WORK) == 1.0
    assert house.store.asked == []
    payloads = await house.write("a", "one", "two", "three")
    assert await house.backfill.coverage("c", WORK) == 0.0
    await house.backfill.complete("c", [(one.id, one.chunk) for one in payloads[:2]], WORK)
    # Others are known to wait, so it may be a second old.
    assert await house.backfill.coverage("c", WORK) == 0.0
    await asyncio.sleep(1.5)
    assert await house.backfill.coverage("c", WORK) == pytest.approx(0.667)
    assert await house.backfill.coverage("absent", WORK) == 1.0


@virtual
async def test_coverage_is_told_at_once_when_nothing_waits_any_more():
    house = await House().open()
    async with house.running():
        await house.write("a", "one", "two", "three")
        assert await house.backfill.coverage("c", WORK) == 0.0
        await house.until_embedded()
        assert await house.backfill.coverage("c", WORK) == 1.0
        assert house.backfill.whole == {"c"}


@virtual
async def test_coverage_is_never_whole_while_a_chunk_is_pending():
    house = await House().open()
    payloads = await house.write("a", *("one",) * 4000)
    await house.backfill.complete("c", [(one.id, one.chunk) for one in payloads[1:]], WORK)
    assert await house.backfill.coverage("c", WORK) == 0.999


@virtual
async def test_a_description_from_before_a_write_is_not_remembered_after_it():
    house = await House().open()
    await house.write("z", "zero")
    await house.backfill.complete("c", [("z", 0)], WORK)

    async def slow(command):
        if isinstance(command, DescribeCollection):
            described = house.store._describe("c")
            await house.write("a", "one")
            house.store._infos["stale"] = described

    house.store.hook = slow
    await house.backfill.coverage("c", WORK)
    house.store.hook = lambda _: asyncio.sleep(0)
    assert await house.backfill.coverage("c", WORK) == 0.5


@virtual
async def test_the_best_hits_are_embedded_on_the_spot_and_the_others_come_next():
    house = await House().open()
    payloads = await house.write("a", *(f"t{n}" for n in range(20)))
    assert await house.backfill.complete_best("c", payloads, within(60))
    assert house.embedder.texts == [f"t{n}" for n in range(ON_THE_SPOT_CHUNKS)]
    assert house.embedder.contexts[0].criticality is Criticality.INTERACTIVE
    assert not await house.backfill.complete_best("c", [replace_pending(payloads[0])], within(60))


def replace_pending(payload):
    return ChunkPayload(payload.id, payload.chunk, payload.text)


@virtual
async def test_a_search_without_time_leaves_its_hits_to_the_backfill_which_does_them_first():
    house = await House().open()
    async with house.running():
        house.embedder.takes_s = 0.1
        payloads = await house.write("a", *(f"t{n}" for n in range(5 * STEP_CHUNKS)))
        assert not await house.backfill.complete_best("c", payloads[-3:], within(0.01))
        await house.until_embedded()
    assert house.embedder.texts[:3] == [one.text for one in payloads[-3:]]


@virtual
async def test_one_search_at_a_time_is_embedded_for_and_a_failure_is_no_failure_of_the_search():
    house = await House().open()
    payloads = await house.write("a", "one", "two")
    house.embedder.takes_s = 1.0
    first = asyncio.create_task(house.backfill.complete_best("c", payloads[:1], within(60)))
    await asyncio.sleep(0.1)
    assert not await house.backfill.complete_best("c", payloads[1:], within(60))
    assert await first
    house.embedder.errors = [Unavailable("down", dependency="embed")]
    assert not await house.backfill.complete_best("c", payloads[1:], within(60))


# Writers


@virtual
async def test_a_document_is_completed_and_no_other():
    house = await House().open()
    await house.write("a", *(f"a{n}" for n in range(40)))
    await house.write("b", "b0")
    await house.backfill.complete_document("c", "a", WORK)
    assert len(house.embedder.texts) == 40
    assert await house.pending() == 1
    listed = await house.store.run(ListPending("c", (), None, 5), WORK)
    assert [one.document_id for one in listed.chunks] == ["b"]
    await house.store.run(DeleteDocuments("c", (Match("id", ["b"]),)), WORK)
