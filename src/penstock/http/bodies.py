"""Request bodies: decoded strictly, with the offending field named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from penstock.http.diagnosis import find_fault
from penstock.indexing.records import Document
from penstock.kernel.errors import Invalid
from penstock.kernel.messages import TextKind
from penstock.ranking.records import FusionName
from penstock.search.records import LIMIT_MAX, Weights

T = TypeVar("T")

#: Texts in one request to a model.
TEXTS_MAX: Final = 1000

#: A wish for a deadline may not exceed an hour.
TIMEOUT_MS_MAX: Final = 3_600_000

#: A document's metadata is stored with each of its chunks, so it must stay small.
METADATA_BYTES_MAX: Final = 65_536
METADATA_DEPTH_MAX: Final = 32

_UNKNOWN: Final = re.compile(r"unknown field `(.*?)`")
_MISSING: Final = re.compile(r"missing required field `(.*?)`")
_AT: Final = re.compile(r" - at `(?:key in )?\$\.?(.*?)`$")

#: Its bounds are checked by the search room, whose sentence says both.
Limit = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": LIMIT_MAX})]
Texts = Annotated[list[str], Meta(min_length=1, max_length=TEXTS_MAX)]
TimeoutMs = Annotated[int, Meta(ge=1, le=TIMEOUT_MS_MAX)]


class SearchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search.

    Attributes:
        query: What to look for, in words or code.
        limit: Hits wanted.
        filter: Conditions that all must hold: `id`, `path`, `language` or `metadata.<key>` to a value
            or a list of values; `path_prefix` to a string; `metadata.<key>` to a range of numbers or
            times, `{"gte": 2020, "lt": 2024}` (`gt`, `gte`, `lt`, `lte`).
        rerank: Whether candidates are rescored after the fusion.
        explain: Whether each hit tells its rank and score at every stage.
        timeout_ms: A tighter deadline than the server's own.
        weights: How much each arm counts.
        fusion: How the arms are put together.
        strict: Whether a refusal is better than an answer that had to leave something out.
    """

    query: str
    limit: Limit = 10
    filter: dict[str, Any] = msgspec.field(default_factory=dict)
    rerank: bool = True
    explain: bool = False
    timeout_ms: TimeoutMs | None = None
    weights: Weights = Weights()
    fusion: FusionName = "rrf"
    strict: bool = False


class DocumentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document to index.

    Attributes:
        id: Any Unicode; a document of the same id is replaced.
        text: The whole text.
        path: Shown with its hits, and what `path_prefix` looks at.
        language: Lower-case language name; guessed from the path when empty.
        metadata: Anything to filter by and to get back, up to 64 KiB.
    """

    id: Annotated[str, Meta(min_length=1, max_length=4096)]
    text: str
    path: Annotated[str, Meta(max_length=4096)] = ""
    language: Annotated[str, Meta(max_length=64)] = ""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class DocumentsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Documents to index, each id once; any number that fits into one body.

    Attributes:
        documents: The documents.
        timeout_ms: A deadline for all of them.
    """

    documents: list[DocumentBody]
    timeout_ms: TimeoutMs | None = None


class _RawDocuments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As ``DocumentsBody``, documents not yet decoded: their errors shall name their number."""

    documents: list[msgspec.Raw]
    timeout_ms: TimeoutMs | None = None


class DeleteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which documents to delete: either by ids or by the beginning of their paths.

    Attributes:
        ids: Their ids; one that does not exist is passed over.
        path_prefix: The beginning of their paths; not empty.
    """

    ids: Annotated[list[str], Meta(max_length=10_000)] | None = None
    path_prefix: str | None = None


class CollectionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new collection's layout; nothing can be chosen yet."""


class RestoreBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to restore a snapshot.

    Attributes:
        force: Whether collections that are there may be replaced.
    """

    force: bool = False


class EmbedBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts to embed.

    Attributes:
        texts: The texts; what the model cannot read of one is left out.
        kind: Whether they are searched for or searched in.
        timeout_ms: A deadline for all of them.
    """

    texts: Texts
    kind: TextKind = TextKind.DOCUMENT
    timeout_ms: TimeoutMs | None = None


class SparseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts to encode as sparse vectors.

    Attributes:
        texts: The texts.
        kind: Whether they are searched for or searched in: the two are weighted differently.
        timeout_ms: A deadline for all of them.
    """

    texts: Texts
    kind: TextKind = TextKind.DOCUMENT
    timeout_ms: TimeoutMs | None = None


class RerankBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts to score against a query.

    Attributes:
        query: What they should answer.
        texts: The texts.
        timeout_ms: A deadline for all of them.
    """

    query: Annotated[str, Meta(min_length=1)]
    texts: Texts
    timeout_ms: TimeoutMs | None = None


