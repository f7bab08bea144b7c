"""Index run: list, compare, send, remove. Its counts are right at any moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from penstock.cli.index_progress import IndexStats, ProgressDisplay, VanishedDocuments
from penstock.cli.indexed_documents import IndexedDocuments
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
#: Seconds between updates of the display while nothing happens.
REFRESH_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Options of an index run."""

    paths: Sequence[Path]
    collection: str
    force: bool = False
    prune: bool = False


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

    Attributes:
        stats: Counts, right at any moment, also after a cancellation.

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
        """Read the collection's listing."""
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
            if scope.known.mark_seen(one.id) and scope.known.mark_if_unchanged(
                one.id, hash_file(one, self._file_bytes_max)
            ):
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
            if scope.known.is_unchanged(one.id):
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
