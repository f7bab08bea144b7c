"""Embedding backfill: gives chunks that were written with their words only the dense vectors that they lack.

That a chunk lacks them is part of its point, so a crash loses nothing: what is left is listed again at the next start.
Vectors are written only to the text of which they were made.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from penstock.indexing.backlog import Backlog, ChunkKey
from penstock.indexing.model_inputs import embed_chunks
from penstock.kernel.context import Clock, Context, enforce_deadline, point_id
from penstock.kernel.errors import Expired, Invalid, PenstockError
from penstock.kernel.settings import Settings
from penstock.models.contract import Embedder
from penstock.stores.commands import AddVectors, DescribeCollection, FetchPoints, ListCollections, ListPending
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import STATE_DAMAGED, ChunkPayload, ChunkVectors, Match, PendingChunk

log = logging.getLogger(__name__)

#: Chunks embedded and written in one step. Large steps delay what a search has just found.
STEP_CHUNKS: Final = 32

#: Chunks listed at once.
PAGE_CHUNKS: Final = 512

#: While documents are written with their words only, their vectors wait until it has been quiet for so long, but one
#: step is made in each ``WRITERS_SHARE_S``.
QUIET_S: Final = 0.25
WRITERS_SHARE_S: Final = 5.0

#: Pause after a failure; doubled with each further one.
PAUSE_S: Final = 0.5
PAUSE_S_MAX: Final = 30.0

#: How often it is looked for chunks that another server has written, or left behind.
SHARED_PERIOD_S: Final = 30.0

#: How long it is remembered how many chunks are pending: while there are some, and where others write while there are
#: none.
PENDING_LIFETIME_S: Final = 1.0
SHARED_LIFETIME_S: Final = 10.0

#: Collections of which that is remembered; beyond that number all are asked for again.
COVERAGES_MAX: Final = 10_000

#: Coverage while any chunk is pending.
COVERAGE_MAX: Final = 0.999

#: Codes of errors that say that a collection is gone, or of another model.
_NOT_OURS: Final = frozenset({"collection_not_found", "collection_conflict"})

#: Hits of a search that are embedded on the spot, at most, and the share of its time that this may take.
ON_THE_SPOT_CHUNKS: Final = 8
ON_THE_SPOT_SHARE: Final = 0.4

#: Chunks that the model has refused and that no search asks it for again.
REFUSED_MAX: Final = 10_000

#: Seconds that a chunk takes, until it is known; and the weight of the newest measurement.
CHUNK_S: Final = 0.03
CHUNK_S_WEIGHT: Final = 0.2


@dataclass(frozen=True, slots=True)
class _Coverage:
    """Chunks of a collection and those of them that are pending, as they were once told."""

    chunks: int
    pending: int
    until_s: float


class EmbeddingBackfill:
    """Backfill of a store's dense vectors.

    Args:
        store: Holds the points.
        embedder: Makes the vectors.
        settings: How many steps run at once, and how long each may take.
        clock: The loop's clock.
        model: Name of the dense model. Collections of another one are left alone.
        shared: Whether other servers write to the store too.

    Attributes:
        whole: Collections of which every chunk is known to have its vectors; none where other servers write too.

    Bounds: a backlog for each collection with pending chunks; ``index.workers`` steps at once; ``REFUSED_MAX`` chunks
        that the model refuses.
    """

    def __init__(
        self,
        store: VectorStore,
        embedder: Embedder,
        settings: Settings,
        clock: Clock,
        *,
        model: str,
        shared: bool,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._workers = settings.index.workers
        self._step_limit_s = settings.timeouts.index_file
        self._clock = clock
        self._model = model
        self._shared = shared
        self.whole: set[str] = set()
        self._backlogs: dict[str, Backlog] = {}
        self._coverages: dict[str, _Coverage] = {}
        self._listing: set[str] = set()
        self._refused: set[tuple[str, str, int]] = set()
        self._changes = 0
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._written_s = self._stepped_s = -math.inf
        self._writers = 0
        self._chunk_s = CHUNK_S
        self._on_the_spot = False

    def __repr__(self) -> str:
        return f"<EmbeddingBackfill of {self.pending} chunks>"

    @property
    def pending(self) -> int:
        """Chunks that are known to wait."""
        return sum(map(len, self._backlogs.values()))

    def start(self) -> None:
        """Begin with what is left from before; call it inside the running loop."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._look(), name="backfill")]
        self._tasks += [loop.create_task(self._run(), name="backfill") for _ in range(self._workers)]

    async def close(self) -> None:
        """Cancel what runs. A step is either written or not, and is made again after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- What has happened

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the work back while documents are written with their words only."""
        self._writers += 1
        try:
            yield
        finally:
            self._writers -= 1
            self._written_s = self._clock.now()

    def note(self, collection: str, chunks: Iterable[PendingChunk]) -> None:
        """Note chunks that were written with their words only."""
        chunks = list(chunks)
        self._refused.difference_update((collection, one.document_id, one.chunk) for one in chunks)
        self._backlogs.setdefault(collection, Backlog(listed=True)).add(chunks)
        self._expire(collection)
        self._work.set()

    def forget(self, collection: str) -> None:
        """Forget what is known of a collection that was removed or replaced, and look at it again."""
        self._expire(collection)
        # Where others write too, it is looked at in any case.
        if self._tasks and not self._shared:
            self._backlogs[collection] = Backlog()
            self._work.set()

    # --- For searches

    async def coverage(self, collection: str, ctx: Context) -> float:
        """Return the share of a collection's chunks that have dense vectors; 1 where that cannot be told.

        It is as old as ``PENDING_LIFETIME_S`` at most.
        """
        with suppress(PenstockError):
            known = await self._counted(collection, ctx)
            if known.pending:
                return min(round(1 - known.pending / known.chunks, 3), COVERAGE_MAX)
        return 1.0

    async def complete_best(self, collection: str, hits: Sequence[ChunkPayload], ctx: Context) -> bool:
        """Embed the best pending hits of a search on the spot, as far as its time allows; return whether any was.

        One search at a time has this done, so that searches do not wait for each other's. The other hits come next.
        """
        refused = self._refused
        keys = [(one.id, one.chunk) for one in hits if one.pending and (collection, one.id, one.chunk) not in refused]
        now_s = self._clock.now()
        left_s = ON_THE_SPOT_SHARE * ctx.deadline.remaining_s(now_s)
        best = keys[: min(ON_THE_SPOT_CHUNKS, int(min(left_s / self._chunk_s, ON_THE_SPOT_CHUNKS)))]
        if self._on_the_spot or not best:
            self._prefer(collection, keys)
            return False
        self._on_the_spot = True
        try:
            self._prefer(collection, keys[len(best) :])
            # The search has an answer already: a model that hangs must not cost it that one.
            limited = ctx.within(left_s, "backfill", now_s)
            async with enforce_deadline(limited.deadline):
                await self.complete(collection, best, limited)
        except PenstockError as error:
            log.debug("hits of %s were not embedded on the spot: %s", collection, error.detail)
            return False
        finally:
            self._on_the_spot = False
        return True

    # --- For writers

    async def complete_document(self, collection: str, document_id: str, ctx: Context) -> None:
        """Embed those chunks of a document that lack vectors; nothing is asked where no chunk of the collection does.

        Raises:
            PenstockError: The model or the store does not answer.
        """
        if not (await self._counted(collection, ctx)).pending:
            return
        conditions, after = (Match("id", [document_id]),), None
        while True:
            page = await self._store.run(ListPending(collection, conditions, after, STEP_CHUNKS), ctx)
            await self.complete(collection, [(one.document_id, one.chunk) for one in page.chunks], ctx)
            after = page.next
            if after is None:
                return

    async def complete(self, collection: str, keys: Sequence[ChunkKey], ctx: Context) -> None:
        """Embed those of the chunks that lack vectors, and write these.

        Raises:
            PenstockError: The model or the store does not answer.

        Cancellation: The vectors may or may not have been written.
        """
        places = [point_id(*key) for key in keys]
        points = await self._store.run(FetchPoints(collection, places), ctx) if keys else []
        chunks = [point.payload for point in points if point.dense is None]
        if not chunks:
            return
        began_s = self._clock.now()
        embedded = await embed_chunks(self._embedder, chunks, ctx)
        self._chunk_s += CHUNK_S_WEIGHT * ((self._clock.now() - began_s) / len(chunks) - self._chunk_s)
        late = embedded.late if embedded.late is not None else [None] * len(chunks)
        made = zip(chunks, embedded.dense, late, strict=True)
        vectors = [ChunkVectors(one.id, one.chunk, one.pending, dense, tokens) for one, dense, tokens in made]
        await self._store.run(AddVectors(collection, vectors), ctx)
        if not self._backlogs.get(collection):
            # These may have been the last.
            self._expire(collection)

    # --- The work

    async def _look(self) -> None:
        """Look for collections with pending chunks: at the start and, where others write too, again and again."""
        pause_s = PAUSE_S
        while True:
            try:
                for info in await self._store.run(ListCollections(), self._context()):
                    # One that was not counted since a crash may have some.
                    uncounted = not info.chunks
                    if info.model == self._model and info.state != STATE_DAMAGED and (info.pending or uncounted):
                        self._backlogs.setdefault(info.name, Backlog())
                self._work.set()
            except PenstockError as error:
                log.debug("collections were not looked at for pending chunks: %s", error.detail)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
                continue
            if not self._shared:
                return
            await asyncio.sleep(SHARED_PERIOD_S)

    async def _run(self) -> None:
        """Make step after step."""
        pause_s = PAUSE_S
        while True:
            await self._until_quiet()
            self._work.clear()
            step = await self._next_step()
            if step is None:
                await self._work.wait()
                continue
            # There may be more, for others that have not seen it.
            self._work.set()
            try:
                done = await self._step(*step)
            except Exception:
                # The root of a task: a bug over one step must not end the others' vectors.
                log.exception("%d chunks of %s get no vectors before the next start", len(step[1]), step[0])
                done = False
            if done:
                pause_s = PAUSE_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def _step(self, collection: str, keys: Sequence[ChunkKey]) -> bool:
        """Make a step; return whether the model and the store answer."""
        try:
            await self.complete(collection, keys, self._context())
        except PenstockError as error:
            if error.retryable or isinstance(error, Expired):
                log.debug("%d chunks of %s will be embedded later: %s", len(keys), collection, error.detail)
                self._prefer(collection, keys)
                return False
            if error.code in _NOT_OURS:
                self._backlogs.pop(collection, None)
                return True
            if len(keys) == 1:
                log.warning("chunk %d of %s in %s gets no vectors: %s", keys[0][1], keys[0][0], collection, error)
                if len(self._refused) < REFUSED_MAX:
                    self._refused.add((collection, *keys[0]))
                return True
            # One text that the model does not take must not keep others from their vectors.
            for key in keys:
                if not await self._step(collection, [key]):
                    self._prefer(collection, keys)
                    return False
        return True

    async def _until_quiet(self) -> None:
        """Wait while documents are written, but not for long: words come first, and vectors come."""
        while True:
            now_s = self._clock.now()
            quiet_s = QUIET_S if self._writers else self._written_s + QUIET_S - now_s
            wait_s = min(quiet_s, self._stepped_s + WRITERS_SHARE_S - now_s)
            if wait_s <= 0:
                self._stepped_s = now_s
                return
            await asyncio.sleep(wait_s)

    async def _next_step(self) -> tuple[str, list[ChunkKey]] | None:
        """Take the next chunks of a collection, the one that has waited longest; ``None`` where nothing waits."""
        for collection in list(self._backlogs):
            backlog = self._backlogs[collection]
            if not backlog and not backlog.listed and collection not in self._listing:
                await self._list(collection)
                backlog = self._backlogs.get(collection, backlog)
            if keys := backlog.take(STEP_CHUNKS):
                # The next collection comes next.
                self._backlogs[collection] = self._backlogs.pop(collection, backlog)
                return collection, keys
            if backlog.listed and collection not in self._listing:
                self._backlogs.pop(collection, None)
        return None

    async def _list(self, collection: str) -> None:
        """List the pending chunks of a collection into its backlog."""
        backlog = self._backlogs[collection] = Backlog(listed=True)
        self._listing.add(collection)
        # Several servers begin at several places, so that they seldom do each other's work.
        first = str(uuid.uuid4()) if self._shared else None
        try:
            for begin, end in ((first, None), (None, first))[: 2 if first else 1]:
                after = begin
                while backlog.listed:
                    page = await self._store.run(ListPending(collection, (), after, PAGE_CHUNKS), self._context())
                    backlog.add(page.chunks)
                    after = page.next
                    if after is None or (end is not None and after >= end):
                        break
        except PenstockError as error:
            log.debug("pending chunks of %s were not listed: %s", collection, error.detail)
            backlog.listed = isinstance(error, Invalid)
            if not backlog.listed:
                await asyncio.sleep(PAUSE_S)
        finally:
            self._listing.discard(collection)

    def _prefer(self, collection: str, keys: Sequence[ChunkKey]) -> None:
        """Let chunks come next, where this process does the work."""
        if keys and self._tasks:
            self._backlogs.setdefault(collection, Backlog(listed=True)).prefer(keys)
            self._work.set()

    async def _counted(self, collection: str, ctx: Context) -> _Coverage:
        known, now_s = self._coverages.get(collection), self._clock.now()
        if known is not None and now_s < known.until_s:
            return known
        changes = self._changes
        info = await self._store.run(DescribeCollection(collection), ctx)
        lifetime_s = PENDING_LIFETIME_S if info.pending else SHARED_LIFETIME_S if self._shared else math.inf
        if len(self._coverages) >= COVERAGES_MAX:
            self._coverages.clear()
            self.whole.clear()
        known = _Coverage(info.chunks, info.pending, now_s + lifetime_s)
        # What was asked before a change must not be remembered after it.
        if changes == self._changes:
            self._coverages[collection] = known
            if known.until_s == math.inf:
                self.whole.add(collection)
        return known

    def _expire(self, collection: str) -> None:
        self._coverages.pop(collection, None)
        self.whole.discard(collection)
        self._changes += 1

    def _context(self) -> Context:
        """Return the context of a step: it yields to whatever somebody waits for."""
        return Context.background("backfill").within(self._step_limit_s, "index", self._clock.now())