class BadLine(msgspec.Struct, frozen=True):
    """A line of NDJSON that is no document."""

    line: int
    error: Invalid


def decode(data: bytes, kind: type[T], where: str = "") -> T:
    """Decode a JSON body.

    Args:
        data: The body.
        kind: What it should be.
        where: Prefix of the field named in an error, e.g. ``documents[3].`` or ``line 3: ``.

    Raises:
        Invalid: With the field; code ``malformed`` when it is not JSON at all.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _validation(str(error), where) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(data, error, where) from None


def decode_documents(data: bytes) -> tuple[list[Document], int | None]:
    """Decode a JSON body of documents; return them and the request's ``timeout_ms``.

    Raises:
        Invalid: Naming the first document that is wrong; ids must be distinct.
    """
    body = decode(data, _RawDocuments)
    documents = [_document(bytes(raw), f"documents[{number}].") for number, raw in enumerate(body.documents)]
    seen: dict[str, int] = {}
    for number, document in enumerate(documents):
        first = seen.setdefault(document.id, number)
        if first != number:
            raise Invalid(
                f"documents[{number}] has the same id as documents[{first}]",
                field=f"documents[{number}].id",
                code="duplicate_id",
            )
    return documents, body.timeout_ms


def decode_lines(data: bytes) -> Iterator[tuple[int, Document | Invalid]]:
    """Decode NDJSON; yield each line's number, from 1, and its document or what is wrong.

    Blank lines are passed over. A bad line does not touch its neighbours.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            document = _document(line, f"line {number}: ")
        except Invalid as error:
            yield number, error
            continue
        first = seen.setdefault(document.id, number)
        if first == number:
            yield number, document
        else:
            detail = f"line {number} has the same id as line {first}"
            yield number, Invalid(detail, field=f"line {number}: id", code="duplicate_id")


def whole_number(text: str, field: str, most: int) -> int:
    """Return the number from 1 to ``most`` that a header or a query parameter says.

    Raises:
        Invalid: It says something else.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise Invalid(f"{field} must be a whole number between 1 and {most}", field=field)
    return int(text)


def _document(data: bytes, where: str) -> Document:
    body = decode(data, DocumentBody, where)
    if body.metadata:
        _check_metadata(body.metadata, f"{where}metadata")
    return Document(body.id, body.text, body.path, body.language.lower(), body.metadata)


def _check_metadata(metadata: dict[str, Any], field: str) -> None:
    level: list[Any] = [metadata]
    for _ in range(METADATA_DEPTH_MAX):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
    if level:
        raise Invalid(f"metadata may be nested {METADATA_DEPTH_MAX} levels deep", field=field)
    if len(msgspec.json.encode(metadata)) > METADATA_BYTES_MAX:
        raise Invalid(
            f"metadata is larger than {METADATA_BYTES_MAX} bytes; it is stored with every chunk, long text belongs"
            " into the text",
            field=field,
        )


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _malformed(data: bytes, error: Exception, where: str) -> Invalid:
    """Say why it is not JSON, naming the field where that can be found out."""
    fault = find_fault(data)
    if fault is not None:
        return Invalid(fault.detail, field=_field(where, fault.field), code="malformed")
    what = where.rstrip(": ") or "the body"
    if not data.strip():
        reason = "it is empty"
    elif isinstance(error, RecursionError):
        reason = "it is nested too deeply"
    elif isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8"
    else:
        reason = str(error)
    return Invalid(f"{what} cannot be read as JSON: {reason}", field=_field(where, ""), code="malformed")


def _validation(message: str, where: str) -> Invalid:
    """Turn msgspec's sentence into ours, with the field's path."""
    at = _AT.search(message)
    detail = message[: at.start()] if at else message
    parts = [at.group(1)] if at and at.group(1) else []
    unnamed = _UNKNOWN.search(message) or _MISSING.search(message)
    if unnamed:
        parts.append(unnamed.group(1))
    return Invalid(detail, field=_field(where, ".".join(parts)))


def _field(where: str, path: str) -> str:
    """Return a field's full path; a path's own index follows its prefix without a dot."""
    return f"{where}{path}" if path else where.rstrip(".: ") or "body"
