"""Index run: list, compare, send, remove. Its counts are right at any moment."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from penstock.client import AsyncClient, IndexedDocument, Problem, RootDirectory
from penstock.indexing.encoding import UnreadableText
from penstock.indexing.exclusion import SkipReason
from penstock.indexing.file_reader import FileChanged
from penstock.indexing.git_repository import open_repository
from penstock.indexing.sources.index_scope import UNREADABLE_MAX, IndexScope
from penstock.indexing.sources.index_sources import (
    KnownSources,
    check_registered,
    find_duplicate,
    find_renamed,
    included,
    resolve_sources,
)
from penstock.indexing.sources.index_stats import IndexStats, RunDisplay, SourceStats, VanishedDocuments
from penstock.indexing.sources.indexed_documents import IndexedDocuments
from penstock.indexing.sources.local_files import (
    IndexableFile,
    IndexRoot,
    encode_document,
    find_files,
    is_below_any,
    project_of,
    resolve_path,
)
from penstock.indexing.sources.request_batches import BATCH_BYTES_MAX, batches
from penstock.indexing.turns import PacedTurns
from penstock.kernel.context import run_all
from penstock.kernel.errors import Expired, Invalid, PenstockError, Rejected, Unavailable
from penstock.kernel.settings import Settings
from penstock.policies.pace import Pace, PaceSettings
from penstock.stores.sources import document_id

#: Requests that are out at once, fewer while the server refuses some.
IN_FLIGHT_MAX: Final = 3
#: Seconds for which a server that is busy may take nothing; then the run ends.
PATIENCE_S: Final = 300.0
#: Pause after documents were refused, doubled with each further refusal, and the longest.
PAUSE_S: Final = 0.5
PAUSE_S_MAX: Final = 15.0
#: How often a document is sent at most, whatever else the server takes.
SENDS_MAX: Final = 50
REMOVE_IDS_MAX: Final = 500
#: Room in a request for what stands around the documents.
ENVELOPE_BYTES: Final = 64
#: Files compared before the display is updated, and an interruption noticed.
COMPARE_BATCH_FILES: Final = 100
#: Seconds between updates of the display while nothing happens.
REFRESH_S: Final = 1.0
#: Seconds between looks at how many vectors are made, and without one more after which they are not waited for.
POLL_S: Final = 0.25
STALL_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Options of an index run.

    Attributes:
        paths: What is indexed.
        collection: Where to.
        force: Whether a path may be very broad.
        prune: Whether most of a directory's documents may be removed.
        source: Name of the source; empty for the one that the paths have.
        include: Patterns of what is not left out.
        changed: Files and directories that may have changed; ``None`` for any. Others are as they were, or new.
        vectors: Whether the vectors are waited for.
        worktree: Whether the paths are one of several trees of their repository.
        registered_only: Whether the paths must be roots of registered sources, without links.
    """

    paths: Sequence[Path]
    collection: str
    force: bool = False
    prune: bool = False
    source: str = ""
    include: Sequence[str] = ()
    changed: frozenset[str] | None = None
    vectors: bool = True
    worktree: bool = False
    registered_only: bool = False


