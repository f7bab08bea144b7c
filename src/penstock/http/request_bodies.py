"""Records of request bodies, and their bounds."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from penstock.kernel.messages import TextKind
from penstock.ranking.retrieval import FusionName
from penstock.search import request
from penstock.search.request import LIMIT_MAX, VISIBLE_CHARACTER, ArmWeights, NullAsDefault, OrNull

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
WholeNumber = Annotated[float, Meta(multiple_of=1)]

#: The bounds of these are checked by :mod:`penstock.search`, whose errors say more.
Query = Annotated[str, Meta(extra_json_schema={"minLength": 1, "pattern": VISIBLE_CHARACTER})]
Limit = Annotated[WholeNumber, Meta(extra_json_schema={"minimum": 1, "maximum": LIMIT_MAX})]
FilterConditions = Annotated[dict[str, Any], Meta(extra_json_schema=request.FILTER_SCHEMA)]

Texts = Annotated[list[str], Meta(min_length=1, max_length=TEXTS_MAX)]
TimeoutMs = Annotated[WholeNumber, Meta(ge=1, le=TIMEOUT_MS_MAX)]
Path = Annotated[str, Meta(max_length=PATH_CHARACTERS_MAX)]
#: An empty one is refused by the operation, whose error says what to do instead.
Ids = Annotated[list[Annotated[str, Meta(max_length=ID_CHARACTERS_MAX)]], Meta(max_length=IDS_MAX)]
PathPrefix = Annotated[str, Meta(max_length=PATH_CHARACTERS_MAX, extra_json_schema={"minLength": 1})]


class SearchBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Search request.

    Attributes:
        query: What to look for, in words or code.
        limit: Number of hits to return at most.
        filter: Conditions that all must hold: `id`, `path`, `language` or `metadata.<key>` to a value
            or a list of values; `path_prefix` to a string; `metadata.<key>` to a range of numbers or
            times, `{"gte": 2020, "lt": 2024}` (`gt`, `gte`, `lt`, `lte`). 64 conditions and 1000 values at most.
        rerank: Whether candidates are rescored after the fusion.
        explain: Whether each hit includes its rank and score at every stage.
        timeout_ms: Time limit in milliseconds, if tighter than the server's own.
        weights: Weights of the dense and the sparse arm in the fusion.
        fusion: Method that fuses the rankings of the arms.
        strict: Whether the request is refused rather than answered with a degraded result.
    """

    query: Query
    limit: OrNull[Limit] = 10
    filter: OrNull[FilterConditions] = msgspec.field(default_factory=dict)
    rerank: OrNull[bool] = True
    explain: OrNull[bool] = False
    timeout_ms: TimeoutMs | None = None
    weights: OrNull[ArmWeights] = ArmWeights()
    fusion: OrNull[FusionName] = "rrf"
    strict: OrNull[bool] = False


class _DocumentFields(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """All of a document but its metadata."""

    id: Annotated[str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX)]
    text: str
    path: OrNull[Path] = ""
    language: OrNull[Annotated[str, Meta(max_length=64)]] = ""


class DocumentBody(_DocumentFields, frozen=True, forbid_unknown_fields=True):
    """A document to index.

    Attributes:
        id: Any Unicode text. A document with the same id is replaced.
        text: The whole text.
        path: Path shown with its hits and matched by `path_prefix`.
        language: Name of its language, in any case. Guessed from the path when empty.
        metadata: JSON object to filter by and to return with hits, up to 64 KiB, with integers of at most 64 bits. It
            is stored with each chunk, so its size times their number is at most 1 MiB, or eight times the text if
            that is more.
    """

    metadata: OrNull[dict[str, Any]] = msgspec.field(default_factory=dict)


class RawDocument(_DocumentFields, frozen=True, forbid_unknown_fields=True):
    """``DocumentBody`` with its metadata still encoded, since decoding takes up to twenty times its size."""

    metadata: msgspec.Raw = msgspec.Raw()


class DocumentsBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Documents to index, each id once.

    Attributes:
        documents: The documents.
        timeout_ms: Time limit in milliseconds for the whole request.
    """

    documents: Annotated[list[DocumentBody], Meta(max_length=DOCUMENTS_MAX)]
    timeout_ms: TimeoutMs | None = None


class RawDocuments(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """``DocumentsBody`` with its documents still encoded."""

    documents: msgspec.Raw
    timeout_ms: TimeoutMs | None = None


class DeleteBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Selection of documents to delete: either by ids or by path prefix.

    Attributes:
        ids: Ids of the documents. Unknown ids are ignored.
        path_prefix: Prefix of the documents' paths. Not empty.
    """

    ids: Ids | None = None
    path_prefix: PathPrefix | None = None


class CollectionBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Options of a new collection. There are none yet."""


class RestoreBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Options for restoring a snapshot.

    Attributes:
        force: Whether existing collections may be replaced.
    """

    force: OrNull[bool] = False


class EmbedBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Texts to embed.

    Attributes:
        texts: The texts. The part of a text beyond the model's input is left out.
        kind: Role of the texts in a search: `query` or `document`.
        timeout_ms: Time limit in milliseconds for the whole request.
    """

    texts: Texts
    kind: OrNull[TextKind] = TextKind.DOCUMENT
    timeout_ms: TimeoutMs | None = None


class SparseBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Texts to encode as sparse vectors.

    Attributes:
        texts: The texts.
        kind: Role of the texts in a search: `query` or `document`. The two are weighted differently.
        timeout_ms: Time limit in milliseconds for the whole request.
    """

    texts: Texts
    kind: OrNull[TextKind] = TextKind.DOCUMENT
    timeout_ms: TimeoutMs | None = None


class RerankBody(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Texts to score against a query.

    Attributes:
        query: The query that the texts should answer.
        texts: The texts.
        timeout_ms: Time limit in milliseconds for the whole request.
    """

    query: Annotated[str, Meta(min_length=1)]
    texts: Texts
    timeout_ms: TimeoutMs | None = None


#: Rules between a record's fields, in JSON Schema.
SCHEMA_RULES: Final[dict[str, Any]] = {
    "DeleteBody": {
        "oneOf": [
            {"required": ["ids"], "properties": {"ids": {"type": "array"}, "path_prefix": {"type": "null"}}},
            {"required": ["path_prefix"], "properties": {"path_prefix": {"type": "string"}, "ids": {"type": "null"}}},
        ]
    },
    "ArmWeights": {
        "anyOf": [
            {"properties": {"dense": {"exclusiveMinimum": 0}}},
            {"properties": {"sparse": {"exclusiveMinimum": 0}}},
        ]
    },
}
