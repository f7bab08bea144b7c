"""One index run: list, compare, send, remove. The tally tells at any moment what has been done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from penstock.cli.known import Known
from penstock.cli.planning import Loss, Root, Target, batches, is_below, is_below_any, listed_root
from penstock.cli.problems import summary
from penstock.cli.progress import Display
from penstock.cli.records import Indexed, Listed, Outcome, Page
from penstock.cli.sources import encoded, find, hash_of, request_body, roots_of
from penstock.cli.tally import Failure, Tally
from penstock.indexing.walk import SkipReason
from penstock.kernel.errors import Expired, Invalid
from penstock.kernel.settings import Settings
from penstock.kernel.together import together

#: Small requests keep the bar moving and the loss of an interruption small; two of them keep the models busy, more
#: only wait longer.
BATCH_BYTES_MAX: Final = 16_000
IN_FLIGHT_MAX: Final = 2
REMOVE_IDS_MAX: Final = 500
#: Room in a request for what stands around the documents.
ENVELOPE_BYTES: Final = 64
#: Files compared before the display is told, and an interruption heard.
SLICE_FILES: Final = 100
#: Unreadable files and directories remembered, so that what is listed below them is not removed; with more of them
#: nothing is removed at all.
UNREADABLE_MAX: Final = 1000
#: How often the display is told while nothing happens.
BEAT_S: Final = 1.0


class Index(Protocol):
    """What a run needs of the API; :class:`penstock.cli.api.Api` is one."""

    async def create_collection(self, name: str) -> None:
        """Create the collection where it is absent."""
        ...

    def documents(self, collection: str) -> AsyncIterator[Page]:
        """Yield its listing."""
        ...

    async def add(self, collection: str, batch: bytes) -> Indexed:
        """Index a batch."""
        ...

    async def remove(self, collection: str, ids: Sequence[str]) -> int:
        """Delete documents."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for."""

    paths: Sequence[Path]
    collection: str
    force: bool = False
    prune: bool = False


@dataclass(slots=True)
class _Scope:
    """What a run is about.

    Attributes:
        roots: What the user named.
        known: What the collection holds.
        unreadable: Files and directories that could not be read; what is listed below them has not vanished.
        losses: What has vanished from each directory that the user named.
    """

    roots: Sequence[Root]
    known: Known
    unreadable: list[Path] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)

    def found(self, id_: str) -> None:
        """Note that a file is there."""
        for loss in self.losses:
            loss.has_files = loss.has_files or is_below(id_, str(loss.named))

    def count(self, id_: str) -> None:
        """Count a listed document."""
        around = [loss for loss in self.losses if is_below(id_, str(loss.named))]
        vanished = bool(around) and self.may_remove(id_)
        for loss in around:
            loss.listed += 1
            loss.vanished += vanished

    def may_remove(self, id_: str) -> bool:
        """Return whether a listed document has vanished from below what the user named."""
        return (
            self.known.has_vanished(id_)
            and is_below_any(id_, [root.named for root in self.roots])
            and not is_below_any(id_, self.unreadable)
        )


