"""Upload of any number of documents: batches, concurrency that follows the server, retries, failures. No I/O.

Documents are idempotent: one that the server has already is told as ``unchanged``. So a batch whose answer was lost is
sent again, and an upload that was interrupted is repeated from the beginning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol

import msgspec

from penstock.client.calls import DEFAULT, ApiCall, index_documents
from penstock.client.records import IndexReport, NewDocument
from penstock.kernel.errors import DECODE_ERRORS, Broken, Invalid, PenstockError, Rejected
from penstock.policies.pace import Pace, PaceSettings

UploadDocument = NewDocument | Mapping[str, Any] | msgspec.Raw

#: Failures that a report names. The others are only counted.
FAILURES_MAX: Final = 1000

#: Pause after a refusal that names no time.
PAUSE_S: Final = 0.5

#: Statuses of errors that are about some documents of a batch: it is halved until it is known which.
_STATUSES_OF_DOCUMENTS: Final = frozenset({400, 413, 422})
#: Codes among them that concern every batch.
_CODES_OF_ALL: Final = frozenset({"invalid_name"})


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """Bounds of an upload.

    Attributes:
        documents: Documents in a batch at most.
        bytes: Bytes of a batch at most. A larger document goes alone.
        concurrency: Batches under way at most. There are fewer while the server refuses some.
        patience_s: Seconds without a single success after which the upload is given up.
        wait: ``words``: a batch is done when it is found by words, and vectors follow. ``vectors``: by both.
    """

    documents: int = 200
    bytes: int = 1_000_000
    concurrency: int = 4
    patience_s: float = 300.0
    wait: Literal["words", "vectors"] = "words"


UPLOAD_DEFAULTS: Final = UploadSettings()


class UploadFailure(msgspec.Struct, frozen=True):
    """A document that could not be uploaded: its id, the code of the reason, and the reason."""

    id: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class UploadReport:
    """Counts of an upload, during it and in the end.

    Attributes:
        documents: Documents done, good or not.
        indexed: Found by words and by meaning.
        searchable: Found by words; vectors follow.
        unchanged: There already.
        failed: Not uploaded.
        bytes: Bytes sent for those that are done.
        refusals: Batches that the server refused for the moment, and that were sent again.
        window: Batches that may be under way.
        failures: The first 1 000 of those that failed.
    """

    documents: int = 0
    indexed: int = 0
    searchable: int = 0
    unchanged: int = 0
    failed: int = 0
    bytes: int = 0
    refusals: int = 0
    window: int = 1
    failures: tuple[UploadFailure, ...] = ()


@dataclass(slots=True)
class UploadBatch:
    """Documents that are sent in one request."""

    documents: list[msgspec.Raw] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    bytes: int = 0

    def add(self, document: msgspec.Raw, id: str) -> None:
        """Add a document."""
        self.documents.append(document)
        self.ids.append(id)
        self.bytes += memoryview(document).nbytes + 1

    def part(self, numbers: Iterable[int]) -> UploadBatch:
        """Return a batch of some of the documents."""
        made = UploadBatch()
        for number in numbers:
            made.add(self.documents[number], self.ids[number])
        return made


class Upload:
    """An upload: says what to send next, and takes in what came of it.

    Bounds: ``concurrency`` batches and what is left of those that were refused. Documents are taken from their source
    when there is room for them.

    Args:
        documents: Records, mappings, or JSON objects as ``msgspec.Raw``.
        collection: The collection.
        settings: Bounds.
        progress: Called after each answer.
        failed: Called with each document that could not be uploaded.
    """

    def __init__(
        self,
        documents: Iterable[UploadDocument],
        collection: str = DEFAULT,
        settings: UploadSettings = UPLOAD_DEFAULTS,
        progress: Callable[[UploadReport], object] | None = None,
        failed: Callable[[UploadFailure], object] | None = None,
    ) -> None:
        self._source = _encoded(documents)
        self._collection = collection
        self._settings = settings
        self._progress = progress
        self._on_failed = failed
        self._again: deque[UploadBatch] = deque()
        self._held: tuple[msgspec.Raw, str] | None = None
        self._exhausted = False
        pace = PaceSettings(settings.concurrency, pause_s=PAUSE_S, patience_s=settings.patience_s)
        self._pace = Pace(pace, window=1.0)
        self._failures: list[UploadFailure] = []
        self.report = UploadReport()

    def next(self, now_s: float) -> UploadBatch | float | None:
        """Return a batch to send, seconds to wait before there may be one, or ``None`` until an answer has come."""
        wait_s = self._pace.wait_s(now_s)
        if wait_s is None or wait_s > 0.0:
            return wait_s
        batch = self._again.popleft() if self._again else self._cut()
        if batch is not None:
            self._pace.under_way += 1
        return batch

    @property
    def done(self) -> bool:
        """True once everything has its outcome."""
        return self._exhausted and self._held is None and not self._again and not self._pace.under_way

    def call(self, batch: UploadBatch) -> ApiCall[IndexReport]:
        """Return the call that sends a batch. Whether it is repeated is decided here."""
        return replace(index_documents(batch.documents, self._collection, wait=self._settings.wait), attempts_max=1)

    def answered(self, batch: UploadBatch, answer: IndexReport | PenstockError, now_s: float) -> None:
        """Take in what came of a batch.

        Raises:
            PenstockError: The upload cannot go on.
        """
        self._pace.under_way -= 1
        if isinstance(answer, PenstockError):
            self._not_done(batch, answer, now_s)
        else:
            self._done(batch, answer, now_s)
        self.report = replace(self.report, window=int(self._pace.window), failures=tuple(self._failures))
        if self._progress is not None:
            self._progress(self.report)

    def _done(self, batch: UploadBatch, answer: IndexReport, now_s: float) -> None:
        if len(answer.documents) != len(batch.ids):
            raise Broken("the server did not tell the outcome of each document")
        again = [number for number, one in enumerate(answer.documents) if one.error is not None and one.error.retryable]
        if len(again) < len(batch.ids):
            self._pace.on_taken(now_s, whole=not again)
        if again:
            self._refused(batch.part(again), 0.0, now_s, "some documents were refused")
        counts = dict.fromkeys(("indexed", "searchable", "unchanged", "failed"), 0)
        for id, one in zip(batch.ids, answer.documents, strict=True):
            if one.error is None:
                counts[one.status] = counts.get(one.status, 0) + 1
            elif not one.error.retryable:
                counts["failed"] += 1
                self._failed(UploadFailure(id, one.error.code, one.error.message))
        self._count(len(batch.ids) - len(again), batch.bytes, counts)

    def _not_done(self, batch: UploadBatch, error: PenstockError, now_s: float) -> None:
        if error.retryable:
            asked_s = error.retry_after_s if isinstance(error, Rejected) else 0.0
            self._refused(batch, asked_s, now_s, error.detail, error)
        elif not _is_of_documents(error):
            raise error
        elif len(batch.ids) == 1:
            self._pace.on_taken(now_s, whole=False)
            self._failed(UploadFailure(batch.ids[0], error.code, error.detail))
            self._count(1, 0, {"failed": 1})
        else:
            middle = len(batch.ids) // 2
            self._again.append(batch.part(range(middle)))
            self._again.append(batch.part(range(middle, len(batch.ids))))

    def _refused(
        self,
        batch: UploadBatch,
        asked_s: float,
        now_s: float,
        why: str,
        error: PenstockError | None = None,
    ) -> None:
        """Send a batch again later, and less at once until then."""
        if not self._pace.on_refused(asked_s, now_s):
            raise error or Rejected(f"nothing was taken for {self._settings.patience_s:g} s: {why}")
        self._again.append(batch)
        self.report = replace(self.report, refusals=self.report.refusals + 1)

    def _failed(self, failure: UploadFailure) -> None:
        if len(self._failures) < FAILURES_MAX:
            self._failures.append(failure)
        if self._on_failed is not None:
            self._on_failed(failure)

    def _count(self, documents: int, size: int, counts: Mapping[str, int]) -> None:
        now = self.report
        self.report = replace(
            now,
            documents=now.documents + documents,
            bytes=now.bytes + size,
            **{name: getattr(now, name) + count for name, count in counts.items() if hasattr(now, name)},
        )

    def _cut(self) -> UploadBatch | None:
        """Return the next batch of the source, ``None`` at its end."""
        batch = UploadBatch()
        while len(batch.ids) < self._settings.documents:
            if self._held is None:
                self._held = next(self._source, None)
            if self._held is None:
                self._exhausted = True
                break
            document, id = self._held
            if batch.ids and (batch.bytes + memoryview(document).nbytes > self._settings.bytes or id in batch.ids):
                break
            batch.add(document, id)
            self._held = None
        return batch if batch.ids else None


class _Done(Protocol):
    """A future that has ended."""

    def exception(self) -> BaseException | None: ...
    def result(self) -> IndexReport: ...


def outcome_of(future: _Done) -> IndexReport | PenstockError:
    """Return what came of a request that has ended; what is no error of the server's is raised."""
    error = future.exception()
    return error if isinstance(error, PenstockError) else future.result()


class _Identified(msgspec.Struct):
    id: str = ""


def _encoded(documents: Iterable[UploadDocument]) -> Iterator[tuple[msgspec.Raw, str]]:
    for one in documents:
        if isinstance(one, msgspec.Raw):
            try:
                yield one, msgspec.json.decode(one, type=_Identified).id
            except DECODE_ERRORS as error:
                raise Invalid(f"a document cannot be read as JSON: {error}", field="documents") from error
        else:
            id = one.id if isinstance(one, NewDocument) else str(one.get("id", ""))
            yield msgspec.Raw(msgspec.json.encode(one)), id


def _is_of_documents(error: PenstockError) -> bool:
    return error.status in _STATUSES_OF_DOCUMENTS and error.code not in _CODES_OF_ALL
