"""Records of the tools' arguments and answers; their JSON Schemas are what agents see."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from penstock.kernel.records import NullAsDefault, OrNull
from penstock.search.request import COLLECTIONS_MAX, NAME_CHARACTERS_MAX, QUERY_CHARACTERS_MAX, VISIBLE_CHARACTER
from penstock.stores.data_model import ID_CHARACTERS_MAX
from penstock.stores.sources import NAME_CHARACTERS_MAX as SOURCE_CHARACTERS_MAX
from penstock.stores.sources import ROOT_CHARACTERS_MAX

#: Bounds of an answer in tokens. Clients cut or refuse answers of more than some 25 000.
TOKENS_DEFAULT: Final = 8_000
TOKENS_MIN: Final = 500
TOKENS_MAX: Final = 20_000

#: Hits on one page at most: an agent reads the first ones.
HITS_MAX: Final = 50

#: Seconds that `index_source` may wait. Agents' clients give a tool a minute.
WAIT_S_MAX: Final = 50

_MaxTokens = Annotated[
    int, Meta(ge=TOKENS_MIN, le=TOKENS_MAX, description="Size of the answer in tokens, about; the rest by `cursor`.")
]
_Cursor = Annotated[
    str, Meta(max_length=64, description="`cursor` of the answer before, with the same other arguments.")
]
_Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
_Collection = Annotated[
    str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX, description="Collection; may be left out if there is one.")
]
_Document = Annotated[
    str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX, description="`path` or `id` of a document, as a hit has it.")
]
_Line = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_PathPrefix = Annotated[
    str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX, description="Only paths that begin so, such as `src/`.")
]
_Languages = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=64)]],
    Meta(min_length=1, max_length=16, description="Only these languages, such as `python`."),
]
_Limit = Annotated[int, Meta(ge=1, le=HITS_MAX, description="Hits wanted at most.")]


class _Arguments(NullAsDefault, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments that every tool with a long answer has."""

    max_tokens: OrNull[_MaxTokens] = TOKENS_DEFAULT
    cursor: _Cursor | None = None


