"""Index run: list, compare, send, remove. Its counts are right at any moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.cli.index_progress import IndexStats, ProgressDisplay, VanishedDocuments
from penstock.cli.local_files import (
    IndexableFile,
    IndexRoot,
    encode_document,
    find_files,
    hash_file,
    is_below,
    is_below_any,
    project_of,
    resolve_roots,
)
from penstock.client import AsyncClient, IndexedDocument, Problem
from penstock.indexing.file_reader import FileChanged
from penstock.indexing.walk import SkipReason
from penstock.kernel.context import run_all
from penstock.kernel.errors import Expired, Invalid
from penstock.kernel.settings import Settings

#: Small requests keep the bar moving and the loss of an interruption small; two of them keep the models busy, more
#: only wait longer.
BATCH_BYTES_MAX: Final = 16_000
IN_FLIGHT_MAX: Final = 2
REMOVE_IDS_MAX: Final = 500
#: Room in a request for what stands around the documents.
ENVELOPE_BYTES: Final = 64
#: Files compared before the display is updated, and an interruption noticed.
COMPARE_BATCH_FILES: Final = 100
#: Unreadable files and directories remembered, so that what is listed below them is not removed; with more of them
#: nothing is removed at all.
UNREADABLE_MAX: Final = 1000
#: Of an id or a hash. Two ids of a million share one with a chance of 1 : 10⁷; then one of them is sent once too often,
#: or its removal is put off.
DIGEST_BYTES: Final = 8
_NO_HASH: Final = bytes(DIGEST_BYTES)
#: Seconds between updates of the display while nothing happens.
REFRESH_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Options of an index run."""

    paths: Sequence[Path]
    collection: str
    force: bool = False
    prune: bool = False


class IndexedDocuments:
    """The documents of a listing at a few bytes each, so that a million of them fit into a small process.

    Fill it with :meth:`add`, then :meth:`freeze` it, then query it.

    Bounds: 18 bytes for each document, and three times that during :meth:`freeze`.
    """

    def __init__(self) -> None:
        self._rows = bytearray()
        self._ids: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._hashes: NDArray[np.uint64] = self._ids
        self._seen: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._current: NDArray[np.bool_] = self._seen

    def add(self, id_: str, hash_: str) -> None:
        """Add a document. An empty hash marks one that was written incompletely."""
        self._rows += _digest(id_) + (_digest(hash_) if hash_ else _NO_HASH)

    def freeze(self) -> None:
        """Put the documents in order; none can be added afterwards."""
        table = np.frombuffer(bytes(self._rows), np.uint64).reshape(-1, 2)
        self._rows.clear()
        order = np.argsort(table[:, 0], kind="stable")
        self._ids, self._hashes = table[order, 0], table[order, 1]
        self._seen = np.zeros(len(order), np.bool_)
        self._current = np.zeros(len(order), np.bool_)

    def is_unchanged(self, id_: str, hash_file: Callable[[], str]) -> bool:
        """Note that a document's file exists, and return whether it is as the collection has it.

        Args:
            id_: The document's id.
            hash_file: Returns the file's hash; called only for one that is listed and was written whole.
        """
        row = self._row(id_)
        if row is None:
            return False
        self._seen[row] = True
        self._current[row] = bool(self._hashes[row]) and self._hashes[row] == _number(hash_file())
        return bool(self._current[row])

    def was_unchanged(self, id_: str) -> bool:
        """Return whether the document was found unchanged."""
        row = self._row(id_)
        return row is not None and bool(self._current[row])

    def has_vanished(self, id_: str) -> bool:
        """Return whether the document was listed and its file has not been seen."""
        row = self._row(id_)
        return row is not None and not self._seen[row]

    @property
    def unseen(self) -> int:
        """Documents whose file has not been seen."""
        return len(self._seen) - int(self._seen.sum())

    def _row(self, id_: str) -> int | None:
        wanted = _number(id_)
        row = int(np.searchsorted(self._ids, wanted))
        return row if row < len(self._ids) and self._ids[row] == wanted else None


