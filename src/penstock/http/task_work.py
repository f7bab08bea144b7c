"""Work of tasks: does an accepted operation when its turn has come.

A refusal for now is no failure: what can succeed later is tried again, as long as something still succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

import msgspec

from penstock.core.core import Core
from penstock.http import responses
from penstock.http.decoding import JSON
from penstock.http.documents import DocumentBatch, LazyDocuments, parse_documents
from penstock.indexing.document_records import DocumentStatus, IndexOutcome, Wait
from penstock.kernel.context import Context, Criticality, Deadline
from penstock.kernel.errors import PenstockError
from penstock.stores.data_model import CollectionInfo, SnapshotInfo
from penstock.tasks.records import TaskKind, TaskRecord
from penstock.tasks.runner import TaskOutcome

R = TypeVar("R")

#: Pause before what was refused is tried again; doubled each time.
PAUSE_S: Final = 1.0
PAUSE_S_MAX: Final = 60.0

#: A task that has got nowhere for so long has failed.
STALLED_S: Final = 3600.0

#: Failed documents that a result names. The others are only counted.
FAILURES_TOLD_MAX: Final = 100


class IndexOperation(Protocol):
    """The operation that indexes documents."""

    async def __call__(
        self, collection: str, those: LazyDocuments, ctx: Context, wait: Wait, done: Callable[[IndexOutcome], None]
    ) -> object:
        """Index documents; ``done`` is called with each outcome."""


class RestoreOperation(Protocol):
    """The operation that restores a snapshot."""

    async def __call__(self, name: str, ctx: Context, *, force: bool) -> list[CollectionInfo]:
        """Restore a snapshot."""


class IndexTaskResult(msgspec.Struct, frozen=True):
    """Result of a task that indexes documents.

    Attributes:
        indexed: Documents that are found by words and by meaning.
        searchable: Documents that are found by words, and whose vectors follow.
        unchanged: Documents that were there already, also from before an interruption of the task.
        failed: Documents that could not be indexed.
        chunks: Chunks written.
        failures: The first 100 of the documents that failed.
    """

    indexed: int
    searchable: int
    unchanged: int
    failed: int
    chunks: int
    failures: list[responses.DocumentOutcome]


@dataclass(slots=True)
class _Patience:
    """Time for what is refused now. Anything that succeeds renews it."""

    core: Core
    pause_s: float = PAUSE_S
    since_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.since_s, self.pause_s = self.core.deps.clock.now(), PAUSE_S

    async def wait(self) -> bool:
        """Wait before another try; return whether there is to be one."""
        if self.core.deps.clock.now() + self.pause_s - self.since_s > STALLED_S:
            return False
        await asyncio.sleep(self.pause_s)
        self.pause_s = min(2 * self.pause_s, PAUSE_S_MAX)
        return True


class TaskWork:
    """Work of tasks.

    Args:
        core: Does it.
        index: Indexes documents.
        restore: Restores a snapshot.
    """

    def __init__(self, core: Core, index: IndexOperation, restore: RestoreOperation) -> None:
        self._core = core
        self._clock = core.deps.clock
        self._index_documents = index
        self._restore_snapshot = restore

    async def perform(self, task: TaskRecord, body: bytes, report: Callable[[int], None]) -> TaskOutcome:
        """Do a task.

        Args:
            task: Its record.
            body: Its body.
            report: Called with the number of documents that are done.

        Raises:
            PenstockError: It failed.

        Cancellation: What was written stays.
        """
        ctx = Context(Deadline.never(), Criticality.BULK, task.client, task.id)
        if task.kind is TaskKind.INDEX_DOCUMENTS:
            return await self._index(task, body, report, ctx)
        snapshots, name = self._core.deps.snapshots, task.arguments.get("snapshot", "")
        if task.kind is TaskKind.RENEW_COLLECTION:
            renewed = await self._patiently(lambda: self._core.renewal.run(task.collection, ctx))
            return _outcome(responses.RenewResponse(renewed))
        if task.kind is TaskKind.MAKE_SNAPSHOT:
            made: SnapshotInfo = await self._patiently(lambda: snapshots.create(ctx))
            return _outcome(made)
        restore = partial(self._restore_snapshot, name, ctx, force=task.arguments.get("force") == "true")
        return _outcome(responses.CollectionList(await self._patiently(restore)))

    async def _patiently(self, attempt: Callable[[], Awaitable[R]]) -> R:
        """Return what an attempt returns that is not refused for now."""
        patience = _Patience(self._core)
        while True:
            try:
                return await attempt()
            except PenstockError as error:
                if not error.retryable or not await patience.wait():
                    raise

    async def _index(self, task: TaskRecord, body: bytes, report: Callable[[int], None], ctx: Context) -> TaskOutcome:
        found = await parse_documents(body, task.arguments.get("media_type", JSON), self._clock, lambda _: ctx)
        became, again = dict[str, IndexOutcome](), set[str]()
        refused = len(found.entries) - len(found.documents) + found.unreported
        patience = _Patience(self._core)

        def done(outcome: IndexOutcome) -> None:
            became[outcome.id] = outcome
            if outcome.error is not None and outcome.error.retryable:
                again.add(outcome.id)
            else:
                again.discard(outcome.id)
                patience.renew()
            report(refused + len(became) - len(again))

        report(refused)
        left = found.documents
        while len(left):
            await self._index_once(task.collection, left, ctx, found.wait or Wait.VECTORS, done)
            left = found.documents.only(again)
            if len(left) and not await patience.wait():
                break
        outcome = await _index_outcome(found, [became[id] for id in found.documents.ids])
        self._count(became.values())
        return outcome

    def _count(self, became: Iterable[IndexOutcome]) -> None:
        metrics = self._core.metrics
        for one in became:
            # As the metrics of requests, which count a document with its vectors to come by its chunks alone.
            if one.status is not DocumentStatus.SEARCHABLE:
                metrics.documents.labels(one.status.value).inc()
            if one.status is not DocumentStatus.UNCHANGED:
                metrics.chunks.inc(one.chunks)

    async def _index_once(
        self, collection: str, left: LazyDocuments, ctx: Context, wait: Wait, done: Callable[[IndexOutcome], None]
    ) -> None:
        """Try each document once. An error of the whole is one of each document that had no turn."""
        had_turn = set[str]()

        def note(outcome: IndexOutcome) -> None:
            had_turn.add(outcome.id)
            done(outcome)

        try:
            await self._index_documents(collection, left, ctx, wait, note)
        except PenstockError as error:
            if not error.retryable:
                raise
            for id in left.ids:
                if id not in had_turn:
                    done(IndexOutcome(id, DocumentStatus.FAILED, error=error))


def _outcome(result: msgspec.Struct) -> TaskOutcome:
    return TaskOutcome(msgspec.json.encode(result))


async def _index_outcome(found: DocumentBatch, became: Sequence[IndexOutcome]) -> TaskOutcome:
    each = await found.report_outcomes(became)
    counts = {status: sum(one.status is status for one in each) for status in DocumentStatus}
    written = (DocumentStatus.INDEXED, DocumentStatus.SEARCHABLE)
    failures = [one for one in each if one.status is DocumentStatus.FAILED]
    result = IndexTaskResult(
        indexed=counts[DocumentStatus.INDEXED],
        searchable=counts[DocumentStatus.SEARCHABLE],
        unchanged=counts[DocumentStatus.UNCHANGED],
        failed=len(failures) + found.unreported,
        chunks=sum(one.chunks for one in each if one.status in written),
        failures=failures[:FAILURES_TOLD_MAX],
    )
    try:
        found.raise_if_all_failed(became)
    except PenstockError as error:
        return TaskOutcome(msgspec.json.encode(result), error)
    return _outcome(result)