class Run:
    """An index run.

    The files are walked twice, once to compare and count, once to send what there is to send, so that no list of them
    is kept.

    Attributes:
        tally: Counts; right at any moment, also after a cancellation.

    Bounds: what :class:`Known` takes for each document of the collection, ``IN_FLIGHT_MAX`` requests,
        ``UNREADABLE_MAX`` paths.
    """

    def __init__(self, api: Index, settings: Settings, order: Order, tally: Tally, display: Display) -> None:
        self.tally = tally
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
        roots_of(self._order.paths, (), force=self._order.force)
        self._display.stage("Reading the collection's listing")
        await self._api.create_collection(self._order.collection)
        scope = await self._listed()
        async with _timed(self.tally):
            await self._compare(scope)
            if self.tally.files_total:
                await self._send(scope)
            await self._remove(scope)

    async def _listed(self) -> _Scope:
        """Read the collection's listing."""
        known = Known()
        projects: set[str] = set()
        async for one in self._listing():
            known.add(one.id, one.hash)
            if (project := listed_root(one.id, one.path)) is not None:
                projects.add(project)
        known.close()
        paths = [Path(project) for project in sorted(projects)]
        roots = await asyncio.to_thread(roots_of, self._order.paths, paths, force=self._order.force)
        losses = [Loss(root.named) for root in roots if root.named.is_dir()]
        return _Scope(roots, known, losses=losses)

    async def _listing(self) -> AsyncIterator[Listed]:
        async for page in self._api.documents(self._order.collection):
            for one in page.documents:
                yield one

    # --- Compare

    async def _compare(self, scope: _Scope) -> None:
        """Find out what is unchanged, and how much there is to send."""
        self._display.stage("Looking for files")
        files, compared = 0, self._compared(scope)
        while count := await asyncio.to_thread(lambda: sum(1 for _ in islice(compared, SLICE_FILES))):
            files += count
            self._display.stage(f"Comparing: {files} files, {self.tally.unchanged} unchanged")
        self._display.advance(self.tally)

    def _compared(self, scope: _Scope) -> Iterator[None]:
        """Compare file by file; runs in a thread, one slice at a time."""

        def skip(path: Path, reason: str) -> None:
            self.tally.skipped[reason] += 1
            if reason == SkipReason.UNREADABLE and len(scope.unreadable) <= UNREADABLE_MAX:
                scope.unreadable.append(path)

        for one in find(scope.roots, self._file_bytes_max, skip):
            scope.found(one.id)
            if scope.known.see(one.id) and scope.known.compare(one.id, hash_of(one, self._file_bytes_max)):
                self.tally.unchanged += 1
            else:
                self.tally.files_total += 1
                self.tally.bytes_total += one.size
            yield

    # --- Send

    async def _send(self, scope: _Scope) -> None:
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
            await together([courier() for _ in range(IN_FLIGHT_MAX)])
        finally:
            beat.cancel()

    async def _beat(self) -> None:
        """Tell the display now and then, also while a large file takes its time."""
        while True:
            await asyncio.sleep(BEAT_S)
            self._display.advance(self.tally)

    def _encoded(self, scope: _Scope) -> Iterator[tuple[Target, bytes]]:
        """Yield encoded documents; runs in a thread, one at a time."""
        for one in find(scope.roots, self._file_bytes_max):
            if scope.known.is_current(one.id):
                continue
            document = encoded(one, self._file_bytes_max, self._body_bytes_max)
            if isinstance(document, Failure):
                self._done(one)
                self.tally.fail(document.path, document.code, document.detail)
            else:
                yield one, document

    async def _deliver(self, batch: Sequence[tuple[Target, bytes]]) -> None:
        size = sum(one.size for one, _ in batch)
        self.tally.set_off(len(batch), size)
        try:
            answer = await self._api.add(self._order.collection, request_body([document for _, document in batch]))
        except (Expired, Invalid) as error:
            if isinstance(error, Invalid) and error.code != "body_too_large":
                raise
            for one, _ in batch:
                self._count(one, Outcome(one.id, "failed", error={"code": error.code, "detail": error.detail}))
        else:
            outcomes = {outcome.id: outcome for outcome in answer.documents}
            for one, _ in batch:
                self._count(one, outcomes.get(one.id) or Outcome(one.id, "failed", error={"code": "no_outcome"}))
        finally:
            self.tally.set_off(-len(batch), -size)
        self._display.advance(self.tally)

    def _count(self, one: Target, outcome: Outcome) -> None:
        self._done(one)
        if outcome.status == "indexed":
            self.tally.indexed += 1
            self.tally.chunks += outcome.chunks
        elif outcome.status == "unchanged":
            self.tally.unchanged += 1
        else:
            self.tally.fail(one.id, *summary(outcome.error or {}))

    def _done(self, one: Target) -> None:
        self.tally.files_done += 1
        self.tally.bytes_done += one.size

    # --- Remove

    async def _remove(self, scope: _Scope) -> None:
        """Remove documents whose file has vanished or is not indexed any more; the listing is read again for them.

        A directory from which too much has vanished keeps what the collection has of it, unless the user says
        otherwise.
        """
        if not scope.known.unseen or len(scope.unreadable) > UNREADABLE_MAX:
            return
        self._display.stage("Removing vanished documents")
        if not self._order.prune:
            async for one in self._listing():
                scope.count(one.id)
            self.tally.kept = [loss for loss in scope.losses if loss.is_doubtful]
        kept = [loss.named for loss in self.tally.kept]
        waiting: list[str] = []
        async for one in self._listing():
            if scope.may_remove(one.id) and not is_below_any(one.id, kept):
                waiting.append(one.id)
            if len(waiting) == REMOVE_IDS_MAX:
                await self._drop(waiting)
                waiting = []
        await self._drop(waiting)

    async def _drop(self, ids: Sequence[str]) -> None:
        if ids:
            self.tally.removed += await self._api.remove(self._order.collection, ids)


@asynccontextmanager
async def _timed(tally: Tally, now: Callable[[], float] = time.monotonic) -> AsyncIterator[None]:
    started_s = now()
    try:
        yield
    finally:
        tally.took_s = now() - started_s
