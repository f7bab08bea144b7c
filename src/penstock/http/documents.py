"""Documents as the API takes them in and tells what became of them.

A body is read twice: once to see whether each document can be taken, and again document by document when its turn
comes. Between the two only places in the body are kept, so ten thousand documents cost little more than their bytes.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, overload

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from penstock.http import answers, bodies
from penstock.http.decoding import decode, field_of
from penstock.http.diagnosis import Fault, first_fault
from penstock.http.labels import label
from penstock.http.media import NDJSON
from penstock.http.problem import problem_of
from penstock.http.structure import elements
from penstock.indexing.language import named
from penstock.indexing.records import Document, Outcome, Status
from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.errors import Expired, Invalid, PenstockError
from penstock.stores.records import out_of_range

#: Lines that cannot be read are told one by one up to here, those beyond are counted only. So far each number that
#: cannot be kept is told with its field.
TOLD_LINES_MAX: Final = 100

#: Metadata as it is written may be so many times as large as it is kept: `json.dumps` writes two bytes as six.
_ESCAPED: Final = 4

#: What metadata may be.
_METADATA: Final[Any] = dict[str, Any] | None

#: What holds other values. A tuple: a union would be made anew for each value.
_NESTING: Final = (dict, list)

#: Bytes that are written as they are kept, wherever they stand.
_WRITTEN_AS_KEPT: Final = tuple(bytes((byte,)) for byte in b",:[]{}")

#: Documents are read for so many bytes at once, each counted as so many more; then the loop runs on.
_TURN_BYTES: Final = 65_536
_DOCUMENT_BYTES: Final = 1024

#: Outcomes told at once.
_TURN_OUTCOMES: Final = 256


class OutOfRange(Invalid):
    """A document holds a number that no store keeps exactly; others of its request are not touched by it."""

    code = "number_out_of_range"


#: What is told of documents that fail for a number after ``TOLD_LINES_MAX`` others: one error for all of them.
_FURTHER: Final = OutOfRange(
    "it holds a number that cannot be kept, as do many others of the request", field="metadata"
)


class Entry(NamedTuple):
    """A document of a body, read and checked.

    Attributes:
        line: Its line of NDJSON, from 1; 0 for JSON.
        id: Its id, empty where that could not be read.
        begins: Where it begins in the body.
        ends: Where it ends.
        error: Why it is not indexed, if it is not.
    """

    line: int
    id: str
    begins: int
    ends: int
    error: Invalid | None = None


class Documents(Sequence[Document]):
    """Documents of a body, each decoded when it is asked for.

    Args:
        data: What they are in.
        entries: Where each is.
    """

    def __init__(self, data: memoryview, entries: Sequence[Entry]) -> None:
        self._data = data
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def ids(self) -> list[str]:
        """Their ids, which are known without decoding them."""
        return [entry.id for entry in self._entries]

    @overload
    def __getitem__(self, index: int) -> Document: ...

    @overload
    def __getitem__(self, index: slice) -> Documents: ...

    def __getitem__(self, index: int | slice) -> Document | Documents:
        """Return a document, or some of them, not yet decoded."""
        if isinstance(index, slice):
            return Documents(self._data, self._entries[index])
        entry = self._entries[index]
        return _document(self._data[entry.begins : entry.ends], "")


@dataclass(slots=True)
class Intake:
    """What a request to index holds.

    Attributes:
        ctx: Its label.
        documents: Those that can be indexed.
        entries: All that are told of, in the order of the body.
        untold: Lines that cannot be read beyond ``TOLD_LINES_MAX``.
        by_line: Whether each line is told for itself, also where none could be read.
    """

    ctx: Context
    documents: Documents
    entries: list[Entry] = field(default_factory=list)
    untold: int = 0
    by_line: bool = False

    def raise_if_all_failed(self, outcomes: Sequence[Outcome]) -> None:
        """Let a request of which nothing came to pass fail as one, with a status that tells why."""
        refused = [entry.error for entry in self.entries if entry.error is not None]
        if refused and self.by_line:
            return
        errors: list[PenstockError] = [*refused, *(o.error for o in outcomes if o.error is not None)]
        if errors and len(errors) == len(self.entries):
            raise errors[0]

    async def told(self, outcomes: Sequence[Outcome]) -> list[answers.DocumentOutcome]:
        """Return what became of each document, in the order of the body."""
        became, request_id, each = iter(outcomes), self.ctx.request_id, list[answers.DocumentOutcome]()
        for number, entry in enumerate(self.entries, 1):
            outcome = Outcome(entry.id, Status.FAILED, error=entry.error) if entry.error else next(became)
            error = problem_of(outcome.error, request_id) if outcome.error else UNSET
            id, line = outcome.id or UNSET, entry.line or UNSET
            each.append(answers.DocumentOutcome(outcome.status, outcome.chunks, id, line, error))
            if number % _TURN_OUTCOMES == 0:
                await asyncio.sleep(0)
        return each


async def read(request: Request, clock: Clock) -> Intake:
    """Read and check a body of documents, in either form.

    Raises:
        Invalid: It cannot be read, or holds too many documents (``too_many_documents``).
        Expired: The request's deadline passed.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    data = (await request.body()).removeprefix(codecs.BOM_UTF8)
    if kind == NDJSON:
        return await _Reader(memoryview(data), label(request, clock), clock).lines(data)
    body = decode(data, bodies.PlainDocuments)
    listed = memoryview(body.documents)
    if bytes(listed[:1]) != b"[":
        decode(listed, list[msgspec.Raw], "documents.")
    return await _Reader(listed, label(request, clock, body.timeout_ms), clock).listed()