def _digest(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _number(text: str) -> np.uint64:
    number: np.uint64 = np.frombuffer(_digest(text), np.uint64)[0]
    return number


@dataclass(slots=True)
class _IndexScope:
    """Scope of an index run: the named roots, the collection's documents, and what has vanished.

    Attributes:
        roots: The paths that the user named.
        known: The documents that the collection holds.
        unreadable: Files and directories that could not be read. Documents listed below them have not vanished.
        losses: The documents that have vanished from each directory that the user named.
    """

    roots: Sequence[IndexRoot]
    known: IndexedDocuments
    unreadable: list[Path] = field(default_factory=list)
    losses: list[VanishedDocuments] = field(default_factory=list)

    def note_file(self, id_: str) -> None:
        """Note that a file is there."""
        for loss in self.losses:
            loss.has_files = loss.has_files or is_below(id_, str(loss.directory))

    def count_document(self, id_: str) -> None:
        """Count a listed document."""
        around = [loss for loss in self.losses if is_below(id_, str(loss.directory))]
        vanished = bool(around) and self.may_remove(id_)
        for loss in around:
            loss.listed += 1
            loss.vanished += vanished

    def may_remove(self, id_: str) -> bool:
        """Return whether a listed document has vanished from below what the user named."""
        return (
            self.known.has_vanished(id_)
            and is_below_any(id_, [root.path for root in self.roots])
            and not is_below_any(id_, self.unreadable)
        )


class IndexRun:
    """An index run.

    The files are walked twice, once to compare and count, once to send what there is to send, so that no list of them
    is kept.

    Bounds: what :class:`IndexedDocuments` takes for each document of the collection, ``IN_FLIGHT_MAX`` requests,
        ``UNREADABLE_MAX`` paths.
    """

    def __init__(
        self, api: AsyncClient, settings: Settings, order: IndexOptions, stats: IndexStats, display: ProgressDisplay
    ) -> None:
        self.stats = stats
        self._api = api
        self._order = order
        self._display = display
        self._file_bytes_max = settings.index.max_file
        self._body_bytes_max = settings.http.max_body - ENVELOPE_BYTES
        self._documents_max = min(100, settings.http.max_batch)

    async def run(self) -> None:
        """Bring the collection up to date with the files.

        Raises:
            PenstockError: The run cannot go on; what was done stays.

        Cancellation:
            Finished documents stay; an interrupted one is incomplete and is sent again by the next run.
        """
        # Before anything is sent: a wrong path must not leave an empty collection behind.
        resolve_roots(self._order.paths, (), force=self._order.force)
        self._display.show_stage("Reading the collection's listing")
        await self._api.create_collection(self._order.collection)
        scope = await self._listed()
        started_s = time.monotonic()
        try:
            await self._compare(scope)
            if self.stats.files_total:
                await self._send(scope)
            await self._remove(scope)
        finally:
            self.stats.took_s = time.monotonic() - started_s

    async def _listed(self) -> _IndexScope:
        known = IndexedDocuments()
        projects: set[str] = set()
        async for one in self._api.iter_documents(self._order.collection):
            known.add(one.id, one.hash)
            if (project := project_of(one.id, one.path)) is not None:
                projects.add(project)
        known.freeze()
        paths = [Path(project) for project in sorted(projects)]
        roots = await asyncio.to_thread(resolve_roots, self._order.paths, paths, force=self._order.force)
        losses = [VanishedDocuments(root.path) for root in roots if root.path.is_dir()]
        return _IndexScope(roots, known, losses=losses)

    # --- Compare

    async def _compare(self, scope: _IndexScope) -> None:
        """Find out what is unchanged, and how much there is to send."""
        self._display.show_stage("Looking for files")
        files, compared = 0, self._compared(scope)
        while count := await asyncio.to_thread(lambda: sum(1 for _ in islice(compared, COMPARE_BATCH_FILES))):
            files += count
            self._display.show_stage(f"Comparing: {files} files, {self.stats.unchanged} unchanged")
        self._display.update(self.stats)

    def _compared(self, scope: _IndexScope) -> Iterator[None]:
        """Compare file by file; runs in a thread, one slice at a time."""

        def skip(path: Path, reason: str) -> None:
            self.stats.skipped[reason] += 1
            if reason == SkipReason.UNREADABLE and len(scope.unreadable) <= UNREADABLE_MAX:
                scope.unreadable.append(path)

        for one in find_files(scope.roots, self._file_bytes_max, skip):
            scope.note_file(one.id)
            if scope.known.is_unchanged(one.id, partial(hash_file, one, self._file_bytes_max)):
                self.stats.unchanged += 1
            else:
                self.stats.files_total += 1
                self.stats.bytes_total += one.size
            yield

    # --- Send

    async def _send(self, scope: _IndexScope) -> None:
        source = batches(self._encoded(scope), self._documents_max, BATCH_BYTES_MAX)
        turn = asyncio.Lock()

        async def courier() -> None:
            while True:
                async with turn:
                    batch = await asyncio.to_thread(next, source, None)
                if batch is None:
                    return
                await self._deliver(batch)

        beat = asyncio.create_task(self._beat())
        try:
            await run_all([courier() for _ in range(IN_FLIGHT_MAX)])
        finally:
            beat.cancel()

    async def _beat(self) -> None:
        """Update the display now and then, also while a large file takes its time."""
        while True:
            await asyncio.sleep(REFRESH_S)
            self._display.update(self.stats)

    def _encoded(self, scope: _IndexScope) -> Iterator[tuple[IndexableFile, bytes]]:
        """Yield encoded documents; runs in a thread, one at a time."""
        for one in find_files(scope.roots, self._file_bytes_max):
            if scope.known.was_unchanged(one.id):
                continue
            try:
                yield one, encode_document(one, self._file_bytes_max, self._body_bytes_max)
            except (FileChanged, Invalid) as error:
                self._count(one, None, Problem(code=error.code, detail=error.detail))

    async def _deliver(self, batch: Sequence[tuple[IndexableFile, bytes]]) -> None:
        size = sum(one.size for one, _ in batch)
        outcomes: dict[str, IndexedDocument] = {}
        problem = Problem(code="no_outcome")
        self.stats.add_in_flight(len(batch), size)
        try:
            documents = [msgspec.Raw(document) for _, document in batch]
            answer = await self._api.index_documents(documents, self._order.collection)
            outcomes = {outcome.id: outcome for outcome in answer.documents}
        except (Expired, Invalid) as error:
            if isinstance(error, Invalid) and error.code != "body_too_large":
                raise
            problem = Problem(code=error.code, detail=error.detail)
        finally:
            self.stats.add_in_flight(-len(batch), -size)
        for one, _ in batch:
            self._count(one, outcomes.get(one.id), problem)
        self._display.update(self.stats)

    def _count(self, one: IndexableFile, outcome: IndexedDocument | None, problem: Problem) -> None:
        """Count a file as done; ``problem`` is what to say of one that has no outcome."""
        self.stats.files_done += 1
        self.stats.bytes_done += one.size
        if outcome is not None and outcome.status == "indexed":
            self.stats.indexed += 1
            self.stats.chunks += outcome.chunks
        elif outcome is not None and outcome.status == "unchanged":
            self.stats.unchanged += 1
        else:
            problem = problem if outcome is None else outcome.error or Problem()
            self.stats.add_failure(one.id, problem.code or "failed", problem.message)

    # --- Remove

    async def _remove(self, scope: _IndexScope) -> None:
        """Remove documents whose file has vanished or is not indexed any more; the listing is read again for them.

        A directory from which too much has vanished keeps what the collection has of it, unless the user says
        otherwise.
        """
        if not scope.known.unseen or len(scope.unreadable) > UNREADABLE_MAX:
            return
        self._display.show_stage("Removing vanished documents")
        if not self._order.prune:
            async for one in self._api.iter_documents(self._order.collection):
                scope.count_document(one.id)
            self.stats.kept_directories = [loss for loss in scope.losses if loss.looks_unmounted]
        kept = [loss.directory for loss in self.stats.kept_directories]
        waiting: list[str] = []
        async for one in self._api.iter_documents(self._order.collection):
            if scope.may_remove(one.id) and not is_below_any(one.id, kept):
                waiting.append(one.id)
            if len(waiting) == REMOVE_IDS_MAX:
                await self._drop(waiting)
                waiting = []
        await self._drop(waiting)

    async def _drop(self, ids: Sequence[str]) -> None:
        if ids:
            self.stats.removed += await self._api.delete_documents(self._order.collection, ids=ids)


def batches(
    items: Iterable[tuple[IndexableFile, bytes]], count_max: int, bytes_max: int
) -> Iterator[list[tuple[IndexableFile, bytes]]]:
    """Group encoded documents for one request each.

    Bounds:
        At most ``count_max`` documents and ``bytes_max`` bytes; a larger document goes alone.
    """
    batch: list[tuple[IndexableFile, bytes]] = []
    size = 0
    for item in items:
        if batch and (len(batch) >= count_max or size + len(item[1]) > bytes_max):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item[1])
    if batch:
        yield batch
