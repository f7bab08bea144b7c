"""The pipeline over the in-memory store: what a document looks like at every step of its way in."""

import asyncio
import gc
from typing import Any

import msgspec
import numpy as np
import pytest

from penstock.indexing.chunk import Chunk
from penstock.indexing.document_records import Document, DocumentStatus, Wait
from penstock.indexing.embedding_backfill import EmbeddingBackfill
from penstock.indexing.index_pipeline import ChunkBatchWriter, IndexPipeline
from penstock.kernel.context import Context, Deadline, point_id
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.settings import IndexSettings, Settings, TimeoutSettings
from penstock.kernel.vectors import Embeddings, SparseVector
from penstock.stores.commands import (
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    FetchPayloads,
    FetchPoints,
    GetDocuments,
    SealDocument,
    StoreCommand,
    TrimDocument,
    UpsertPoints,
)
from penstock.stores.data_model import TEXT_FOLDED, CollectionInfo, Match
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore

WORK = Context.background()


class Models:
    """Embedder and sparse encoder that remember what they were given."""

    dim = 4

    def __init__(self):
        self.texts = []
        self.value = 1.0

    async def embed(self, texts, _kind, _ctx, *, late_interaction):
        self.texts.extend(texts)
        tokens = [np.full((len(text), 2), 64, np.int8) for text in texts]
        return Embeddings(np.full((len(texts), self.dim), self.value, np.float32), tokens if late_interaction else None)

    async def encode(self, texts, _kind, _ctx):
        return [SparseVector(np.array([len(t)], np.uint32), np.ones(1, np.float32)) for t in texts]


WRITES = (UpsertPoints, TrimDocument, SealDocument)


async def newest(_collection, _ctx):
    return TEXT_FOLDED


class House:
    """A pipeline with its parts; one chunk for each line."""

    def __init__(self, **index):
        self.store = MemoryStore()
        self.models = Models()
        self.writer = ChunkBatchWriter(self.models, self.models, self.store, newest)
        self.settings = IndexSettings(**index)
        self.backfill = EmbeddingBackfill(
            self.store, self.models, Settings(index=self.settings), LoopClock(), model="m", shared=False
        )
        self.pipeline = IndexPipeline(
            store=self.store,
            backfill=self.backfill,
            chunk=self.cut,
            write=self.writer.write,
            settings=self.settings,
            timeouts=TimeoutSettings(),
            clock=LoopClock(),
        )

    async def cut(self, message, _ctx):
        lines = message.text.split("\n") if message.text else []
        return [Chunk(line, number, number, "") for number, line in enumerate(lines, 1)]

    async def index(self, *documents, wait=Wait.VECTORS):
        return [outcome async for outcome in self.pipeline.run("c", documents, WORK, wait)]

    async def pending(self):
        return (await self.store.run(DescribeCollection("c"), WORK)).pending

    async def open(self):
        await self.store.run(CreateCollection(CollectionInfo("c", 4, "m")), WORK)
        return self

    async def lines(self, document):
        found = await self.store.run(FetchPayloads("c", list(self.store._points["c"])), WORK)
        return [p.text for p in sorted(found.values(), key=lambda p: p.chunk) if p.id == document]

    async def head(self, document):
        return (await self.store.run(GetDocuments("c", [document]), WORK)).get(document)

    def operations(self):
        return [command.operation for command in self.store.asked if isinstance(command, WRITES)]


def text(*lines):
    return "\n".join(lines)


@virtual
async def test_a_short_document_is_one_write():
    house = await House().open()
    outcomes = await house.index(Document("a", text("one", "two")))
    assert [(o.status, o.chunks) for o in outcomes] == [(DocumentStatus.INDEXED, 2)]
    assert house.operations() == ["upsert_points"]
    head = await house.head("a")
    assert head.hash
    assert head.chunks == 2


