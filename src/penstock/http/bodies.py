"""Records of request bodies, and their bounds."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from penstock.kernel.defaults import Defaulted, OrNull
from penstock.kernel.messages import TextKind
from penstock.ranking.records import FusionName
from penstock.search import filters
from penstock.search.records import LIMIT_MAX, VISIBLE, Weights

#: Texts in one request to a model.
TEXTS_MAX: Final = 1000

#: Ids in one request to delete.
IDS_MAX: Final = 10_000

#: Characters of a document's id, and of its path.
ID_CHARACTERS_MAX: Final = 4096
PATH_CHARACTERS_MAX: Final = 4096

#: Documents in one request, and lines of NDJSON, blank ones included.
DOCUMENTS_MAX: Final = 10_000

#: A wish for a deadline may not exceed an hour.
TIMEOUT_MS_MAX: Final = 3_600_000

#: A document's metadata is stored with each of its chunks, so it must stay small.
METADATA_BYTES_MAX: Final = 65_536
METADATA_DEPTH_MAX: Final = 32

#: A whole number, with or without a point: clients whose only number is a float write ``5.0``, and JSON Schema calls
#: that an integer.
Whole = Annotated[float, Meta(multiple_of=1)]

#: The bounds of these are checked by the search room, whose sentences say more.
Query = Annotated[str, Meta(extra_json_schema={"minLength": 1, "pattern": VISIBLE})]
Limit = Annotated[Whole, Meta(extra_json_schema={"minimum": 1, "maximum": LIMIT_MAX})]
Conditions = Annotated[dict[str, Any], Meta(extra_json_schema=filters.SCHEMA)]

Texts = Annotated[list[str], Meta(min_length=1, max_length=TEXTS_MAX)]
TimeoutMs = Annotated[Whole, Meta(ge=1, le=TIMEOUT_MS_MAX)]
Path = Annotated[str, Meta(max_length=PATH_CHARACTERS_MAX)]
#: An empty one is refused by the operation, whose sentence says what to do instead.
Ids = Annotated[list[Annotated[str, Meta(max_length=ID_CHARACTERS_MAX)]], Meta(max_length=IDS_MAX)]
PathPrefix = Annotated[str, Meta(max_length=PATH_CHARACTERS_MAX, extra_json_schema={"minLength": 1})]


class SearchBody(Defaulted, frozen=True, forbid_unknown_fields=True):
    """A search.

    Attributes:
        query: What to look for, in words or code.
        limit: Hits wanted.
        filter: Conditions that all must hold: `id`, `path`, `language` or `metadata.<key>` to a value
            or a list of values; `path_prefix` to a string; `metadata.<key>` to a range of numbers or
            times, `{"gte": 2020, "lt": 2024}` (`gt`, `gte`, `lt`, `lte`). 64 conditions and 1000 values at most.
        rerank: Whether candidates are rescored after the fusion.
        explain: Whether each hit tells its rank and score at every stage.
        timeout_ms: A tighter deadline than the server's own.
        weights: How much each arm counts.
        fusion: How the arms are put together.
        strict: Whether a refusal is better than an answer that had to leave something out.
    """

    query: Query
    limit: OrNull[Limit] = 10
    filter: OrNull[Conditions] = msgspec.field(default_factory=dict)
    rerank: OrNull[bool] = True
    explain: OrNull[bool] = False
    timeout_ms: TimeoutMs | None = None
    weights: OrNull[Weights] = Weights()
    fusion: OrNull[FusionName] = "rrf"
    strict: OrNull[bool] = False


class _DocumentFields(Defaulted, frozen=True, forbid_unknown_fields=True):
    """All of a document but its metadata."""

    id: Annotated[str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX)]
    text: str
    path: OrNull[Path] = ""
    language: OrNull[Annotated[str, Meta(max_length=64)]] = ""


class DocumentBody(_DocumentFields, frozen=True, forbid_unknown_fields=True):
    """A document to index.

    Attributes:
        id: Any Unicode; a document of the same id is replaced.
        text: The whole text.
        path: Shown with its hits, and what `path_prefix` looks at.
        language: Name of a language, in any case; guessed from the path when empty.
        metadata: Anything to filter by and to get back, up to 64 KiB; integers of at most 64 bits. It is stored with
            each chunk, so its size times their number is at most 1 MiB, or eight times the text.
    """

    metadata: OrNull[dict[str, Any]] = msgspec.field(default_factory=dict)


class PlainDocument(_DocumentFields, frozen=True, forbid_unknown_fields=True):
    """As ``DocumentBody``, its metadata not yet decoded: that costs up to twenty times its size."""

    metadata: msgspec.Raw = msgspec.Raw()


class DocumentsBody(Defaulted, frozen=True, forbid_unknown_fields=True):
    """Documents to index, each id once.

    Attributes:
        documents: The documents.
        timeout_ms: A deadline for all of them.
    """

    documents: Annotated[list[DocumentBody], Meta(max_length=DOCUMENTS_MAX)]
    timeout_ms: TimeoutMs | None = None


class PlainDocuments(Defaulted, frozen=True, forbid_unknown_fields=True):
    """As ``DocumentsBody``, its documents not yet decoded."""

    documents: msgspec.Raw
    timeout_ms: TimeoutMs | None = None


class DeleteBody(Defaulted, frozen=True, forbid_unknown_fields=True):
    """Which documents to delete: either by ids or by the beginning of their paths.

    Attributes:
        ids: Their ids; one that does not exist is passed over.
        path_prefix: The beginning of their paths; not empty.
    """

    ids: Ids | None = None
    path_prefix: PathPrefix | None = None


class CollectionBody(Defaulted, frozen=True, forbid_unknown_fields=True):
    """A new collection's layout; nothing can be chosen yet."""