class SearchArguments(_Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `search`."""

    query: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=QUERY_CHARACTERS_MAX,
            pattern=VISIBLE_CHARACTER,
            description="A question in plain words, an identifier, an error message or code.",
        ),
    ]
    collections: (
        Annotated[
            list[_Name],
            Meta(
                min_length=1,
                max_length=COLLECTIONS_MAX,
                description="Collections to search at once; unless said, `default`, or the only one there is.",
            ),
        ]
        | None
    ) = None
    path_prefix: _PathPrefix | None = None
    languages: _Languages | None = None
    source: (
        Annotated[str, Meta(min_length=1, max_length=SOURCE_CHARACTERS_MAX, description="Only this source.")] | None
    ) = None
    group: Annotated[Literal["document"], Meta(description="`document`: only the best hit of each.")] | None = None
    limit: OrNull[_Limit] = 10


class RelatedArguments(_Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `find_related`."""

    path: _Document
    line: Annotated[_Line, Meta(description="What is related to the code at this line; else to the whole.")] | None = (
        None
    )
    collection: _Collection | None = None
    path_prefix: _PathPrefix | None = None
    languages: _Languages | None = None
    limit: OrNull[_Limit] = 10


class ReadArguments(_Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `read`."""

    path: _Document
    start_line: Annotated[_Line, Meta(description="First line, from 1.")] | None = None
    end_line: Annotated[_Line, Meta(description="Last line, inclusive.")] | None = None
    collection: _Collection | None = None


class ListArguments(_Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `list_collections`."""


class StatusArguments(_Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `index_status`."""

    collection: Annotated[_Name, Meta(description="Only this collection; else all.")] | None = None


class IndexArguments(NullAsDefault, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `index_source`."""

    path: Annotated[
        str, Meta(min_length=1, max_length=ROOT_CHARACTERS_MAX, description="Absolute directory on the server's host.")
    ]
    name: (
        Annotated[
            str, Meta(min_length=1, max_length=SOURCE_CHARACTERS_MAX, description="Name; the directory's unless said.")
        ]
        | None
    ) = None
    collection: OrNull[_Name] = "default"
    wait_s: OrNull[Annotated[int, Meta(ge=0, le=WAIT_S_MAX, description="Seconds to wait until it is indexed.")]] = 30


class ForgetArguments(NullAsDefault, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `forget_source`."""

    name: Annotated[str, Meta(min_length=1, max_length=SOURCE_CHARACTERS_MAX, description="Name of the source.")]
    collection: OrNull[_Name] = "default"


class CollectionFreshness(msgspec.Struct, frozen=True):
    """Freshness of a collection.

    Attributes:
        collection: Its name.
        indexed_at: When a run over one of its sources was last completed, RFC 3339; empty for never or unknown.
        pending: Chunks that are found by words only, until their vectors are made; null where that is not known.
        coverage: Share of the chunks that are found by meaning too.
        watched: Whether the server keeps every source of it up to date by itself.
    """

    collection: str
    indexed_at: str
    pending: int | None
    coverage: float | None
    watched: bool


class ToolAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Members of every answer.

    Attributes:
        freshness: Of each collection concerned.
        degraded: What the answer had to do without, because of load or failures; empty for nothing.
        truncated: Whether something was left out for `max_tokens`.
        omitted: How many hits, lines or entries that were.
        cursor: Argument of the call that goes on; null where nothing follows.
    """

    freshness: list[CollectionFreshness]
    degraded: list[str] = []
    truncated: bool = False
    omitted: int = 0
    cursor: str | None = None


class FoundChunk(msgspec.Struct, frozen=True):
    """A hit of a search. `cut` says that the snippet is not whole: read the rest."""

    path: str
    start_line: int
    end_line: int
    language: str
    symbol: str
    score: float
    snippet: str
    collection: str
    id: str
    cut: bool = False


class SearchAnswer(ToolAnswer, frozen=True, kw_only=True):
    """Hits, best first, and the collections that could not be searched."""

    hits: list[FoundChunk]
    left_out: list[str] = []


class ReadAnswer(ToolAnswer, frozen=True, kw_only=True):
    """Lines of a document."""

    path: str
    id: str
    collection: str
    language: str
    start_line: int
    end_line: int
    text: str


class ListedCollection(msgspec.Struct, frozen=True):
    """A collection: its size, and `open`, `closed` (opened by its next use) or `damaged`."""

    name: str
    documents: int
    chunks: int
    state: str


class ListAnswer(ToolAnswer, frozen=True, kw_only=True):
    """Collections."""

    collections: list[ListedCollection]


class SourceEntry(msgspec.Struct, frozen=True):
    """A source: its last run, and the server's watch (`off` where it keeps none)."""

    name: str
    collection: str
    documents: int
    completed_at: str
    commit: str
    indexed: int
    unchanged: int
    removed: int
    failed: int
    watch: str
    detail: str


class StatusAnswer(ToolAnswer, frozen=True, kw_only=True):
    """Sources, and the server: whether it is ready, why not, warnings, and the rung of its ladder under load."""

    sources: list[SourceEntry]
    ready: bool
    reasons: list[str]
    warnings: list[str]
    rung: str


class IndexAnswer(ToolAnswer, frozen=True, kw_only=True):
    """A source that is being indexed, or is by now."""

    name: str
    collection: str
    state: str
    detail: str
    documents: int


class ForgetAnswer(ToolAnswer, frozen=True, kw_only=True):
    """Number of documents deleted."""

    name: str
    collection: str
    deleted: int


class ToolError(msgspec.Struct, frozen=True):
    """Reason for which a tool gives no answer.

    Attributes:
        code: Stable word, as on the page of the API.
        detail: What is wrong, and what to do.
        retry_after_ms: When another try makes sense; null where the same call cannot succeed.
        rung: Rung of the ladder under load; `full` is none.
        field: The argument that is to blame, empty for none.
        request_id: Id of the request in the server's log.
    """

    code: str
    detail: str
    retry_after_ms: int | None
    rung: str
    field: str
    request_id: str


#: Members of a schema that repeat what is known. No record has a field of these names.
_OMITTED: Final = frozenset({"title"})


def object_schema(record: type[msgspec.Struct], *, takes_null: bool = True) -> dict[str, Any]:
    """Return the JSON Schema of a record, an object at its root, which needs no other document.

    Args:
        record: The record.
        takes_null: Whether null is told of where a member may be left out. Arguments take it in any case: some clients
            send it for each that a model leaves out.
    """
    (_,), components = msgspec.json.schema_components([record], ref_template="#/$defs/{name}")
    concise = {name: _concise(one, takes_null=takes_null) for name, one in components.items()}
    root: dict[str, Any] = concise.pop(record.__name__)
    # What must be given comes first.
    needed = dict.fromkeys(root.get("required", ()))
    root["properties"] = {name: root["properties"][name] for name in {**needed, **root["properties"]}}
    return {**root, "$defs": concise} if concise else root


def answer_schema(record: type[ToolAnswer]) -> dict[str, Any]:
    """Return the JSON Schema of what a tool gives: its answer, or an error.

    Clients compare errors with it too, although the protocol does not ask for that.
    """
    answer, error = object_schema(record), object_schema(ToolError)
    either = [{"required": one.pop("required")} for one in (answer, error)]
    return {**answer, "properties": {**error["properties"], **answer["properties"]}, "anyOf": either}


def _concise(schema: Any, *, takes_null: bool) -> Any:
    """Return a schema without what an agent has no use for."""
    if isinstance(schema, list):
        return [_concise(one, takes_null=takes_null) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _concise(one, takes_null=takes_null) for name, one in schema.items() if name not in _OMITTED}
    if isinstance(text := kept.get("description"), str):
        kept["description"] = text.partition("\n")[0]
    if not takes_null and "anyOf" in kept:
        others = [one for one in kept["anyOf"] if one != {"type": "null"}]
        if kept.get("default", ...) is None:
            del kept["default"]
        if len(others) == 1:
            del kept["anyOf"]
            kept = {**others[0], **kept}
    return kept