@virtual
async def test_a_notebook_is_told_by_its_path_and_has_the_languages_of_its_chunks():
    house = await House().open()
    asked = []

    async def cut(message, _ctx):
        asked.append(message.language)
        return [Chunk("# title", 3, 3, "", "markdown"), Chunk("x = 1", 9, 9, "", "python"), Chunk("?", 12, 12, "")]

    house.pipeline.chunk = cut
    await house.index(Document("a", "{}", "books/a.ipynb"), Document("b", "x", "b.ipynb", "Python"))
    assert asked == ["notebook", "Python"]
    found = await house.store.run(FetchPayloads("c", list(house.store._points["c"])), WORK)
    assert [p.language for p in sorted(found.values(), key=lambda p: p.chunk) if p.id == "a"] == [
        "markdown",
        "python",
        "notebook",
    ]


@virtual
async def test_the_same_content_is_neither_cut_nor_embedded_again():
    house = await House().open()
    await house.index(Document("a", "one"))
    house.models.texts.clear()
    outcomes = await house.index(Document("a", "one"))
    assert [(o.status, o.chunks) for o in outcomes] == [(DocumentStatus.UNCHANGED, 1)]
    assert house.models.texts == []


@virtual
async def test_new_metadata_is_a_new_version():
    house = await House().open()
    await house.index(Document("a", "one"))
    outcomes = await house.index(Document("a", "one", metadata={"k": 1}))
    assert outcomes[0].status is DocumentStatus.INDEXED


@virtual
async def test_a_shrinking_document_leaves_nothing_behind():
    house = await House().open()
    await house.index(Document("a", text("one", "two", "three")))
    await house.index(Document("a", "uno"))
    assert await house.lines("a") == ["uno"]
    assert house.operations()[1:] == ["upsert_points", "trim_document", "seal_document"]
    assert (await house.head("a")).hash


@virtual
async def test_a_long_document_is_written_in_segments_and_sealed_last():
    house = await House(segment_chunks=2).open()
    await house.index(Document("a", text("1", "2", "3", "4", "5")))
    assert house.operations() == ["upsert_points", "upsert_points", "upsert_points", "seal_document"]
    assert await house.lines("a") == ["1", "2", "3", "4", "5"]
    assert (await house.head("a")).chunks == 5


@pytest.mark.parametrize("step", range(4))
def test_an_interruption_at_any_step_is_recognised_and_mended(step):
    @virtual
    async def scenario():
        house = await House(segment_chunks=2).open()
        await house.index(Document("a", text("1", "2", "3", "4", "5", "6", "7")))
        left = [step]

        async def fail(command: StoreCommand[Any]) -> None:
            if isinstance(command, WRITES):
                if left[0] == 0:
                    raise Unavailable("gone", dependency="store")
                left[0] -= 1

        house.store.hook = fail
        changed = Document("a", text("one", "two", "three"))
        outcomes = await house.index(changed)
        assert outcomes[0].status is DocumentStatus.FAILED
        house.store.hook = MemoryStore().hook
        assert (await house.index(changed))[0].status is DocumentStatus.INDEXED
        assert await house.lines("a") == ["one", "two", "three"]

    scenario()


@virtual
async def test_an_interrupted_long_version_does_not_outlive_a_short_one():
    house = await House(segment_chunks=2).open()

    async def fail_at_the_seal(command: StoreCommand[Any]) -> None:
        if isinstance(command, SealDocument):
            raise Unavailable("gone", dependency="store")

    house.store.hook = fail_at_the_seal
    await house.index(Document("a", text("1", "2", "3", "4", "5")))
    house.store.hook = MemoryStore().hook
    await house.index(Document("a", "one"))
    assert await house.lines("a") == ["one"]


@virtual
async def test_an_empty_document_is_there_and_is_not_read_again():
    house = await House().open()
    assert (await house.index(Document("a", "")))[0].status is DocumentStatus.INDEXED
    assert (await house.index(Document("a", "")))[0].status is DocumentStatus.UNCHANGED


@virtual
async def test_one_bad_document_does_not_touch_its_neighbours():
    house = await House().open()

    async def cut(message, ctx):
        if message.text == "bad":
            raise Invalid("no", field="text")
        return await House.cut(house, message, ctx)

    house.pipeline.chunk = cut
    outcomes = await house.index(Document("a", "one"), Document("b", "bad"), Document("c", "two"))
    assert [o.status for o in outcomes] == [DocumentStatus.INDEXED, DocumentStatus.FAILED, DocumentStatus.INDEXED]
    assert outcomes[1].error.field == "text"
    assert await house.head("b") is None