class RestoreBody(Defaulted, frozen=True, forbid_unknown_fields=True):
    """How to restore a snapshot.

    Attributes:
        force: Whether collections that are there may be replaced.
    """

    force: OrNull[bool] = False


class EmbedBody(Defaulted, frozen=True, forbid_unknown_fields=True):
    """Texts to embed.

    Attributes:
        texts: The texts; what the model cannot read of one is left out.
        kind: Whether they are searched for or searched in.
        timeout_ms: A deadline for all of them.
    """

    texts: Texts
    kind: OrNull[TextKind] = TextKind.DOCUMENT
    timeout_ms: TimeoutMs | None = None


class SparseBody(Defaulted, frozen=True, forbid_unknown_fields=True):
    """Texts to encode as sparse vectors.

    Attributes:
        texts: The texts.
        kind: Whether they are searched for or searched in: the two are weighted differently.
        timeout_ms: A deadline for all of them.
    """

    texts: Texts
    kind: OrNull[TextKind] = TextKind.DOCUMENT
    timeout_ms: TimeoutMs | None = None


class RerankBody(Defaulted, frozen=True, forbid_unknown_fields=True):
    """Texts to score against a query.

    Attributes:
        query: What they should answer.
        texts: The texts.
        timeout_ms: A deadline for all of them.
    """

    query: Annotated[str, Meta(min_length=1)]
    texts: Texts
    timeout_ms: TimeoutMs | None = None


#: What holds between a record's fields, in JSON Schema.
RULES: Final[dict[str, Any]] = {
    "DeleteBody": {
        "oneOf": [
            {"required": ["ids"], "properties": {"ids": {"type": "array"}, "path_prefix": {"type": "null"}}},
            {"required": ["path_prefix"], "properties": {"path_prefix": {"type": "string"}, "ids": {"type": "null"}}},
        ]
    },
    "Weights": {
        "anyOf": [
            {"properties": {"dense": {"exclusiveMinimum": 0}}},
            {"properties": {"sparse": {"exclusiveMinimum": 0}}},
        ]
    },
}