class _Reader:
    """Reads a body document by document, letting the loop run on in between.

    Args:
        data: The body: lines, or a list.
        ctx: The request's label.
        clock: The loop's clock.
    """

    def __init__(self, data: memoryview, ctx: Context, clock: Clock) -> None:
        self._data = data
        self._ctx = ctx
        self._clock = clock
        self._spent_bytes = 0
        self._refused = 0
        self._unread = 0
        self._seen: dict[str, int] = {}

    async def listed(self) -> Intake:
        """Read a list of documents; the first that is wrong ends it, unless it is for one of its numbers."""
        places = await elements(self._data, bodies.DOCUMENTS_MAX)
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
            await self._breathe(ends - begins)
        return self._intake(entries, 0, by_line=False)

    async def lines(self, text: bytes) -> Intake:
        """Read lines of NDJSON. Blank ones are passed over, and one that is wrong does not touch the others."""
        entries, untold, begins = list[Entry](), 0, 0
        if text.count(b"\n") > bodies.DOCUMENTS_MAX:
            raise _too_many("lines")
        for line in range(1, bodies.DOCUMENTS_MAX + 2):
            ends = text.find(b"\n", begins)
            ends = len(text) if ends < 0 else ends
            if not text[begins:ends].isspace() and begins < ends:
                entry = self._line(line, begins, ends)
                if not entry.id:
                    self._unread += 1
                    untold += self._unread > TOLD_LINES_MAX
                if entry.id or self._unread <= TOLD_LINES_MAX:
                    entries.append(entry)
            await self._breathe(ends - begins)
            begins = ends + 1
            if begins >= len(text):
                break
        return self._intake(entries, untold, by_line=True)

    def _line(self, line: int, begins: int, ends: int) -> Entry:
        where = f"line {line}: "
        try:
            entry = self._entry(line, begins, ends, where)
        except Invalid as error:
            return Entry(line, "", begins, ends, _kept(error))
        first = self._seen.setdefault(entry.id, line)
        if first == line:
            return entry
        again = Invalid(f"line {line} has the same id as line {first}", field=f"{where}id", code="duplicate_id")
        return Entry(line, "", begins, ends, again)

    def _entry(self, line: int, begins: int, ends: int, where: str) -> Entry:
        """Return a document's entry.

        Raises:
            Invalid: It is none.
        """
        data, told = self._data[begins:ends], self._unread < TOLD_LINES_MAX
        body = decode(data, bodies.PlainDocument, where, diagnosed=told)
        try:
            _metadata(body.metadata, f"{where}metadata", diagnosed=told)
        except OutOfRange as error:
            self._refused += 1
            refusal = _kept(error) if self._refused <= TOLD_LINES_MAX else _FURTHER
            return Entry(line, body.id, begins, ends, refusal)
        return Entry(line, body.id, begins, ends)

    def _intake(self, entries: list[Entry], untold: int, *, by_line: bool) -> Intake:
        good = [entry for entry in entries if entry.error is None]
        return Intake(self._ctx, Documents(self._data, good), entries, untold, by_line)

    async def _breathe(self, read_bytes: int) -> None:
        """Let the loop run on after each ``_TURN_BYTES``, and see whether there is time left.

        Raises:
            Expired: There is none.
        """
        self._spent_bytes += read_bytes + _DOCUMENT_BYTES
        if self._spent_bytes < _TURN_BYTES:
            return
        self._spent_bytes = 0
        await asyncio.sleep(0)
        if self._ctx.deadline.passed(self._clock.now()):
            raise Expired(self._ctx.deadline.operation, "the deadline passed while the documents were read")