@virtual
async def test_ids_that_cannot_be_stored_are_refused():
    house = await House().open()
    outcomes = await house.index(Document("", "one"), Document("x" * 5000, "two"))
    assert [o.error.field for o in outcomes] == ["id", "id"]


@virtual
async def test_a_vector_that_is_not_finite_is_not_stored():
    house = await House().open()
    house.models.value = float("nan")
    outcomes = await house.index(Document("a", "one"))
    assert isinstance(outcomes[0].error, Broken)
    assert await house.head("a") is None


@virtual
async def test_two_versions_at_once_do_not_mix():
    house = await House(segment_chunks=1).open()
    await asyncio.gather(
        house.index(Document("a", text("1", "2", "3", "4"))), house.index(Document("a", text("one", "two")))
    )
    assert await house.lines("a") in (["1", "2", "3", "4"], ["one", "two"])
    assert len(house.pipeline._locks) == 0


@virtual
async def test_versions_of_one_document_follow_each_other_and_other_documents_do_not_wait():
    house = await House().open()
    seen = []

    async def cut(message, ctx):
        seen.append(f"{message.text} in")
        await asyncio.sleep(1)
        seen.append(f"{message.text} out")
        return await House.cut(house, message, ctx)

    house.pipeline.chunk = cut
    await asyncio.gather(*(house.index(Document(id_, text)) for id_, text in ("a1", "a2", "b3")))
    assert seen.index("1 out") < seen.index("2 in")
    assert seen.index("3 in") < seen.index("1 out")


@virtual
async def test_a_caller_who_leaves_while_another_has_the_document_leaves_no_lock():
    house = await House().open()

    async def cut(_message, _ctx):
        await asyncio.Event().wait()

    house.pipeline.chunk = cut
    tasks = [asyncio.create_task(house.index(Document("a", text))) for text in "12"]
    await asyncio.sleep(1)
    for left in (1, 0):
        tasks[-1].cancel()
        await asyncio.gather(tasks[-1], return_exceptions=True)
        del tasks[-1]  # its error holds what it waited for
        gc.collect()
        assert len(house.pipeline._locks) == left


@virtual
async def test_a_request_works_on_a_few_documents_at_once():
    house = await House(workers=3).open()
    running = most = 0

    async def cut(message, ctx):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return await House.cut(house, message, ctx)

    house.pipeline.chunk = cut
    outcomes = await house.index(*(Document(str(n), "one") for n in range(10)))
    assert len(outcomes) == 10
    assert most == 3


@virtual
async def test_one_document_is_made_in_each_turn_of_the_loop():
    house = await House(workers=8).open()
    loop, turn, made_in = asyncio.get_running_loop(), 0, []

    def next_turn():
        nonlocal turn
        turn += 1
        if len(made_in) < 8:
            loop.call_soon(next_turn)

    class Made(list):
        def __getitem__(self, number):
            made_in.append(turn)
            return super().__getitem__(number)

    next_turn()
    made = Made(Document(str(n), "one") for n in range(8))
    assert len([outcome async for outcome in house.pipeline.run("c", made, WORK)]) == 8
    assert len(set(made_in)) == 8


@virtual
async def test_each_step_carries_the_file_limit():
    house = await House().open()
    operations = []

    async def cut(message, ctx):
        operations.append(ctx.deadline.operation)
        raise Expired(ctx.deadline.operation)

    house.pipeline.chunk = cut
    outcomes = await house.index(Document("a", "one"))
    assert operations == ["index"]
    assert outcomes[0].error.operation == "index"


@virtual
async def test_a_caller_who_leaves_stops_what_was_not_begun():
    house = await House(workers=1).open()
    reached = []

    async def cut(message, ctx):
        reached.append(message.text)
        await asyncio.sleep(10)
        return await House.cut(house, message, ctx)

    house.pipeline.chunk = cut
    task = asyncio.create_task(house.index(Document("a", "one"), Document("b", "two")))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(60)
    assert reached == ["one"]
    assert house.operations() == []
    assert len(house.pipeline._locks) == 0


