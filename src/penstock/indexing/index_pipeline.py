"""Index pipeline of a document: compare its hash, chunk it, embed and write batch by batch, then seal it.

A document may also be written with its words only; :mod:`penstock.indexing.embedding_backfill` then embeds it.

A document becomes visible as complete by the last write only: its head's hash. Whatever is
interrupted before that is repeated by the next attempt, and point ids derived from the place make
the repetition harmless.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from penstock.indexing.chunk.outline import Chunk
from penstock.indexing.document_records import (
    ChunkBatch,
    Document,
    DocumentStatus,
    IndexOutcome,
    Wait,
    hash_input,
    new_digest,
)
from penstock.indexing.embedding_backfill import EmbeddingBackfill
from penstock.indexing.language import language_of
from penstock.indexing.model_inputs import embed_chunks, header_tokens, sparse_text
from penstock.indexing.turns import BusyTurns
from penstock.kernel.context import Clock, Context, enforce_deadline, point_id, run_all
from penstock.kernel.errors import Expired, Invalid, PenstockError, Rejected
from penstock.kernel.messages import ChunkText, TextKind
from penstock.kernel.settings import IndexSettings, TimeoutSettings
from penstock.kernel.vectors import Embeddings
from penstock.models.contract import Embedder, SparseEncoder
from penstock.stores.commands import (
    AddVectors,
    DeleteDocuments,
    FetchPoints,
    GetDocuments,
    SealDocument,
    TrimDocument,
    UpsertPoints,
)
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import (
    ID_CHARACTERS_MAX,
    TEXT_FOLDED,
    ChunkPayload,
    ChunkVectors,
    DocumentInfo,
    Match,
    PendingChunk,
    Point,
)
from penstock.stores.sources import check_document_source

#: Bytes of metadata that one document may have stored in all: its metadata is stored with every chunk, where filters
#: find it. So much is allowed in any case, 64 KB of it with 16 chunks for instance.
METADATA_STORED_BYTES_MAX: Final = 1_048_576

#: More is allowed up to so many times the text. Chunks of ordinary length, 300 characters and more, may have 2.4 KB of
#: it each, however long the document is.
METADATA_PER_CHARACTER_MAX: Final = 8

#: Bytes of metadata in one batch at most, or one chunk. The store takes 100 ms for as much of many short keys, during
#: which searches wait.
BATCH_METADATA_BYTES_MAX: Final = 131_072

#: Characters of chunks that are composed before the event loop runs other tasks: some 5 ms. Those beyond ASCII take
#: longer by a factor.
SLICE_CHARACTERS: Final = 131_072
FOLDING_FACTOR: Final = 10

#: Chunks of a document's former version, or of one that it names, whose vectors are kept where the text is the same.
#: A short document reads no long one.
KEPT_CHUNKS_MAX: Final = 512
KEPT_CHUNKS_FACTOR: Final = 4

#: How long a document is tried again while the store is busy; then its sender is told.
BUSY_S_MAX: Final = 10.0
#: Codes of refusals that say that the store has more calls than it takes.
BUSY_CODES: Final = frozenset({"dependency_busy", "dependency_limited"})

ChunkDocument = Callable[[ChunkText, Context], Awaitable[list[Chunk]]]
WriteBatch = Callable[[ChunkBatch, Context], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ChunkBatchWriter:
    """Handler of ``index.request``: embeds a batch of chunks with both models at once and writes it.

    Chunks that are pending are encoded by the sparse model only.

    Attributes:
        embedder: Makes dense vectors, and token vectors if it can.
        sparse: Makes sparse vectors.
        store: Takes the points.
        text_version: Returns the version of a collection's text. A text of ASCII is the same in each.
        compose_sparse: A chunk's text, path and symbol as the sparse model wants them in a version.
    """

    embedder: Embedder
    sparse: SparseEncoder
    store: VectorStore
    text_version: Callable[[str, Context], Awaitable[int]]
    compose_sparse: Callable[[str, str, str, int], str] = sparse_text

    async def write(self, batch: ChunkBatch, ctx: Context) -> None:
        """Embed and write.

        Cancellation: The batch may or may not have been written. Writing it again is harmless.
        """
        chunks = batch.chunks
        version = await self._version(batch, ctx)
        vectors: dict[str, Any] = {}

        async def embed() -> None:
            vectors["dense"] = await embed_chunks(self.embedder, chunks, ctx)

        async def encode(version: int) -> None:
            texts = await self._composed(chunks, version)
            vectors["sparse"] = await self.sparse.encode(texts, TextKind.DOCUMENT, ctx)

        if any(one.pending for one in chunks):
            await encode(version)
            points = [Point(one, None, terms) for one, terms in zip(chunks, vectors["sparse"], strict=True)]
            await self.store.run(UpsertPoints(batch.collection, points), ctx)
            return
        await run_all([embed(), encode(version)])
        embedded: Embeddings = vectors["dense"]
        # The dense model takes seconds, and a renewal of the collection may have begun.
        if (newest := await self._version(batch, ctx)) != version:
            await encode(newest)
        late = embedded.late if embedded.late is not None else [None] * len(chunks)
        points = [Point(*parts) for parts in zip(chunks, embedded.dense, vectors["sparse"], late, strict=True)]
        await self.store.run(UpsertPoints(batch.collection, points), ctx)

    async def _version(self, batch: ChunkBatch, ctx: Context) -> int:
        """Return the version for a batch; nothing is asked about chunks of ASCII."""
        if all(one.text.isascii() and one.path.isascii() and one.symbol.isascii() for one in batch.chunks):
            return TEXT_FOLDED
        return await self.text_version(batch.collection, ctx)

    async def _composed(self, chunks: Sequence[ChunkPayload], version: int) -> list[str]:
        """Return the chunks as the sparse model wants them, yielding to the event loop between long ones."""
        texts, characters = [], 0
        for one in chunks:
            texts.append(self.compose_sparse(one.text, one.path, one.symbol, version))
            characters += len(one.text) * (1 if one.text.isascii() else FOLDING_FACTOR)
            if characters >= SLICE_CHARACTERS:
                characters = 0
                await asyncio.sleep(0)
        return texts


@dataclass(slots=True, kw_only=True)
class IndexPipeline:
    """Indexes documents."""

    store: VectorStore
    backfill: EmbeddingBackfill
    chunk: ChunkDocument
    write: WriteBatch
    settings: IndexSettings
    timeouts: TimeoutSettings
    clock: Clock
    #: Locks by collection and document; a lock is there as long as a task holds or awaits it.
    _locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = field(default_factory=WeakValueDictionary, init=False)
    #: Turns of the documents after the store was busy, ``None`` as long as it takes all.
    _turns: BusyTurns | None = field(default=None, init=False)

    async def run(
        self, collection: str, documents: Sequence[Document], ctx: Context, wait: Wait = Wait.VECTORS
    ) -> AsyncIterator[IndexOutcome]:
        """Index documents, a few at a time, and yield each outcome in the order of the documents.

        Args:
            collection: Their collection.
            documents: The documents.
            ctx: Request context.
            wait: Whether their vectors are waited for, or follow.

        Cancellation: Documents already yielded stay; the others are untouched or incomplete, and
            an incomplete one is recognised and indexed again the next time.

        Bounds: ``index.workers`` documents at once for one request, so that a large one leaves
            room in the queue for others.
        """
        places, making = asyncio.Semaphore(self.settings.workers), asyncio.Lock()

        async def one(number: int) -> IndexOutcome:
            async with places:
                # Taken when its turn has come: it may be made only then, and one in each turn of the loop.
                async with making:
                    document = documents[number]
                    await asyncio.sleep(0)
                return await self._outcome(collection, document, ctx, wait)

        with self.backfill.writing() if wait is Wait.WORDS else nullcontext():
            tasks = [asyncio.create_task(one(number)) for number in range(len(documents))]
            try:
                for task in tasks:
                    # Waiting for the task instead of awaiting it: a cancellation then reaches all of them at once.
                    await asyncio.wait([task])
                    yield task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _outcome(self, collection: str, document: Document, ctx: Context, wait: Wait) -> IndexOutcome:
        """Index one document, again while the store is busy, and turn its error into its outcome."""
        until_s = math.inf
        try:
            while True:
                turns = self._turns
                async with enforce_deadline(ctx.deadline), turns.turn() if turns is not None else nullcontext():
                    try:
                        outcome = await self._index_locked(collection, document, ctx, wait)
                    except Rejected as error:
                        now_s = self.clock.now()
                        until_s = min(until_s, now_s + BUSY_S_MAX)
                        if error.code not in BUSY_CODES or now_s >= until_s:
                            raise
                        self._turns = self._turns or BusyTurns(self.settings.workers, self.clock.now)
                        self._turns.slow_down(error, now_s)
                    else:
                        if self._turns is not None and self._turns.speed_up(self.clock.now()):
                            self._turns = None
                        return outcome
        except PenstockError as error:
            return IndexOutcome(document.id, DocumentStatus.FAILED, error=error)

    async def _index_locked(self, collection: str, document: Document, ctx: Context, wait: Wait) -> IndexOutcome:
        """Index one document under its lock and those that it names."""
        async with AsyncExitStack() as held:
            # In the order of the ids, so that documents that name each other do not wait for each other for ever.
            for id_ in sorted({document.id, document.replaces or document.id, document.same_as or document.id}):
                await held.enter_async_context(self._locks.setdefault((collection, id_), asyncio.Lock()))
            return await self._index(collection, document, ctx, wait)

    async def _index(self, collection: str, document: Document, ctx: Context, wait: Wait) -> IndexOutcome:
        if not document.id:
            raise Invalid("a document's id must not be empty", field="id")
        if len(document.id) > ID_CHARACTERS_MAX:
            raise Invalid(f"a document's id has at most {ID_CHARACTERS_MAX} characters", field="id")
        check_document_source(document.id, document.source)
        if ctx.deadline.passed(self.clock.now()):
            raise Expired(ctx.deadline.operation)
        first_line = document.text[:200].partition("\n")[0]
        language = document.language or language_of(document.path, first_line)
        digest = await _digest(document, language)
        wanted = [id_ for id_ in (document.id, document.replaces, document.same_as) if id_]
        heads = await self.store.run(GetDocuments(collection, wanted), ctx)
        draft = _Draft(collection, document, language, digest, wait)
        outcome = await self._write(draft, heads, ctx)
        if document.replaces in heads and document.replaces != document.id:
            # Last: until now an interruption leaves the one that is replaced, and the next attempt finds it again.
            await self.store.run(DeleteDocuments(collection, (Match("id", [document.replaces]),)), ctx)
        return outcome

    async def _write(self, draft: _Draft, heads: Mapping[str, DocumentInfo], ctx: Context) -> IndexOutcome:
        """Write a document unless it is there already; ``heads`` are its own and those of the ones that it names."""
        document = draft.document
        known = heads.get(document.id)
        if known is not None and (known.hash, known.source) == (draft.digest, document.source):
            await self._complete(draft, ctx)
            return IndexOutcome(document.id, DocumentStatus.UNCHANGED, known.chunks)
        candidates = (known, heads.get(document.replaces), heads.get(document.same_as))
        same = next((one for one in candidates if one is not None and one.hash == draft.digest), None)
        if same is not None:
            if copied := await self._copy(draft, same, known, ctx):
                await self._complete(draft, ctx)
                status = copied if draft.wait is Wait.WORDS else DocumentStatus.INDEXED
                taken = same.id == document.same_as and copied is DocumentStatus.INDEXED
                return IndexOutcome(document.id, status, same.chunks, same_as=same.id if taken else "")
            # What has been copied by now may be of several versions, and more than the document is cut into.
            known = DocumentInfo(document.id, "", 0)
        to_cut = ChunkText(document.text, draft.language, header_tokens(document.path))
        cut = await self.chunk(to_cut, self._limited(ctx))
        metadata_bytes = len(msgspec.json.encode(document.metadata))
        _check_metadata(metadata_bytes, len(cut), len(document.text))
        size = self._batch_chunks(document)
        # A document without a word still has a head, so that it counts and is not read again.
        whole = _ChunkedDocument(draft, cut or [Chunk("", 1, 1, "")], size)
        former = (*candidates[1:], known) if draft.wait is Wait.WORDS else ()
        embedded = await self._embedded_before(draft, former, min(KEPT_CHUNKS_MAX, KEPT_CHUNKS_FACTOR * len(cut)), ctx)
        await self._write_all(whole, known, ctx)
        if vectors := whole.vectors(embedded):
            await self.store.run(AddVectors(draft.collection, vectors), self._limited(ctx))
        status = DocumentStatus.SEARCHABLE if draft.wait is Wait.WORDS else DocumentStatus.INDEXED
        return IndexOutcome(document.id, status, max(1, len(cut)))

    async def _embedded_before(
        self, draft: _Draft, heads: Sequence[DocumentInfo | None], chunks_max: int, ctx: Context
    ) -> dict[tuple[str, str], Point]:
        """Return the points with vectors of a document's former version and of those that it names, by text and symbol.

        An edit changes few chunks of a file. The others need not lose their vectors and get the same ones again.
        """
        places = [
            point_id(head.id, number)
            for head in heads
            if head is not None and head.path == draft.document.path
            for number in range(min(head.chunks, chunks_max))
        ]
        found: dict[tuple[str, str], Point] = {}
        for first in range(0, len(places), self.settings.segment_chunks):
            wanted = places[first : first + self.settings.segment_chunks]
            for point in await self.store.run(FetchPoints(draft.collection, wanted), ctx):
                if point.dense is not None and point.payload.path == draft.document.path:
                    found[point.payload.text, point.payload.symbol] = point
        return found

    async def _complete(self, draft: _Draft, ctx: Context) -> None:
        """Embed what a document that is there may lack, if its vectors are waited for."""
        if draft.wait is Wait.VECTORS:
            await self.backfill.complete_document(draft.collection, draft.document.id, self._limited(ctx))

    async def _write_all(self, cut: _ChunkedDocument, known: DocumentInfo | None, ctx: Context) -> None:
        """Write every chunk such that the head carries the hash only when all of it is there."""
        count, size, collection = len(cut.chunks), cut.size, cut.draft.collection
        head = cut.draft.head(count)
        # A head without a hash was left by an interrupted write of unknown length.
        surplus = known is not None and (known.chunks > count or not known.hash)
        if count <= size and not surplus:
            first, *rest = cut.payloads(0, count)
            await self._segment(collection, [_sealed(first, head), *rest], ctx)
            return
        for begin in range(0, count, size):
            await self._segment(collection, cut.payloads(begin, begin + size), ctx)
        if known is not None:
            await self.store.run(TrimDocument(collection, head.id, count), ctx)
        await self.store.run(SealDocument(collection, head), ctx)

    async def _copy(
        self, draft: _Draft, old: DocumentInfo, known: DocumentInfo | None, ctx: Context
    ) -> DocumentStatus | None:
        """Write a document with the vectors of another one of the same content.

        The caller has the locks of both. Where it could not be done, the document is left incomplete.

        Returns:
            Whether the document now is indexed, or only searchable as the other one is; ``None`` where it could not be
            done.
        """
        collection, document, head = draft.collection, draft.document, draft.head(old.chunks)
        copied = DocumentStatus.INDEXED
        size = self._batch_chunks(document)
        # Most documents are small, and the store's writes are most of the time.
        is_one_write = old.chunks <= size and known is None
        for first in range(0, old.chunks, size):
            numbers = range(first, min(first + size, old.chunks))
            points = await self.store.run(FetchPoints(collection, [point_id(old.id, n) for n in numbers]), ctx)
            if len(points) < len(numbers):
                return None
            # Another server may have replaced the other document meanwhile: the locks are this one's.
            if numbers.stop == old.chunks and old != known:
                again = await self.store.run(GetDocuments(collection, [old.id]), ctx)
                if again.get(old.id) != old:
                    return None
            moved = [_moved(point, document, head if is_one_write else None) for point in points]
            await self.store.run(UpsertPoints(collection, moved), self._limited(ctx))
            if any(point.dense is None for point in moved):
                copied = DocumentStatus.SEARCHABLE
            self._note(collection, [point.payload for point in moved])
        if is_one_write:
            return copied
        if known is not None:
            await self.store.run(TrimDocument(collection, document.id, old.chunks), ctx)
        await self.store.run(SealDocument(collection, head), ctx)
        return copied

    def _batch_chunks(self, document: Document) -> int:
        """Return how many of a document's chunks are written at once."""
        metadata_bytes = len(msgspec.json.encode(document.metadata))
        return max(1, min(self.settings.segment_chunks, BATCH_METADATA_BYTES_MAX // metadata_bytes))

    async def _segment(self, collection: str, chunks: list[ChunkPayload], ctx: Context) -> None:
        await self.write(ChunkBatch(collection, chunks), self._limited(ctx))
        self._note(collection, chunks)

    def _note(self, collection: str, chunks: Sequence[ChunkPayload]) -> None:
        """Tell the backfill of those chunks that were written without vectors."""
        if pending := [PendingChunk(one.id, one.chunk, one.path, one.language) for one in chunks if one.pending]:
            self.backfill.note(collection, pending)

    def _limited(self, ctx: Context) -> Context:
        return ctx.within(self.timeouts.index_file, "index", self.clock.now())


@dataclass(frozen=True, slots=True)
class _Draft:
    """A document that is being indexed, with its language and content hash, and what its request waits for."""

    collection: str
    document: Document
    language: str
    digest: str
    wait: Wait

    def head(self, chunks: int) -> DocumentInfo:
        """Return the head of the document once it has so many chunks."""
        return DocumentInfo(self.document.id, self.digest, chunks, self.document.path, self.document.source)


@dataclass(frozen=True, slots=True)
class _ChunkedDocument:
    """A document cut into chunks, of which there may be hundreds of thousands, to be written ``size`` at a time."""

    draft: _Draft
    chunks: Sequence[Chunk]
    size: int

    def vectors(self, embedded: Mapping[tuple[str, str], Point]) -> list[ChunkVectors]:
        """Return the vectors of chunks that have the text and symbol of a point."""
        same = ((number, embedded.get((one.text, one.symbol))) for number, one in enumerate(self.chunks))
        return [
            ChunkVectors(self.draft.document.id, number, self.draft.digest, point.dense, point.token_vectors)
            for number, point in same
            if point is not None and point.dense is not None
        ]

    def payloads(self, first: int, end: int) -> list[ChunkPayload]:
        """Return the payloads of some chunks; made when they are written, not all at once."""
        document = self.draft.document
        pending = self.draft.digest if self.draft.wait is Wait.WORDS else ""
        return [
            ChunkPayload(
                id=document.id,
                chunk=number,
                text=chunk.text,
                path=document.path,
                start_line=chunk.start_line,
                end_line=chunk.end_line,
                symbol=chunk.symbol,
                language=chunk.language or self.draft.language,
                metadata=document.metadata,
                source=document.source,
                pending=pending,
            )
            for number, chunk in enumerate(self.chunks[first:end], first)
        ]


async def _digest(document: Document, language: str) -> str:
    """Return the document's content hash, yielding to the event loop after each piece."""
    digest = new_digest()
    for piece in hash_input(document.text, document.path, language, document.metadata):
        digest.update(piece)
        await asyncio.sleep(0)
    return digest.hexdigest()


def _check_metadata(size: int, chunks: int, characters: int) -> None:
    """Refuse metadata that would be stored too many times.

    Raises:
        Invalid: It would be (``metadata``).
    """
    most = max(METADATA_STORED_BYTES_MAX, METADATA_PER_CHARACTER_MAX * characters)
    if size * chunks > most:
        raise Invalid(
            f"the metadata of {size} bytes would be stored with each of the document's {chunks} chunks, and all of it"
            f" together may have {most} bytes; shorten the metadata or split the document",
            field="metadata",
        )


def _moved(point: Point, document: Document, head: DocumentInfo | None) -> Point:
    """Return a point of another document as one of this; its first one is sealed by ``head``, or not yet."""
    payload = msgspec.structs.replace(point.payload, id=document.id, source=document.source, hash="", chunks=0)
    if head is not None and payload.chunk == 0:
        payload = _sealed(payload, head)
    return dataclasses.replace(point, payload=payload)


def _sealed(payload: ChunkPayload, head: DocumentInfo) -> ChunkPayload:
    """Return the first chunk with its document's hash and count."""
    return msgspec.structs.replace(payload, hash=head.hash, chunks=head.chunks)
