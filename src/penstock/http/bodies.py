"""Request bodies: decoded strictly, with the offending field named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from penstock.indexing.records import Document
from penstock.kernel.errors import Invalid
from penstock.kernel.messages import TextKind
from penstock.search.records import FusionName, Weights

T = TypeVar("T")

#: Texts in one request to a model.
TEXTS_MAX: Final = 1000

_UNKNOWN: Final = re.compile(r"unknown field `(.*?)`")
_MISSING: Final = re.compile(r"missing required field `(.*?)`")
_AT: Final = re.compile(r" - at `(?:key in )?\$\.?(.*?)`$")

Texts = Annotated[list[str], Meta(min_length=1, max_length=TEXTS_MAX)]
TimeoutMs = Annotated[int, Meta(ge=1, le=3_600_000)]


class SearchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search."""

    query: str
    limit: int = 10
    filter: dict[str, Any] = msgspec.field(default_factory=dict)
    rerank: bool = True
    explain: bool = False
    timeout_ms: TimeoutMs | None = None
    weights: Weights = Weights()
    fusion: FusionName = "rrf"


class DocumentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document to index."""

    id: Annotated[str, Meta(min_length=1, max_length=4096)]
    text: str
    path: Annotated[str, Meta(max_length=4096)] = ""
    language: Annotated[str, Meta(max_length=64)] = ""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class DocumentsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Documents to index."""

    documents: list[DocumentBody]
    timeout_ms: TimeoutMs | None = None


class _RawDocuments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As ``DocumentsBody``, documents not yet decoded: their errors shall name their number."""

    documents: list[msgspec.Raw]
    timeout_ms: TimeoutMs | None = None


class DeleteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which documents to delete: by ids or by the beginning of their paths."""

    ids: Annotated[list[str], Meta(max_length=10_000)] | None = None
    path_prefix: str | None = None


class CollectionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new collection's layout; nothing can be chosen yet."""


class EmbedBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts to embed."""

    texts: Texts
    kind: TextKind = TextKind.DOCUMENT
    timeout_ms: TimeoutMs | None = None


class SparseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts to encode as sparse vectors."""

    texts: Texts
    kind: TextKind = TextKind.DOCUMENT
    timeout_ms: TimeoutMs | None = None


class RerankBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts to score against a query."""

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
        where: Prefix of the field named in an error, e.g. ``documents[3]``.

    Raises:
        Invalid: With the field; code ``malformed`` when it is not JSON at all.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _validation(str(error), where) from None
    except (msgspec.DecodeError, RecursionError) as error:
        detail = f"the body is not JSON: {error}"
        raise Invalid(detail, field=where or "body", code="malformed") from None


def decode_documents(data: bytes) -> tuple[list[Document], int | None]:
    """Decode a JSON body of documents; return them and the request's ``timeout_ms``.

    Raises:
        Invalid: Naming the first document that is wrong; ids must be distinct.
    """
    body = decode(data, _RawDocuments)
    documents = [
        _document(decode(bytes(raw), DocumentBody, f"documents[{number}]")) for number, raw in enumerate(body.documents)
    ]
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
        where = f"line {number}"
        try:
            document = _document(decode(line, DocumentBody, where))
        except Invalid as error:
            yield number, error
            continue
        first = seen.setdefault(document.id, number)
        if first == number:
            yield number, document
        else:
            detail = f"{where} has the same id as line {first}"
            yield number, Invalid(detail, field=f"{where}: id", code="duplicate_id")


def _document(body: DocumentBody) -> Document:
    return Document(body.id, body.text, body.path, body.language.lower(), body.metadata)


def _validation(message: str, where: str) -> Invalid:
    """Turn msgspec's sentence into ours, with the field's path."""
    at = _AT.search(message)
    parts = [where] if where else []
    if at and at.group(1):
        parts.append(at.group(1))
    detail = message[: at.start()] if at else message
    unnamed = _UNKNOWN.search(message) or _MISSING.search(message)
    if unnamed:
        parts.append(unnamed.group(1))
    return Invalid(detail, field=".".join(parts))