# Bounds


@virtual
async def test_metadata_that_would_be_stored_too_often_is_refused_before_anything_is_written():
    house = await House().open()
    metadata, lines = {"k": "x" * 50_000}, "\n".join("l" * 400)
    (outcome,) = await house.index(Document("a", lines, metadata=metadata))
    assert outcome.status is DocumentStatus.FAILED
    assert isinstance(outcome.error, Invalid)
    assert (outcome.error.field, "400 chunks" in outcome.error.detail) == ("metadata", True)
    assert house.operations() == []
    assert [o.status for o in await house.index(Document("a", lines[:39], metadata=metadata))] == [
        DocumentStatus.INDEXED
    ]


@virtual
async def test_a_long_text_may_have_more_metadata_stored():
    house = await House().open()
    lines = "\n".join(["l" * 1000] * 400)
    (outcome,) = await house.index(Document("a", lines, metadata={"k": "x" * 7000}))
    assert outcome.status is DocumentStatus.INDEXED
    (outcome,) = await house.index(Document("a", lines, metadata={"k": "x" * 9000}))
    assert outcome.status is DocumentStatus.FAILED


@virtual
async def test_after_the_deadline_nothing_is_asked():
    house = await House().open()
    asked = len(house.store.asked)
    late = WORK.within(0.0, "request", LoopClock().now())
    outcomes = [o async for o in house.pipeline.run("c", [Document(str(n), "text") for n in range(9)], late)]
    assert [(o.status, o.error.operation) for o in outcomes] == [(DocumentStatus.FAILED, "request")] * 9
    assert len(house.store.asked) == asked


@virtual
async def test_large_metadata_makes_small_segments_so_that_searches_need_not_wait():
    house = await House().open()
    (outcome,) = await house.index(Document("a", "\n".join("l" * 9), metadata={"k": "x" * 50_000}))
    assert (outcome.status, outcome.chunks) == (DocumentStatus.INDEXED, 9)
    assert house.operations() == ["upsert_points"] * 5 + ["seal_document"]
    assert len(await house.lines("a")) == 9


SOURCE = Document("s:a.py", text("one", "two", "three"), "a.py", source="s", replaces="/p/a.py")
OLD = Document("/p/a.py", SOURCE.text, "a.py")


@virtual
@pytest.mark.parametrize("segment_chunks", [2, 32])
async def test_a_document_under_another_id_keeps_its_vectors(segment_chunks):
    house = await House(segment_chunks=segment_chunks).open()
    await house.index(OLD)
    before = {point.payload.chunk: point for point in house.store._points["c"].values()}
    house.models.texts.clear()
    (outcome,) = await house.index(SOURCE)
    assert (outcome.status, outcome.chunks, house.models.texts) == (DocumentStatus.INDEXED, 3, [])
    assert await house.head("/p/a.py") is None
    points = sorted(house.store._points["c"].values(), key=lambda point: point.payload.chunk)
    assert [(point.payload.id, point.payload.source, point.payload.text) for point in points] == [
        ("s:a.py", "s", line) for line in ("one", "two", "three")
    ]
    assert all(point.dense is before[point.payload.chunk].dense for point in points)
    head = await house.head("s:a.py")
    assert (head.chunks, bool(head.hash), head.source) == (3, True, "s")


@virtual
async def test_a_document_that_differs_from_the_one_it_replaces_is_embedded():
    house = await House().open()
    await house.index(Document("/p/a.py", "zero", "a.py"))
    house.models.texts.clear()
    assert (await house.index(SOURCE))[0].status is DocumentStatus.INDEXED
    assert len(house.models.texts) == 3
    assert await house.head("/p/a.py") is None


@virtual
async def test_a_replacement_interrupted_at_any_write_is_finished_by_the_next_attempt():
    for writes in range(6):
        house = await House(segment_chunks=2).open()
        await house.index(OLD)
        house.models.texts.clear()
        seen = 0

        async def dying(command, limit=writes):
            nonlocal seen
            seen += command.writes
            if command.writes and seen > limit:
                raise Unavailable("killed", dependency="store")

        house.store.hook = dying
        (outcome,) = await house.index(SOURCE)
        finished = outcome.status is not DocumentStatus.FAILED
        heads = [await house.head(id) for id in ("s:a.py", "/p/a.py")]
        assert any(head is not None and head.hash for head in heads), writes

        async def nothing(_):
            return None

        house.store.hook = nothing
        await house.index(SOURCE)
        assert (await house.head("s:a.py")).hash
        assert await house.head("/p/a.py") is None
        assert house.models.texts == [], writes
    assert finished


