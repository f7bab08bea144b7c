"""Payloads and filter conditions in Qdrant's form, as plain values: the same for the engine and for a server."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec
import numpy as np

from penstock.kernel.late_interaction import LEVEL_MAX, TokenVectors
from penstock.stores.data_model import (
    ChunkPayload,
    ChunkVectors,
    Condition,
    DocumentInfo,
    Except,
    PendingChunk,
    Point,
    Prefix,
    Range,
    Scalar,
)
from penstock.stores.timestamps import to_utc_rfc3339

#: Prefix of metadata keys in conditions.
METADATA_PREFIX: Final = "metadata."

#: A longer facet is replaced by its digest: the index keeps every distinct one.
FACET_CHARACTERS_MAX: Final = 256

#: Longer integers are kept as floats for ranges.
INTEGER_BITS: Final = 63


def flatten(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    """Yield every scalar below ``metadata`` with its path; items of a list have the list's path."""
    rest: list[tuple[str, Any]] = list(metadata.items())
    while rest:
        path, value = rest.pop()
        if isinstance(value, Mapping):
            rest.extend((f"{path}.{key}", inner) for key, inner in value.items())
        elif isinstance(value, list | tuple):
            rest.extend((path, inner) for inner in value)
        elif value is not None:
            yield path, value


def facet(path: str, value: Scalar) -> str:
    """Return the keyword of one value; 1 and 1.0 are the same, as in JSON, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # An integer may lie beyond the 64 bits that the encoder writes.
    said = str(value) if type(value) is int else value
    text = msgspec.json.encode((path, type(value).__name__, said)).decode()
    if len(text) <= FACET_CHARACTERS_MAX:
        return text
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def facets(metadata: Mapping[str, Any]) -> list[str]:
    """Return the distinct keywords of every value."""
    return list(dict.fromkeys(facet(path, value) for path, value in flatten(metadata)))


def range_values(metadata: Mapping[str, Any]) -> dict[str, list[float | str]]:
    """Return numbers and times by their keys, see :func:`range_key`."""
    found: dict[str, list[float | str]] = {}
    for path, value in flatten(metadata):
        measure = value
        if isinstance(value, str):
            measure = to_utc_rfc3339(value) or ""
        if type(measure) is int and measure.bit_length() > INTEGER_BITS:
            measure = _rounded(measure)
        if not isinstance(measure, bool) and measure != "":
            found.setdefault(range_key(path), []).append(measure)
    return found


def _rounded(number: int) -> float:
    """Return an integer beyond 64 bits as the float by which stores compare it."""
    try:
        return float(number)
    except OverflowError:
        return math.copysign(sys.float_info.max, number)


def range_key(path: str) -> str:
    """Return a path as one key without a character that means something to the engine."""
    return quote(path, safe="", errors="surrogatepass").replace(".", "%2E")


#: Payload fields for filters on metadata, see :mod:`penstock.stores.backends.payload_format`.
FACETS_FIELD: Final = "facets"
RANGES_FIELD: Final = "scales"

#: The payload's field of the token vectors. They lie there, and not among the engine's vectors, since what each token
#: finds is wanted, not the sum that the engine tells; as text they are read an order of magnitude quicker. A component
#: is a character of ASCII: its level and ``_ASCII``.
TOKEN_VECTORS_FIELD: Final = "late"  # noqa: S105 - a name
_ASCII: Final = LEVEL_MAX + 1

#: Fields from which a payload is read.
CHUNK_PAYLOAD_FIELDS: Final = [field.name for field in msgspec.structs.fields(ChunkPayload)]

#: Fields from which a document's head is read.
DOCUMENT_FIELDS: Final = ["id", "hash", "chunks", "path", "source"]

#: Fields from which a chunk without a dense vector is read.
PENDING_FIELDS: Final = ["id", "chunk", "path", "language"]

#: Indexed payload fields that hold keywords, and whether they are asked by prefix as well.
KEYWORD_FIELDS: Final = {"id": False, "path": True, "language": False, "source": False, FACETS_FIELD: False}

#: The indexed payload field that holds integers.
CHUNK_FIELD: Final = "chunk"


def encode_payload(payload: ChunkPayload, token_vectors: TokenVectors | None = None) -> dict[str, Any]:
    """Return a payload and token vectors as they are stored."""
    # Path and language are there even when empty: a filter may ask for that.
    kept = {
        **msgspec.to_builtins(msgspec.structs.replace(payload, metadata={})),
        "path": payload.path,
        "language": payload.language,
        "metadata": msgspec.json.encode(payload.metadata).decode(),
        FACETS_FIELD: facets(payload.metadata),
        RANGES_FIELD: range_values(payload.metadata),
    }
    if token_vectors is not None:
        kept[TOKEN_VECTORS_FIELD] = [len(token_vectors), (token_vectors + np.int8(_ASCII)).tobytes().decode("ascii")]
    return kept


def decode_token_vectors(stored: dict[str, Any] | None) -> TokenVectors | None:
    """Return the token vectors again, ``int8 [rows, token_dim]``, if there are any."""
    found = (stored or {}).get(TOKEN_VECTORS_FIELD)
    if found is None:
        return None
    rows, text = found
    return np.frombuffer(text.encode("ascii"), np.int8).reshape(rows, -1) - np.int8(_ASCII)


def decode_payload(stored: dict[str, Any] | None) -> ChunkPayload:
    """Return the payload again; ``CHUNK_PAYLOAD_FIELDS`` of it are enough."""
    fields = {
        key: value
        for key, value in (stored or {}).items()
        if key not in (FACETS_FIELD, RANGES_FIELD, TOKEN_VECTORS_FIELD)
    }
    fields["metadata"] = msgspec.json.decode(fields["metadata"])
    return msgspec.convert(fields, ChunkPayload)


def with_vectors(point: Point, vectors: ChunkVectors) -> Point | None:
    """Return a stored point with the vectors that it lacks; ``None`` if it lacks none, or those of another text."""
    if point.dense is not None or point.payload.pending != vectors.pending:
        return None
    payload = msgspec.structs.replace(point.payload, pending="")
    return Point(payload, vectors.dense, point.sparse, vectors.token_vectors)


def decode_document(stored: dict[str, Any] | None) -> DocumentInfo:
    """Return the document's head from a stored payload, or from ``DOCUMENT_FIELDS`` of one."""
    fields = stored or {}
    return DocumentInfo(
        id=fields.get("id", ""),
        hash=fields.get("hash", ""),
        chunks=fields.get("chunks", 0),
        path=fields.get("path", ""),
        source=fields.get("source", ""),
    )