class IndexRun:
    """An index run.

    The files are walked twice, once to compare and count, once to send what there is to send, so that no list of them
    is kept. Documents are sent to be found by words first; the server then makes their vectors. What a busy server
    refuses is sent again, more slowly.

    Bounds: what :class:`IndexedDocuments` takes for each document of the collection, ``IN_FLIGHT_MAX`` requests,
        ``UNREADABLE_MAX`` paths.
    """

    def __init__(
        self, api: AsyncClient, settings: Settings, order: IndexOptions, stats: IndexStats, display: RunDisplay
    ) -> None:
        self.stats = stats
        self._impatient_api = api
        self._api = api.with_options(patience_s=PATIENCE_S, on_wait=self._on_wait)
        pace = PaceSettings(IN_FLIGHT_MAX, PAUSE_S, PAUSE_S_MAX, PATIENCE_S)
        self._turns = PacedTurns(Pace(pace, window=IN_FLIGHT_MAX), time.monotonic)
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
        for path in self._order.paths:
            resolve_path(path, force=self._order.force)
        self._display.show_stage("Reading the collection's listing")
        await self._api.create_collection(self._order.collection)
        scope = await self._listed()
        started_s = time.monotonic()
        try:
            await self._compare(scope)
            await self._register(scope)
            if self.stats.files_total:
                await self._send(scope)
            await self._remove(scope)
            await self._record(scope)
            self.stats.searchable_s = time.monotonic() - started_s
            if self._order.vectors:
                await self._await_vectors()
        finally:
            self.stats.took_s = time.monotonic() - started_s

    async def _await_vectors(self) -> None:
        """Wait until every chunk of the collection has its vectors, or the server makes none any more."""
        moved_s = time.monotonic()
        while (pending := (await self._api.get_collection(self._order.collection)).pending) > 0:
            if pending != self.stats.chunks_pending:
                moved_s = time.monotonic()
            elif time.monotonic() > moved_s + STALL_S:
                self.stats.notes.append(
                    f"{pending} chunks are found by words only: the server has made no vector for {STALL_S:.0f} s;"
                    " `penstock status` says what is wrong, and it goes on by itself"
                )
                return
            self.stats.chunks_pending, self.stats.waiting_for = pending, ""
            self._display.update(self.stats)
            await asyncio.sleep(POLL_S)
        self.stats.chunks_pending = 0

    async def _listed(self) -> IndexScope:
        documents = IndexedDocuments()
        projects: set[str] = set()
        async for one in self._api.iter_documents(self._order.collection):
            # One that is no source's may have any id, also one that a source's document will have.
            if one.source:
                documents.add(one.id, one.hash)
            elif (project := project_of(one.id, one.path)) is not None:
                documents.add(one.id, one.hash)
                projects.add(project)
        documents.freeze()
        order = self._order
        by_name = {source.name: source for source in await self._api.list_sources(order.collection)}
        known = KnownSources(by_name=by_name, projects=[Path(one) for one in sorted(projects)])
        resolve = partial(resolve_sources, name=order.source, worktree=order.worktree, force=order.force)
        roots = await asyncio.to_thread(resolve, order.paths, known)
        if order.registered_only:
            check_registered(roots, order.paths, known)
        elif not order.source and not order.worktree:
            renamed = partial(find_renamed, known=known, documents=documents, file_bytes_max=self._file_bytes_max)
            roots = [await asyncio.to_thread(renamed, root) for root in roots]
        roots = [replace(root, include=known.include_of(root.source)) for root in roots]
        for root in roots:
            self.stats.sources.setdefault(root.source, SourceStats(str(root.project)))
        losses = [VanishedDocuments(root.path) for root in roots if root.path.is_dir()]
        return IndexScope(roots, documents, known, losses=losses, changed=order.changed)

    # --- Sources

    async def _register(self, scope: IndexScope) -> None:
        """Register the sources that are new here, before anything of them is sent.

        Raises:
            Invalid: The tree is another one than that of its name, whose directory is gone (``source_conflict``).
        """
        moved = [root for root in scope.roots if scope.sources.has_moved(root)]
        if moved and not self._order.prune:
            await self._check_moved(scope, moved)
        # A directory around sources, with nothing else in it, is none itself.
        known, every = scope.sources.by_name, self.stats.sources
        self.stats.sources = {name: counts for name, counts in every.items() if counts.files or name in known}
        for name, counts in self.stats.sources.items():
            before = scope.sources.root_of(name)
            if before not in ("", counts.root):
                self.stats.notes.append(f"the source {name} was at {before} and is at {counts.root} now")
            root = RootDirectory(scope.sources.host, counts.root)
            include = await asyncio.to_thread(included, name, scope.roots, self._order.include)
            await self._api.put_source(name, self._order.collection, root=root, include=include)
        self.stats.notes += scope.sources.hints(scope.roots)

    async def _check_moved(self, scope: IndexScope, moved: Sequence[IndexRoot]) -> None:
        """Refuse trees of which most documents are not there: they only have the name of a source that has gone."""
        listed: Counter[str] = Counter()
        vanished: Counter[str] = Counter()
        async for one in self._api.iter_documents(self._order.collection):
            listed[one.source] += 1
            vanished[one.source] += scope.known.has_vanished(one.id)
        for root in moved:
            if 2 * vanished[root.source] > listed[root.source]:
                before = scope.sources.root_of(root.source)
                raise Invalid(
                    f"the source {root.source!r} was the tree at {before}, which is gone, and {root.project} has"
                    f" {listed[root.source] - vanished[root.source]} of its {listed[root.source]} documents: it seems"
                    " to be another tree; give it another name with --source, or say --prune if it is the same",
                    field="source",
                    code="source_conflict",
                )

    async def _record(self, scope: IndexScope) -> None:
        """Record the completed run with each source; forget one whose tree has another name now."""
        for name, counts in self.stats.sources.items():
            repository = await asyncio.to_thread(open_repository, Path(counts.root))
            commit = repository.commit if repository is not None else ""
            await self._api.put_source(name, self._order.collection, commit=commit, run=counts.summary())
        whole = {str(root.project): root.source for root in scope.roots if root.path == root.project}
        for name, directory in scope.sources.roots():
            successor = whole.get(str(directory))
            if successor is not None and name not in self.stats.sources:
                self.stats.removed += await self._api.delete_source(name, self._order.collection)
                self.stats.notes.append(f"the source {name} was the same tree as {successor}, and is forgotten")

    # --- Compare

    async def _compare(self, scope: IndexScope) -> None:
        """Find out what is unchanged, and how much there is to send."""
        self._display.show_stage("Looking for files")
        self.stats.waiting_for = ""
        files, compared = 0, self._compared(scope)
        while count := await asyncio.to_thread(lambda: sum(1 for _ in islice(compared, COMPARE_BATCH_FILES))):
            files += count
            self._display.show_stage(f"Comparing: {files} files, {self.stats.unchanged} unchanged")
        self._display.update(self.stats)

    def _compared(self, scope: IndexScope) -> Iterator[None]:
        """Compare file by file; runs in a thread, one slice at a time."""

        def skip(path: Path, reason: str) -> None:
            self.stats.skipped[reason] += 1
            scope.note_skipped(path, reason)

        for one in find_files(scope.roots, self._file_bytes_max, skip, self._order.include):
            scope.note_file(one.file)
            self.stats.sources[one.source].files += 1
            if scope.is_unchanged(one, self._file_bytes_max):
                self.stats.unchanged += 1
                self.stats.sources[one.source].unchanged += 1
            else:
                self.stats.files_total += 1
                self.stats.bytes_total += one.size
            yield

    # --- Send

    async def _send(self, scope: IndexScope) -> None:
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
            with suppress(Expired, Rejected, Unavailable):
                self.stats.chunks_pending = (await self._impatient_api.get_collection(self._order.collection)).pending
            self._display.update(self.stats)

    def _encoded(self, scope: IndexScope) -> Iterator[tuple[IndexableFile, bytes]]:
        """Yield encoded documents; runs in a thread, one at a time."""
        for one in find_files(scope.roots, self._file_bytes_max, include=self._order.include):
            # A source that had no file when it was compared has not been registered.
            if scope.was_unchanged(one) or one.source not in self.stats.sources:
                continue
            try:
                yield one, self._encode(one, scope)
            except UnreadableText as error:
                scope.known.forget_file(one.id)
                scope.known.forget_file(one.file)
                self._skip(one, error.reason)
            except (FileChanged, Invalid) as error:
                self._count(one, None, Problem(code=error.code, detail=error.detail))

    async def _deliver(self, batch: Sequence[tuple[IndexableFile, bytes]]) -> None:
        """Send a batch, and again what was refused of it, until each file has its outcome."""
        for _ in range(SENDS_MAX - 1):
            async with self._turns.turn():
                batch = await self._send_once(batch)
            if not batch:
                return
        async with self._turns.turn():
            await self._send_once(batch, last=True)

    async def _send_once(
        self, batch: Sequence[tuple[IndexableFile, bytes]], *, last: bool = False
    ) -> list[tuple[IndexableFile, bytes]]:
        """Send a batch, count what has an outcome, and return what was refused for now, nothing at the last time.

        Raises:
            Rejected: The server has taken nothing for ``PATIENCE_S``.
        """
        size = sum(one.size for one, _ in batch)
        outcomes: dict[str, IndexedDocument] = {}
        problem = Problem(code="no_outcome")
        self.stats.add_in_flight(len(batch), size)
        try:
            documents = [msgspec.Raw(document) for _, document in batch]
            answer = await self._api.index_documents(documents, self._order.collection, wait="words")
            outcomes = {outcome.id: outcome for outcome in answer.documents}
        except (Expired, Invalid) as error:
            if isinstance(error, Invalid) and error.code != "body_too_large":
                raise
            problem = Problem(code=error.code, detail=error.detail)
        finally:
            self.stats.add_in_flight(-len(batch), -size)
        refused: list[tuple[IndexableFile, bytes]] = []
        for one, document in batch:
            outcome = outcomes.get(one.id)
            if outcome is not None and outcome.error is not None and outcome.error.retryable and not last:
                refused.append((one, document))
                self.stats.waiting_for = outcome.error.message
            else:
                self._count(one, outcome, problem)
        self._take_pace(len(batch) - len(refused), len(refused))
        self._display.update(self.stats)
        return refused

    def _take_pace(self, taken: int, refused: int) -> None:
        """Send more slowly after refusals, and faster without any."""
        now_s = time.monotonic()
        if taken:
            self._turns.pace.on_taken(now_s, whole=not refused)
        if not refused:
            self.stats.waiting_for = ""
            return
        self.stats.refused += refused
        if not self._turns.pace.on_refused(0.0, now_s):
            raise Rejected(
                f"the server is busy and has taken nothing for {PATIENCE_S:.0f} s: {self.stats.waiting_for}; what is"
                " indexed stays, and the same command goes on where this one stopped"
            )

    def _on_wait(self, error: PenstockError, _wait_s: float) -> None:
        """Show that the client waits until it may repeat a call."""
        self.stats.waiting_for = error.detail
        self._display.show_stage(f"Waiting: {error.detail}")

    def _encode(self, one: IndexableFile, scope: IndexScope) -> bytes:
        def note_encoding(encoding: str) -> None:
            self.stats.encodings[encoding] += 1

        limits, legacy = (self._file_bytes_max, self._body_bytes_max), scope.known.holds(one.file)
        duplicate = partial(find_duplicate, one, scope.sources, scope.known)
        return encode_document(one, *limits, note_encoding, replaces_legacy=legacy, find_duplicate=duplicate)

    def _skip(self, one: IndexableFile, reason: SkipReason) -> None:
        """Count a file that turned out to have no text when it was read."""
        self.stats.files_done += 1
        self.stats.bytes_done += one.size
        self.stats.skipped[str(reason)] += 1

    def _count(self, one: IndexableFile, outcome: IndexedDocument | None, problem: Problem) -> None:
        """Count a file as done; ``problem`` is what to say of one that has no outcome."""
        self.stats.files_done += 1
        self.stats.bytes_done += one.size
        counts = self.stats.sources[one.source]
        if outcome is not None and outcome.status in ("indexed", "searchable"):
            self.stats.indexed += 1
            counts.indexed += 1
            self.stats.chunks += outcome.chunks
            if outcome.same_as:
                self.stats.shared[outcome.same_as.removesuffix(document_id("", one.path))] += 1
        elif outcome is not None and outcome.status == "unchanged":
            self.stats.unchanged += 1
            counts.unchanged += 1
        else:
            problem = problem if outcome is None else outcome.error or Problem()
            self.stats.add_failure(one.file, problem.code or "failed", problem.message)
            counts.add_failure(one.path, problem.code or "failed")

    # --- Remove

    async def _remove(self, scope: IndexScope) -> None:
        """Remove documents whose file has vanished or is not indexed any more; the listing is read again for them.

        A directory from which too much has vanished keeps what the collection has of it, unless the user says
        otherwise.
        """
        if not scope.known.unseen or len(scope.unreadable) > UNREADABLE_MAX:
            return
        self._display.show_stage("Removing vanished documents")
        if not self._order.prune:
            async for one in self._api.iter_documents(self._order.collection):
                scope.count_document(one)
            self.stats.kept_directories = [loss for loss in scope.losses if loss.looks_unmounted]
        kept = [loss.directory for loss in self.stats.kept_directories]
        waiting: list[str] = []
        async for one in self._api.iter_documents(self._order.collection):
            if not scope.may_remove(one):
                continue
            counts = self.stats.sources.get(one.source) or SourceStats("")
            if is_below_any(scope.file_of(one), kept) and not scope.is_superseded(one):
                counts.kept += 1
                continue
            counts.removed += 1
            waiting.append(one.id)
            if len(waiting) == REMOVE_IDS_MAX:
                await self._drop(waiting)
                waiting = []
        await self._drop(waiting)

    async def _drop(self, ids: Sequence[str]) -> None:
        if ids:
            self.stats.removed += await self._api.delete_documents(self._order.collection, ids=ids)