@virtual
async def test_a_replaced_document_whose_chunks_are_missing_is_embedded():
    house = await House().open()
    await house.index(OLD)
    await house.store.run(TrimDocument("c", "/p/a.py", 2), WORK)
    house.models.texts.clear()
    assert (await house.index(SOURCE))[0].chunks == 3
    assert len(house.models.texts) == 3


@virtual
async def test_a_document_that_joins_a_source_keeps_its_vectors():
    house = await House().open()
    await house.index(Document("s:a.py", "one", "a.py"))
    house.models.texts.clear()
    (outcome,) = await house.index(Document("s:a.py", "one", "a.py", source="s"))
    assert (outcome.status, house.models.texts) == (DocumentStatus.INDEXED, [])
    assert (await house.head("s:a.py")).source == "s"


@virtual
@pytest.mark.parametrize(
    ("id", "source"),
    [("a.py", "s"), ("s:", "s"), ("t:a.py", "s"), ("s/t:a", "s/t"), ("s:t:a", "s:t"), ("s\n:a", "s\n"), (" :a", " ")],
)
async def test_a_document_that_is_not_its_sources_is_refused(id, source):
    house = await House().open()
    (outcome,) = await house.index(Document(id, "one", source=source))
    assert (outcome.status, outcome.error.code) == (DocumentStatus.FAILED, "invalid_source")


# Words first


@virtual
async def test_words_are_written_without_asking_the_dense_model_and_the_document_is_whole():
    house = await House(segment_chunks=2).open()
    outcomes = await house.index(Document("a", text("one", "two", "three")), wait=Wait.WORDS)
    assert [(o.status, o.chunks) for o in outcomes] == [(DocumentStatus.SEARCHABLE, 3)]
    assert house.models.texts == []
    assert (await house.pending(), (await house.head("a")).chunks) == (3, 3)
    assert house.backfill.pending == 3


@virtual
async def test_a_searchable_document_is_unchanged_for_whom_words_are_enough_and_embedded_for_the_others():
    house = await House().open()
    document = Document("a", text("one", "two"))
    await house.index(document, wait=Wait.WORDS)
    (again,) = await house.index(document, wait=Wait.WORDS)
    assert (again.status, again.chunks, await house.pending()) == (DocumentStatus.UNCHANGED, 2, 2)
    (again,) = await house.index(document)
    assert (again.status, await house.pending()) == (DocumentStatus.UNCHANGED, 0)
    assert sorted(house.models.texts) == ["one", "two"]


@virtual
async def test_nothing_is_asked_of_an_unchanged_document_where_no_chunk_is_pending():
    house = await House().open()
    document = Document("a", text("one", "two"))
    await house.index(document)
    await house.index(document)
    house.store.asked.clear()
    await house.index(document)
    assert [type(command) for command in house.store.asked] == [GetDocuments]


@virtual
async def test_a_copy_of_a_searchable_document_lacks_the_same_vectors():
    house = await House().open()
    await house.index(Document("old", text("one", "two"), path="p"), wait=Wait.WORDS)
    moved = Document("new", text("one", "two"), path="p", replaces="old")
    await house.index(moved, wait=Wait.WORDS)
    assert (await house.head("old"), await house.pending(), house.models.texts) == (None, 2, [])
    await house.index(Document("newer", text("one", "two"), path="p", replaces="new"))
    assert (await house.head("new"), await house.pending()) == (None, 0)
    assert len(house.models.texts) == 2