def decode_pending(stored: dict[str, Any] | None) -> PendingChunk:
    """Return a chunk without a dense vector from a stored payload, or from ``PENDING_FIELDS`` of one."""
    fields = stored or {}
    return PendingChunk(*(fields[name] for name in PENDING_FIELDS))


@dataclass(frozen=True, slots=True)
class FieldIn:
    """The stored field holds one of the values."""

    field: str
    values: list[Any]


@dataclass(frozen=True, slots=True)
class FieldNotIn:
    """The stored field holds something, and none of the values."""

    field: str
    values: list[Any]


@dataclass(frozen=True, slots=True)
class FieldStartsWith:
    """The stored field, a keyword, begins with ``prefix``, which is not empty."""

    field: str
    prefix: str


@dataclass(frozen=True, slots=True)
class FieldInRange:
    """The stored field lies between bounds, by their names ``gt``, ``gte``, ``lt``, ``lte``."""

    field: str
    bounds: dict[str, Any]
    is_datetime: bool


FieldTest = FieldIn | FieldNotIn | FieldStartsWith | FieldInRange


def to_field_test(condition: Condition) -> FieldTest | None:
    """Return a condition as a test of stored fields; ``None`` for a condition that always holds."""
    key = condition.key
    if isinstance(condition, Prefix):
        # Qdrant's own prefix of nothing matches nothing.
        return FieldStartsWith(key, condition.prefix) if condition.prefix else None
    if isinstance(condition, Except):
        return FieldNotIn(key, list(condition.values))
    of_metadata = key.startswith(METADATA_PREFIX)
    if isinstance(condition, Range):
        path = f'{RANGES_FIELD}."{range_key(key.removeprefix(METADATA_PREFIX))}"'
        return _between(path if of_metadata else key, condition)
    if of_metadata:
        path = key.removeprefix(METADATA_PREFIX)
        return FieldIn(FACETS_FIELD, [facet(path, value) for value in condition.values])
    # A record's own fields are strings and integers only.
    return FieldIn(key, list(condition.values))


def _between(field: str, condition: Range) -> FieldInRange:
    bounds = {name: bound for name in ("gt", "gte", "lt", "lte") if (bound := getattr(condition, name)) is not None}
    return FieldInRange(field, bounds, any(isinstance(bound, str) for bound in bounds.values()))
