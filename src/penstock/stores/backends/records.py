"""Points and conditions as Qdrant keeps and asks them, in plain values: the same for the engine and for a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from penstock.kernel.late import LEVEL_MAX, TokenVectors
from penstock.stores.backends import facets
from penstock.stores.records import ChunkPayload, Condition, Head, Prefix, Range

#: Payload fields for filters on metadata, see :mod:`penstock.stores.backends.facets`.
FACETS: Final = "facets"
SCALES: Final = "scales"

#: The payload's field of the token vectors. They lie there, and not among the engine's vectors, since what each token
#: finds is wanted, not the sum that the engine tells; as text they are read an order of magnitude quicker. A component
#: is a character of ASCII: its level and ``_ASCII``.
TOKENS: Final = "late"
_ASCII: Final = LEVEL_MAX + 1

#: What a payload is read from.
FIELDS: Final = [field.name for field in msgspec.structs.fields(ChunkPayload)]

#: What a head is read from.
HEAD_FIELDS: Final = ["id", "hash", "chunks", "path"]

#: Indexed payload fields that hold keywords, and whether they are asked by prefix as well.
KEYWORDS: Final = {"id": False, "path": True, "language": False, FACETS: False}

#: The indexed payload field that holds integers.
CHUNK: Final = "chunk"


def record(payload: ChunkPayload, tokens: TokenVectors | None = None) -> dict[str, Any]:
    """Return a payload and token vectors as they are stored."""
    # Path and language are there even when empty: a filter may ask for that.
    kept = {
        **msgspec.to_builtins(msgspec.structs.replace(payload, metadata={})),
        "path": payload.path,
        "language": payload.language,
        "metadata": msgspec.json.encode(payload.metadata).decode(),
        FACETS: facets.facets(payload.metadata),
        SCALES: facets.scales(payload.metadata),
    }
    if tokens is not None:
        kept[TOKENS] = [len(tokens), (tokens + np.int8(_ASCII)).tobytes().decode("ascii")]
    return kept


def tokens(stored: dict[str, Any] | None) -> TokenVectors | None:
    """Return the token vectors again, ``int8 [rows, late]``, if there are any."""
    found = (stored or {}).get(TOKENS)
    if found is None:
        return None
    rows, text = found
    return np.frombuffer(text.encode("ascii"), np.int8).reshape(rows, -1) - np.int8(_ASCII)


def payload(stored: dict[str, Any] | None) -> ChunkPayload:
    """Return the payload again; ``FIELDS`` of what is stored are enough."""
    fields = {key: value for key, value in (stored or {}).items() if key not in (FACETS, SCALES, TOKENS)}
    fields["metadata"] = msgspec.json.decode(fields["metadata"])
    return msgspec.convert(fields, ChunkPayload)


def head(stored: dict[str, Any] | None) -> Head:
    """Return the head that a stored payload tells of, or ``HEAD_FIELDS`` of one."""
    fields = stored or {}
    return Head(
        id=fields.get("id", ""),
        hash=fields.get("hash", ""),
        chunks=fields.get("chunks", 0),
        path=fields.get("path", ""),
    )


@dataclass(frozen=True, slots=True)
class OneOf:
    """The stored field holds one of the values."""

    field: str
    values: list[Any]


@dataclass(frozen=True, slots=True)
class Begins:
    """The stored field, a keyword, begins with ``prefix``, which is not empty."""

    field: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Between:
    """The stored field lies between bounds, by their names ``gt``, ``gte``, ``lt``, ``lte``.

    Attributes:
        field: Path of the field.
        bounds: The bounds that are there.
        timed: Whether they are date-times, not numbers.
    """

    field: str
    bounds: dict[str, Any]
    timed: bool


Test = OneOf | Begins | Between


def tested(condition: Condition) -> Test | None:
    """Return what is tested of stored payloads; ``None`` for a condition that always holds."""
    key = condition.key
    if isinstance(condition, Prefix):
        # Qdrant's own prefix of nothing matches nothing.
        return Begins(key, condition.prefix) if condition.prefix else None
    of_metadata = key.startswith(facets.METADATA)
    if isinstance(condition, Range):
        path = f'{SCALES}."{facets.scale_key(key.removeprefix(facets.METADATA))}"'
        return _between(path if of_metadata else key, condition)
    if of_metadata:
        path = key.removeprefix(facets.METADATA)
        return OneOf(FACETS, [facets.facet(path, value) for value in condition.values])
    # A record's own fields are strings and integers only.
    return OneOf(key, list(condition.values))


def _between(field: str, condition: Range) -> Between:
    bounds = {name: bound for name in ("gt", "gte", "lt", "lte") if (bound := getattr(condition, name)) is not None}
    return Between(field, bounds, any(isinstance(bound, str) for bound in bounds.values()))