@virtual
async def test_an_edited_document_keeps_the_vectors_of_what_is_the_same():
    house = await House(segment_chunks=2).open()
    await house.index(Document("a", text("one", "two", "three", "four"), path="p.py"))
    house.models.texts.clear()
    await house.index(Document("a", text("zero", "one", "three", "four", "five"), path="p.py"), wait=Wait.WORDS)
    assert (await house.lines("a"), await house.pending()) == (["zero", "one", "three", "four", "five"], 2)
    await house.backfill.complete_document("c", "a", WORK)
    assert [one.splitlines()[-1] for one in house.models.texts] == ["zero", "five"]
    assert await house.pending() == 0


@virtual
async def test_a_document_that_differs_from_the_one_that_it_names_takes_the_vectors_of_what_is_the_same():
    house = await House(segment_chunks=2).open()
    first = Document("s:p.py", text("one", "two", "three"), "p.py", source="s")
    await house.index(first)
    house.models.texts.clear()
    edited = text("zero", "two", "three", "four")
    other = Document("t:p.py", edited, "p.py", source="t", same_as=first.id)
    (outcome,) = await house.index(other, wait=Wait.WORDS)
    assert (outcome.status, outcome.same_as, await house.pending()) == (DocumentStatus.SEARCHABLE, "", 2)
    # Of its own former version and of the other one.
    other = msgspec.structs.replace(other, text=text("zero", "one"))
    await house.backfill.complete_document("c", other.id, WORK)
    await house.index(other, wait=Wait.WORDS)
    assert (await house.lines(other.id), await house.pending()) == (["zero", "one"], 0)
    assert sorted(one.splitlines()[-1] for one in house.models.texts) == ["four", "zero"]


@virtual
async def test_a_short_document_reads_little_of_a_long_one_that_it_names():
    house = await House().open()
    await house.index(Document("long", "\n".join(map(str, range(300))), "p.py"))
    house.store.asked.clear()
    await house.index(Document("short", "0", "p.py", same_as="long"), wait=Wait.WORDS)
    assert sum(len(one.points) for one in house.store.asked if isinstance(one, FetchPoints)) == 4
    assert await house.pending() == 0


@virtual
async def test_a_document_under_another_path_is_embedded_since_its_path_is_part_of_its_text():
    house = await House().open()
    await house.index(Document("a", text("one", "two"), path="p.py"))
    await house.index(Document("a", text("one", "two", "three"), path="q.py"), wait=Wait.WORDS)
    assert await house.pending() == 3


MAIN = Document("s:a.py", text("one", "two", "three"), "a.py", source="s")
LINKED = Document("s@fix:a.py", MAIN.text, "a.py", source="s@fix", same_as="s:a.py")


@virtual
@pytest.mark.parametrize("segment_chunks", [2, 32])
async def test_a_document_takes_the_vectors_of_one_with_the_same_content(segment_chunks):
    house = await House(segment_chunks=segment_chunks).open()
    await house.index(MAIN)
    house.models.texts.clear()
    (outcome,) = await house.index(LINKED)
    assert (outcome.status, outcome.chunks, outcome.same_as) == (DocumentStatus.INDEXED, 3, "s:a.py")
    assert house.models.texts == []
    points = {(one.payload.id, one.payload.chunk): one for one in house.store._points["c"].values()}
    for chunk, line in enumerate(("one", "two", "three")):
        mine, theirs = points["s@fix:a.py", chunk], points["s:a.py", chunk]
        assert (mine.payload.text, mine.payload.source, theirs.payload.source) == (line, "s@fix", "s")
        assert mine.dense is theirs.dense
    heads = [await house.head(id) for id in ("s:a.py", "s@fix:a.py")]
    assert [(head.hash != "", head.chunks) for head in heads] == [(True, 3), (True, 3)]
    assert [outcome.status for outcome in await house.index(LINKED)] == [DocumentStatus.UNCHANGED]


@virtual
@pytest.mark.parametrize(
    "same_as", ["s@fix:a.py", "nowhere", "", "s:b.py", "x" * 4096], ids=["itself", "absent", "none", "other", "long"]
)
async def test_a_document_without_a_duplicate_is_embedded(same_as):
    house = await House().open()
    await house.index(MAIN, Document("s:b.py", "zero", "b.py", source="s"))
    house.models.texts.clear()
    (outcome,) = await house.index(msgspec.structs.replace(LINKED, same_as=same_as))
    assert (outcome.status, outcome.chunks, outcome.same_as) == (DocumentStatus.INDEXED, 3, "")
    assert len(house.models.texts) == 3


