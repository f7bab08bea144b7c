"""Parsing of the documents of an index request, from JSON or NDJSON, and the report of their outcomes.

A body is read twice: once to check every document, and again document by document when each is indexed. Between the
two only offsets into the body are kept, so ten thousand documents cost little more than their bytes.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, overload

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from penstock.http import request_bodies, responses
from penstock.http.decoding import NDJSON, decode_json, field_path, split_elements
from penstock.http.json_errors import InvalidField, first_invalid_field
from penstock.http.problem import problem_of
from penstock.http.request_context import build_context
from penstock.indexing.document_records import Document, DocumentStatus, IndexOutcome, Wait
from penstock.indexing.language import canonical_language
from penstock.kernel.context import Clock, Context
from penstock.kernel.errors import Expired, Invalid, PenstockError
from penstock.stores.data_model import out_of_range_reason

#: Unreadable lines are reported one by one up to this number and only counted beyond it. Numbers that cannot be stored
#: are reported with their field up to the same number.
REPORTED_LINES_MAX: Final = 100

#: Metadata as it is written may be so many times as large as it is kept: `json.dumps` writes two bytes as six.
_ESCAPE_FACTOR: Final = 4

#: Type of metadata.
_METADATA: Final[Any] = dict[str, Any] | None

#: Types that hold other values. A tuple, since a union would be built again for each value.
_NESTING: Final = (dict, list)

#: Bytes that are written as they are kept, wherever they stand.
_WRITTEN_AS_KEPT: Final = tuple(bytes((byte,)) for byte in b",:[]{}")

#: Bytes of documents read before the event loop runs other tasks, and the bytes added for each document.
_SLICE_BYTES: Final = 65_536
_DOCUMENT_COST_BYTES: Final = 1024

#: Outcomes reported before the event loop runs other tasks.
_SLICE_OUTCOMES: Final = 256


class NumberOutOfRange(Invalid):
    """A document holds a number that no store keeps exactly. Other documents of its request are unaffected."""

    code = "number_out_of_range"


#: Shared error of documents that fail for a number after ``REPORTED_LINES_MAX`` others.
_NUMBER_ERROR_UNREPORTED: Final = NumberOutOfRange(
    "it holds a number that cannot be kept, as do many others of the request", field="metadata"
)


class DocumentEntry(NamedTuple):
    """A document of a body, read and checked.

    Attributes:
        line: Its line of NDJSON, from 1; 0 for JSON.
        id: Its id, empty where that could not be read.
        start: Where it begins in the body.
        end: Where it ends.
        error: Why it is not indexed, if it is not.
    """

    line: int
    id: str
    start: int
    end: int
    error: Invalid | None = None


class LazyDocuments(Sequence[Document]):
    """Documents of a body, each decoded when it is asked for."""

    def __init__(self, data: memoryview, entries: Sequence[DocumentEntry]) -> None:
        self._data = data
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def ids(self) -> list[str]:
        """Their ids, which are known without decoding them."""
        return [entry.id for entry in self._entries]

    def only(self, ids: Container[str]) -> LazyDocuments:
        """Return the documents of these ids, not yet decoded."""
        return LazyDocuments(self._data, [entry for entry in self._entries if entry.id in ids])

    @overload
    def __getitem__(self, index: int) -> Document: ...

    @overload
    def __getitem__(self, index: slice) -> LazyDocuments: ...

    def __getitem__(self, index: int | slice) -> Document | LazyDocuments:
        """Return a document, or some of them, not yet decoded."""
        if isinstance(index, slice):
            return LazyDocuments(self._data, self._entries[index])
        entry = self._entries[index]
        return _document(self._data[entry.start : entry.end], "")


@dataclass(slots=True)
class DocumentBatch:
    """Parsed body of an index request.

    Attributes:
        ctx: The request's context.
        documents: Documents that can be indexed.
        entries: All reported documents, in the order of the body.
        unreported: Number of unreadable lines beyond ``REPORTED_LINES_MAX``.
        is_ndjson: Whether outcomes are reported line by line, even if no line could be read.
        wait: What the request waits for, if its body says so.
    """

    ctx: Context
    documents: LazyDocuments
    entries: list[DocumentEntry] = field(default_factory=list)
    unreported: int = 0
    is_ndjson: bool = False
    wait: Wait | None = None

    def raise_if_all_failed(self, outcomes: Sequence[IndexOutcome]) -> None:
        """Raise the first error if every document failed, except for NDJSON with refused lines."""
        refused = [entry.error for entry in self.entries if entry.error is not None]
        if refused and self.is_ndjson:
            return
        errors: list[PenstockError] = [*refused, *(o.error for o in outcomes if o.error is not None)]
        if errors and len(errors) == len(self.entries):
            raise errors[0]

    async def report_outcomes(self, outcomes: Sequence[IndexOutcome]) -> list[responses.DocumentOutcome]:
        """Return the outcome of each document, in the order of the body."""
        became, request_id, each = iter(outcomes), self.ctx.request_id, list[responses.DocumentOutcome]()
        for number, entry in enumerate(self.entries, 1):
            outcome = IndexOutcome(entry.id, DocumentStatus.FAILED, error=entry.error) if entry.error else next(became)
            error = problem_of(outcome.error, request_id) if outcome.error else UNSET
            id, line, same_as = outcome.id or UNSET, entry.line or UNSET, outcome.same_as or UNSET
            each.append(responses.DocumentOutcome(outcome.status, outcome.chunks, id, line, error, same_as))
            if number % _SLICE_OUTCOMES == 0:
                await asyncio.sleep(0)
        return each


async def read_documents(request: Request, clock: Clock) -> DocumentBatch:
    """Read and check a body of documents, in either form.

    Raises:
        Invalid: It cannot be read, or holds too many documents (``too_many_documents``).
        Expired: The request's deadline passed.
    """
    kind = media_type(request)
    return await parse_documents(await request.body(), kind, clock, lambda wish: build_context(request, clock, wish))


def media_type(request: Request) -> str:
    """Return the media type of a request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def parse_documents(
    data: bytes, kind: str, clock: Clock, context: Callable[[float | None], Context]
) -> DocumentBatch:
    """Check a body of documents.

    Args:
        data: The body.
        kind: Its media type.
        clock: The loop's clock.
        context: Returns the work's context, given the body's time limit in milliseconds.

    Raises:
        Invalid: As :func:`read_documents`.
        Expired: The deadline passed.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    if kind == NDJSON:
        return await _DocumentReader(memoryview(data), context(None), clock).read_lines(data)
    body = decode_json(data, request_bodies.RawDocuments)
    listed = memoryview(body.documents)
    if bytes(listed[:1]) != b"[":
        decode_json(listed, list[msgspec.Raw], "documents.")
    batch = await _DocumentReader(listed, context(body.timeout_ms), clock).read_list()
    batch.wait = body.wait
    return batch


class _DocumentReader:
    """Reads a body document by document and yields to the event loop in between."""

    def __init__(self, data: memoryview, ctx: Context, clock: Clock) -> None:
        self._data = data
        self._ctx = ctx
        self._clock = clock
        self._spent_bytes = 0
        self._refused = 0
        self._unread = 0
        self._seen: dict[str, int] = {}

    async def read_list(self) -> DocumentBatch:
        """Read a list of documents; the first that is wrong ends it, unless it is for one of its numbers."""
        places = await split_elements(self._data, request_bodies.DOCUMENTS_MAX)
        if places is None:
            raise _too_many("documents")
        entries = []
        for number, (begins, ends) in enumerate(places):
            where = f"documents[{number}]"
            entries.append(self._entry(0, begins, ends, f"{where}."))
            first = self._seen.setdefault(entries[-1].id, number)
            if first != number:
                detail = f"{where} has the same id as documents[{first}]"
                raise Invalid(detail, field=f"{where}.id", code="duplicate_id")
            await self._yield_to_loop(ends - begins)
        return self._batch(entries, 0, by_line=False)

    async def read_lines(self, text: bytes) -> DocumentBatch:
        """Read lines of NDJSON. Blank ones are passed over, and one that is wrong does not touch the others."""
        entries, untold, begins = list[DocumentEntry](), 0, 0
        if text.count(b"\n") > request_bodies.DOCUMENTS_MAX:
            raise _too_many("lines")
        for line in range(1, request_bodies.DOCUMENTS_MAX + 2):
            ends = text.find(b"\n", begins)
            ends = len(text) if ends < 0 else ends
            if not text[begins:ends].isspace() and begins < ends:
                entry = self._line(line, begins, ends)
                if not entry.id:
                    self._unread += 1
                    untold += self._unread > REPORTED_LINES_MAX
                if entry.id or self._unread <= REPORTED_LINES_MAX:
                    entries.append(entry)
            await self._yield_to_loop(ends - begins)
            begins = ends + 1
            if begins >= len(text):
                break
        return self._batch(entries, untold, by_line=True)

    def _line(self, line: int, begins: int, ends: int) -> DocumentEntry:
        where = f"line {line}: "
        try:
            entry = self._entry(line, begins, ends, where)
        except Invalid as error:
            return DocumentEntry(line, "", begins, ends, _without_traceback(error))
        first = self._seen.setdefault(entry.id, line)
        if first == line:
            return entry
        again = Invalid(f"line {line} has the same id as line {first}", field=f"{where}id", code="duplicate_id")
        return DocumentEntry(line, "", begins, ends, again)

    def _entry(self, line: int, begins: int, ends: int, where: str) -> DocumentEntry:
        """Return a document's entry.

        Raises:
            Invalid: It is none.
        """
        data, told = self._data[begins:ends], self._unread < REPORTED_LINES_MAX
        body = decode_json(data, request_bodies.RawDocument, where, locate_error=told)
        try:
            _metadata(body.metadata, f"{where}metadata", locate_error=told)
        except NumberOutOfRange as error:
            self._refused += 1
            refusal = _without_traceback(error) if self._refused <= REPORTED_LINES_MAX else _NUMBER_ERROR_UNREPORTED
            return DocumentEntry(line, body.id, begins, ends, refusal)
        return DocumentEntry(line, body.id, begins, ends)

    def _batch(self, entries: list[DocumentEntry], untold: int, *, by_line: bool) -> DocumentBatch:
        good = [entry for entry in entries if entry.error is None]
        return DocumentBatch(self._ctx, LazyDocuments(self._data, good), entries, untold, by_line)

    async def _yield_to_loop(self, read_bytes: int) -> None:
        """Yield to the event loop after each ``_SLICE_BYTES``, and check the deadline.

        Raises:
            Expired: The deadline has passed.
        """
        self._spent_bytes += read_bytes + _DOCUMENT_COST_BYTES
        if self._spent_bytes < _SLICE_BYTES:
            return
        self._spent_bytes = 0
        await asyncio.sleep(0)
        if self._ctx.deadline.passed(self._clock.now()):
            raise Expired(self._ctx.deadline.operation, "the deadline passed while the documents were read")


def _without_traceback(error: Invalid) -> Invalid:
    """Return an error without its traceback and context, whose frames hold kilobytes for each line."""
    error.__context__ = None
    return error.with_traceback(None)


def _too_many(what: str) -> Invalid:
    detail = f"the body holds more than {request_bodies.DOCUMENTS_MAX} {what}; send less at a time"
    return Invalid(detail, field="documents", code="too_many_documents")


def _document(data: memoryview, where: str) -> Document:
    body = decode_json(data, request_bodies.RawDocument, where)
    metadata = _metadata(body.metadata, f"{where}metadata")
    return Document(
        id=body.id,
        text=body.text,
        path=body.path,
        language=canonical_language(body.language),
        source=body.source,
        replaces=body.replaces,
        same_as=body.same_as,
        metadata=metadata,
    )


def _metadata(raw: msgspec.Raw, field: str, *, locate_error: bool = True) -> dict[str, Any]:
    """Return metadata, decoded.

    Args:
        raw: The text.
        field: Its path, for errors.
        locate_error: Whether the field inside is looked for where the text is no JSON.

    Raises:
        Invalid: It is none, too large or too deep.
        NumberOutOfRange: It holds a number that cannot be kept.
    """
    size = memoryview(raw).nbytes
    if size == 0:
        return {}
    text = bytes(raw) if size <= _ESCAPE_FACTOR * request_bodies.METADATA_BYTES_MAX else b""
    # Both bounds hold before objects are made of it: those take up to forty times as much.
    if not text or sum(map(text.count, _WRITTEN_AS_KEPT)) > request_bodies.METADATA_BYTES_MAX:
        raise _too_large(field)
    try:
        metadata = decode_json(raw, _METADATA, f"{field}.", locate_error=locate_error) or {}
    except Invalid as error:
        # Of more than 64 bits by far; the decoder does not even make a number of it.
        if error.detail.endswith("out of range"):
            raise NumberOutOfRange(error.detail, field=error.field) from None
        raise
    level: list[Any] = [metadata]
    for _ in range(request_bodies.METADATA_DEPTH_MAX):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, _NESTING)]
    if level:
        raise Invalid(f"metadata may be nested {request_bodies.METADATA_DEPTH_MAX} levels deep", field=field)
    try:
        # Finds a larger number in one go; which it is, is looked for only then.
        msgspec.msgpack.encode(metadata)
    except OverflowError:
        fault = first_invalid_field(metadata, out_of_range_reason) or InvalidField(
            "", "it holds a number that cannot be kept"
        )
        raise NumberOutOfRange(fault.detail, field=field_path(f"{field}.", fault.field)) from None
    if len(msgspec.json.encode(metadata)) > request_bodies.METADATA_BYTES_MAX:
        raise _too_large(field)
    return metadata


def _too_large(field: str) -> Invalid:
    return Invalid(
        f"metadata is larger than {request_bodies.METADATA_BYTES_MAX} bytes; it is stored with every chunk, long text"
        " belongs into the text",
        field=field,
    )


def _inside(value: dict[str, Any] | list[Any]) -> Any:
    return value.values() if isinstance(value, dict) else value