def _kept(error: Invalid) -> Invalid:
    """Return an error without what it came from: frames and what they hold, kilobytes for each line."""
    error.__context__ = None
    return error.with_traceback(None)


def _too_many(what: str) -> Invalid:
    detail = f"the body holds more than {bodies.DOCUMENTS_MAX} {what}; send less at a time"
    return Invalid(detail, field="documents", code="too_many_documents")


def _document(data: memoryview, where: str) -> Document:
    body = decode(data, bodies.PlainDocument, where)
    metadata = _metadata(body.metadata, f"{where}metadata")
    return Document(body.id, body.text, body.path, named(body.language), metadata)


def _metadata(raw: msgspec.Raw, field: str, *, diagnosed: bool = True) -> dict[str, Any]:
    """Return metadata, decoded.

    Args:
        raw: The text.
        field: Its path, for errors.
        diagnosed: Whether the field inside is looked for where the text is no JSON.

    Raises:
        Invalid: It is none, too large or too deep.
        OutOfRange: It holds a number that cannot be kept.
    """
    size = memoryview(raw).nbytes
    if size == 0:
        return {}
    text = bytes(raw) if size <= _ESCAPED * bodies.METADATA_BYTES_MAX else b""
    # Both bounds hold before objects are made of it: those take up to forty times as much.
    if not text or sum(map(text.count, _WRITTEN_AS_KEPT)) > bodies.METADATA_BYTES_MAX:
        raise _too_large(field)
    try:
        metadata = decode(raw, _METADATA, f"{field}.", diagnosed=diagnosed) or {}
    except Invalid as error:
        # Of more than 64 bits by far; the decoder does not even make a number of it.
        if error.detail.endswith("out of range"):
            raise OutOfRange(error.detail, field=error.field) from None
        raise
    level: list[Any] = [metadata]
    for _ in range(bodies.METADATA_DEPTH_MAX):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, _NESTING)]
    if level:
        raise Invalid(f"metadata may be nested {bodies.METADATA_DEPTH_MAX} levels deep", field=field)
    try:
        # Finds a larger number in one go; which it is, is looked for only then.
        msgspec.msgpack.encode(metadata)
    except OverflowError:
        fault = first_fault(metadata, out_of_range) or Fault("", "it holds a number that cannot be kept")
        raise OutOfRange(fault.detail, field=field_of(f"{field}.", fault.field)) from None
    if len(msgspec.json.encode(metadata)) > bodies.METADATA_BYTES_MAX:
        raise _too_large(field)
    return metadata


def _too_large(field: str) -> Invalid:
    return Invalid(
        f"metadata is larger than {bodies.METADATA_BYTES_MAX} bytes; it is stored with every chunk, long text belongs"
        " into the text",
        field=field,
    )


def _inside(value: dict[str, Any] | list[Any]) -> Any:
    return value.values() if isinstance(value, dict) else value