@virtual
async def test_a_duplicate_in_another_collection_is_none():
    house = await House().open()
    await house.store.run(CreateCollection(CollectionInfo("other", 4, "m")), WORK)
    async for _ in house.pipeline.run("other", [MAIN], WORK):
        pass
    house.models.texts.clear()
    assert (await house.index(LINKED))[0].same_as == ""
    assert len(house.models.texts) == 3


@virtual
async def test_a_version_that_becomes_as_its_duplicate_takes_the_vectors_and_leaves_nothing_behind():
    house = await House().open()
    await house.index(MAIN, msgspec.structs.replace(LINKED, text=text(*"abcde"), same_as=""))
    house.models.texts.clear()
    assert (await house.index(LINKED))[0].same_as == "s:a.py"
    assert (await house.lines("s@fix:a.py"), house.models.texts) == (["one", "two", "three"], [])


@virtual
async def test_duplicates_that_wait_for_each_other_both_end():
    house = await House().open()
    one = msgspec.structs.replace(MAIN, same_as=LINKED.id)
    before = msgspec.structs.replace(MAIN, text="zero")
    outcomes = await asyncio.gather(house.index(before), house.index(one), house.index(LINKED))
    assert [outcome.status for (outcome,) in outcomes] == [DocumentStatus.INDEXED] * 3
    # The last one found that before it.
    assert len(house.models.texts) == 4


async def remove_duplicate(house):
    await house.store.run(DeleteDocuments("c", (Match("source", ["s"]),)), WORK)


async def shorten_duplicate(house):
    await house.store.run(TrimDocument("c", MAIN.id, 2), WORK)


async def replace_duplicate_elsewhere(house):
    """Write the duplicate's next version, as another server does that this one's locks do not reach."""
    other = House(segment_chunks=2)
    other.store._points, other.store._infos = house.store._points, house.store._infos
    await other.index(msgspec.structs.replace(MAIN, text=text("uno", "dos", "tres")))


@virtual
@pytest.mark.parametrize("change", [remove_duplicate, shorten_duplicate, replace_duplicate_elsewhere])
@pytest.mark.parametrize("reads", [0, 1])
async def test_a_duplicate_that_changes_while_it_is_copied_is_not_mixed_in(change, reads):
    house = await House(segment_chunks=2).open()
    await house.index(MAIN)
    house.models.texts.clear()
    seen = 0

    async def meddle(command):
        nonlocal seen
        if isinstance(command, FetchPoints):
            seen += 1
            if seen == reads + 1:
                await change(house)

    house.store.hook = meddle
    (outcome,) = await house.index(LINKED)
    assert (outcome.status, outcome.same_as) == (DocumentStatus.INDEXED, "")
    assert await house.lines(LINKED.id) == ["one", "two", "three"]
    assert len(house.models.texts) == 3


@virtual
async def test_a_duplicate_is_not_replaced_while_it_is_copied():
    house = await House(segment_chunks=1).open()
    await house.index(MAIN)
    later = msgspec.structs.replace(MAIN, text=text("uno", "dos", "tres"))
    writes = []

    async def note(command):
        if isinstance(command, UpsertPoints):
            writes.extend(point.payload.id for point in command.points)
        await asyncio.sleep(0)

    house.store.hook = note
    copied, replaced = await asyncio.gather(house.index(LINKED), house.index(later))
    assert (copied[0].same_as, replaced[0].status) == (MAIN.id, DocumentStatus.INDEXED)
    assert writes == [LINKED.id] * 3 + [MAIN.id] * 3
    assert await house.lines(LINKED.id) == ["one", "two", "three"]


@virtual
async def test_what_a_broken_off_copy_has_left_is_trimmed():
    house = await House(segment_chunks=1).open()
    await house.index(MAIN)

    async def cut_by_lines(message, _ctx):
        return [Chunk(message.text, 1, 3, "")]

    async def meddle(command):
        if isinstance(command, FetchPoints) and command.points == [point_id(MAIN.id, 2)]:
            await remove_duplicate(house)

    # A parser that was ended cuts the same text in another way.
    house.pipeline.chunk = cut_by_lines
    house.store.hook = meddle
    (outcome,) = await house.index(LINKED)
    assert (outcome.chunks, await house.lines(LINKED.id)) == (1, [MAIN.text])


@virtual
async def test_a_duplicate_that_is_found_by_words_only_is_copied_and_not_told_as_shared():
    house = await House().open()
    await house.index(MAIN, wait=Wait.WORDS)
    (outcome,) = await house.index(LINKED, wait=Wait.WORDS)
    assert (outcome.status, outcome.same_as, await house.pending()) == (DocumentStatus.SEARCHABLE, "", 6)
    assert house.backfill.pending == 6
    (outcome,) = await house.index(msgspec.structs.replace(LINKED, id="t:a.py", source="t"))
    assert (outcome.status, outcome.same_as, await house.pending()) == (DocumentStatus.INDEXED, "", 6)
    assert len(house.models.texts) == 3


@virtual
async def test_a_document_that_is_to_be_found_by_words_has_the_vectors_of_its_duplicate_at_once():
    house = await House().open()
    await house.index(MAIN)
    (outcome,) = await house.index(LINKED, wait=Wait.WORDS)
    assert (outcome.status, outcome.same_as, await house.pending()) == (DocumentStatus.INDEXED, MAIN.id, 0)


class BusyHouse(House):
    """A pipeline whose store refuses the writes that ``refuses`` names."""

    def __init__(self, refuses, **index):
        super().__init__(**index)
        self.writes = self.at_once = self.at_once_max = 0
        self.refuses = refuses
        self.pipeline.write = self.write

    async def write(self, batch, ctx):
        self.writes += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        await asyncio.sleep(0.01)
        refused = self.refuses(self.writes, self.at_once)
        self.at_once -= 1
        if refused:
            raise Rejected("store is busy", code="dependency_busy", retry_after_s=0.1)
        await self.writer.write(batch, ctx)


@virtual
async def test_documents_that_the_busy_store_refused_are_written_in_the_end_and_fewer_at_once():
    house = await BusyHouse(lambda _, at_once: at_once > 2, workers=8).open()
    outcomes = await house.index(*(Document(f"d{number}", f"text {number}") for number in range(60)))
    assert {one.status for one in outcomes} == {DocumentStatus.INDEXED}
    assert house.at_once_max == 8
    assert house.writes < 200, "fewer at once, not the same number again and again"


@virtual
async def test_after_a_store_was_busy_as_many_documents_as_before_are_under_way_again():
    house = await BusyHouse(lambda number, _: number <= 8, workers=8).open()
    for number in range(3):
        house.at_once_max = 0
        await house.index(*(Document(f"d{number}-{each}", "t") for each in range(40)))
    assert house.at_once_max == 8


@virtual
async def test_a_store_that_stays_busy_is_told_of_after_a_while():
    house = await BusyHouse(lambda *_: True).open()
    began_s = asyncio.get_running_loop().time()
    (outcome,) = await house.index(Document("a", "t"))
    assert (outcome.status, outcome.error.code) == (DocumentStatus.FAILED, "dependency_busy")
    assert 9 < asyncio.get_running_loop().time() - began_s < 14


@virtual
async def test_a_document_waits_for_a_busy_store_no_longer_than_its_callers_deadline():
    house = await BusyHouse(lambda *_: True).open()
    now_s = asyncio.get_running_loop().time()
    brief = Context(Deadline(now_s + 3, "index"))
    (outcome,) = [one async for one in house.pipeline.run("c", [Document("a", "t")], brief, Wait.VECTORS)]
    assert isinstance(outcome.error, Expired)
    assert asyncio.get_running_loop().time() - now_s < 4


@virtual
async def test_a_refusal_that_is_not_the_stores_is_told_at_once():
    house = await House().open()

    async def draining(_batch, _ctx):
        raise Rejected("the server is shutting down", code="draining")

    house.pipeline.write = draining
    (outcome,) = await house.index(Document("a", "t"))
    assert outcome.error.code == "draining"
