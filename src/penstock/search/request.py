"""Records of a search request, its filters and its result, as the HTTP API uses them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from penstock.kernel.errors import Invalid, truncated
from penstock.kernel.records import NullAsDefault, OrNull, TimeoutMs, WholeNumber
from penstock.ranking.retrieval import FusionName, StageRank
from penstock.search.filters import FILTER_SCHEMA, parse_filter
from penstock.stores.data_model import ID_CHARACTERS_MAX, Filter, RetrievedHit

#: The collection of a search that names none.
DEFAULT_COLLECTION: Final = "default"

#: Hits in one answer at most, and on all its pages together.
LIMIT_MAX: Final = 1000

#: A cursor as an answer gives it.
CURSOR_CHARACTERS: Final = 32
CURSOR: Final = rf"^[A-Za-z0-9_-]{{{CURSOR_CHARACTERS}}}$"

#: The largest number of a chunk.
CHUNK_NUMBER_MAX: Final = 2**31 - 1

#: A character that can be looked for: neither white space nor, in whatever dialect this is read, a separator or a mark.
VISIBLE_CHARACTER: Final = r"[^\s\x1c-\x1f\x85\ufeff]"

#: A longer query is cut here before any model sees it; the answer says so.
QUERY_CHARACTERS_MAX: Final = 16_384

#: A larger weight says nothing that a smaller one of the other arm would not, and might overflow.
WEIGHT_MAX: Final = 1000

_VISIBLE: Final = re.compile(VISIBLE_CHARACTER)

Weight = Annotated[float, Meta(ge=0, le=WEIGHT_MAX)]

T = TypeVar("T")
if TYPE_CHECKING:
    #: A field that release 0.1.0 does not know. It is false until it is given, and not written to the bus until then.
    Later = Annotated[T, "or left out"]
else:
    Later = T | None | msgspec.UnsetType
LEFT_OUT: Final[Any] = msgspec.UNSET

#: The bounds of these are checked by :meth:`SearchFields.check` and by ``parse_filter``, whose errors say more.
Query = Annotated[str, Meta(extra_json_schema={"minLength": 1, "pattern": VISIBLE_CHARACTER})]
if TYPE_CHECKING:
    #: Once the record is made, the field is an integer.
    Limit = int
    Offset = int
    ChunkNumber = int
else:
    Limit = Annotated[WholeNumber, Meta(extra_json_schema={"minimum": 1, "maximum": LIMIT_MAX})]
    ChunkNumber = Annotated[WholeNumber, Meta(ge=0, le=CHUNK_NUMBER_MAX)]
    Offset = Annotated[WholeNumber, Meta(extra_json_schema={"minimum": 0, "maximum": LIMIT_MAX - 1})]
Cursor = Annotated[str, Meta(extra_json_schema={"pattern": CURSOR})]
FilterConditions = Annotated[dict[str, Any], Meta(extra_json_schema=FILTER_SCHEMA)]


#: Facets of one search at most, characters of a name, and the names beside ``metadata.<key>``.
FACETS_MAX: Final = 8
FACET_CHARACTERS_MAX: Final = 1024
_FACETS: Final = ("language", "source", "folder", "collection")

_FACET_NAME: Final = {
    "pattern": rf"^(?:{'|'.join(_FACETS)}|metadata\.[\s\S]+)$",
    "maxLength": FACET_CHARACTERS_MAX,
}
FacetNames = Annotated[
    tuple[Annotated[str, Meta(extra_json_schema=_FACET_NAME)], ...],
    Meta(extra_json_schema={"maxItems": FACETS_MAX, "uniqueItems": True}),
]


def check_facets(names: Sequence[str]) -> None:
    """Refuse facets that there are not.

    Raises:
        Invalid: A name is unknown, too long or there twice, or they are too many.
    """
    if len(names) > FACETS_MAX:
        raise Invalid(f"a search has at most {FACETS_MAX} facets", field="facets")
    for place, name in enumerate(names):
        field = f"facets[{place}]"
        if name not in _FACETS and not (name.startswith("metadata.") and len(name) > len("metadata.")):
            detail = f"there is no facet {truncated(name)!r}; there are {', '.join(_FACETS)} and metadata.<key>"
            raise Invalid(detail, field=field)
        if len(name) > FACET_CHARACTERS_MAX:
            raise Invalid(f"a facet's name has at most {FACET_CHARACTERS_MAX} characters", field=field)
        if name in names[:place]:
            raise Invalid("a facet is named twice; name it once", field=field)


class ArmWeights(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Weights of the dense and the sparse arm in the fusion; 0 leaves an arm out."""

    dense: OrNull[Weight] = 1.0
    sparse: OrNull[Weight] = 1.0


class Like(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document in the place of a query.

    Attributes:
        id: Its id; it is no hit itself.
        chunk: Number of the chunk of it that counts, from 0. Without one, its first 8 chunks together.
    """

    id: Annotated[str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX)]
    chunk: ChunkNumber | None = None

    def __post_init__(self) -> None:
        """Make an integer of a whole number that was written with a point."""
        if self.chunk is not None:
            msgspec.structs.force_setattr(self, "chunk", int(self.chunk))


class SearchFields(NullAsDefault, frozen=True, kw_only=True):
    """Fields of a search that its body and its message have alike.

    Attributes:
        query: What to look for, in words or code; or else `like` must be given.
        like: A document, or a chunk of one, to which similar ones are wanted, in the place of a query.
        limit: Number of hits to return at most.
        filter: Conditions that all must hold.
        rerank: Whether candidates are rescored after the fusion.
        explain: Whether each hit includes its rank and score at every stage.
        weights: Weights of the dense and the sparse arm in the fusion.
        fusion: Method that fuses the rankings of the arms.
        strict: Whether the request is refused rather than answered with a degraded result.
        group: `document`: the best chunk of each document, with its other chunks in `others`.
        offset: Number of hits to leave out at the beginning, or after the cursor. No hit is given below place 1000.
        cursor: The `next` of an answer to the same search; the hits that follow are wanted.
        highlights: Whether each hit tells where its text holds words of the query.
        facets: Names of facets to count among the best 256 chunks: `language`, `source`, `folder`, `collection` or
            `metadata.<key>`; 8 at most.
    """

    query: OrNull[Query] = ""
    like: Later[Like] = LEFT_OUT
    limit: OrNull[Limit] = 10
    filter: Filter = ()
    rerank: OrNull[bool] = True
    explain: OrNull[bool] = False
    weights: OrNull[ArmWeights] = ArmWeights()
    fusion: OrNull[FusionName] = "rrf"
    strict: OrNull[bool] = False
    group: Later[Literal["document"]] = LEFT_OUT
    offset: Later[Offset] = LEFT_OUT
    cursor: Later[Cursor] = LEFT_OUT
    highlights: Later[bool] = LEFT_OUT
    facets: Later[FacetNames] = LEFT_OUT

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("limit", "offset"):
            if type(value := getattr(self, name)) is float:
                msgspec.structs.force_setattr(self, name, int(value))

    def check(self) -> None:
        """Refuse an invalid request.

        Raises:
            Invalid: A field is invalid; the error names it.
        """
        if self.like:
            if self.query:
                raise Invalid("say either query or like", field="like")
        elif not _VISIBLE.search(self.query):
            raise Invalid("the query is empty", field="query", code="empty_query")
        if not 1 <= self.limit <= LIMIT_MAX:
            raise Invalid(f"limit must lie between 1 and {LIMIT_MAX}", field="limit")
        if self.offset and not 0 < self.offset < LIMIT_MAX:
            raise Invalid(
                f"offset must lie between 0 and {LIMIT_MAX - 1}: no hit is given below place {LIMIT_MAX}",
                field="offset",
            )
        check_facets(self.facets or ())
        for name in ("dense", "sparse"):
            # Written such that NaN is refused too.
            if not 0 <= getattr(self.weights, name) <= WEIGHT_MAX:
                raise Invalid(f"a weight must lie between 0 and {WEIGHT_MAX}", field=f"weights.{name}")
        if self.weights.dense == 0 and self.weights.sparse == 0:
            raise Invalid("at least one arm needs a weight above 0", field="weights")


#: Characters of a collection's name at most.
NAME_CHARACTERS_MAX: Final = 64

#: Collections of one search at most. Each is searched like one by itself.
COLLECTIONS_MAX: Final = 16

Collections = Annotated[
    list[str], Meta(extra_json_schema={"minItems": 1, "maxItems": COLLECTIONS_MAX, "uniqueItems": True})
]


class SearchBody(SearchFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Search request.

    Attributes:
        filter: Conditions that all must hold: `id`, `path`, `language`, `source` or `metadata.<key>` to a
            value or a list of values; `path_prefix` to a string; `metadata.<key>` to a range of numbers or
            times, `{"gte": 2020, "lt": 2024}` (`gt`, `gte`, `lt`, `lte`). 64 conditions and 1000 values at most.
        collections: Names of the collections to search at once, in the place of the one in the path.
        timeout_ms: Time limit in milliseconds, if tighter than the server's own.
    """

    filter: OrNull[FilterConditions] = msgspec.field(default_factory=dict)  # type: ignore[assignment] # not parsed yet
    collections: Collections | None = None
    timeout_ms: TimeoutMs | None = None


class SearchRequest(SearchFields, frozen=True):
    """Message of a search: its fields, the filter parsed, and its collection.

    Attributes:
        collection: The collection, or several, each followed by a comma, which no name has. An instance of an earlier
            release knows no collection of such a name, and refuses rather than searches one of them.
    """

    collection: str

    @property
    def collections(self) -> tuple[str, ...]:
        """The collections of a search of several; none otherwise."""
        return tuple(self.collection.split(",")[:-1])

    @property
    def names(self) -> tuple[str, ...]:
        """The collections that are searched, one or several."""
        return self.collections or (self.collection,)

    @classmethod
    def from_body(
        cls, body: SearchBody, collection: str | None, normalize_language: Callable[[str], str]
    ) -> SearchRequest:
        """Return the message of a body, checked.

        Args:
            body: The body.
            collection: The collection of the path; ``None`` for a path without one.
            normalize_language: Gives a language the name under which it is kept.

        Raises:
            Invalid: A field is invalid; the error names it.
        """
        said = {name: getattr(body, name) for name in SearchFields.__struct_fields__}
        # The rest is never read. One character of it tells the pipeline that the query is too long.
        said["query"] = body.query[: QUERY_CHARACTERS_MAX + 1]
        said["filter"] = parse_filter(body.filter, normalize_language) if body.filter else ()
        made = cls(_checked_collection(body.collections, collection), **said)
        made.check()
        return made


def _checked_collection(wanted: list[str] | None, of_path: str | None) -> str:
    """Return the collection to search, or several, each followed by a comma.

    Raises:
        Invalid: They are none, too many, not distinct, or beside one in the path, or a name cannot be one.
    """
    for name in wanted or (of_path or DEFAULT_COLLECTION,):
        if "," in name or len(name) > NAME_CHARACTERS_MAX:
            detail = (
                f"no collection is named {truncated(name)!r}: a name has {NAME_CHARACTERS_MAX} characters and no comma"
            )
            raise Invalid(detail, field="collection", code="collection_not_found")
    if wanted is None:
        return of_path or DEFAULT_COLLECTION
    if of_path is not None:
        raise Invalid("the path names a collection already; POST /v1/search takes several", field="collections")
    if not 1 <= len(wanted) <= COLLECTIONS_MAX:
        raise Invalid(f"a search has 1 to {COLLECTIONS_MAX} collections", field="collections")
    if len(set(wanted)) < len(wanted):
        raise Invalid("a collection is named twice; name it once", field="collections")
    return "".join(f"{name}," for name in wanted)


#: Two numbers: the first character, and the one after the last.
TextRange = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=2, max_length=2)]


class OtherChunk(msgspec.Struct, frozen=True):
    """A chunk of a document whose best chunk is a hit.

    Attributes:
        chunk: Number of the chunk in its document, from 0.
        score: Its score.
        start_line: First line, from 1.
        end_line: Last line, inclusive.
    """

    chunk: int
    score: float
    start_line: int
    end_line: int


class SearchHit(msgspec.Struct, frozen=True, omit_defaults=False):
    """A chunk that matches the query.

    Attributes:
        id: The document's id.
        chunk: Number of the chunk in its document, from 0.
        score: Score of the last stage; comparable within one answer only.
        path: Path shown to people, may be empty.
        start_line: First line, from 1.
        end_line: Last line, inclusive.
        text: The chunk.
        symbol: Qualified enclosing symbol or heading trail, may be empty.
        language: Lower-case language name, may be empty.
        metadata: The document's metadata.
        collection: Its collection, where several were searched.
        explain: Ranks and scores by stage (``dense``, ``sparse``, ``fusion``, ``rerank``,
            ``signals``).
        others: The document's other chunks among those that were ranked with this one, best first, 20 at most; where
            hits are grouped.
        others_total: How many there are.
        highlights: Ranges of the text that hold words of the query, in Unicode code points: the first one and the one
            after the last; 100 at most, where they are wanted.
    """

    id: str
    chunk: int
    score: float
    path: str
    start_line: int
    end_line: int
    text: str
    symbol: str
    language: str
    metadata: dict[str, Any]
    explain: dict[str, StageRank] | msgspec.UnsetType = msgspec.UNSET
    collection: str | msgspec.UnsetType = msgspec.UNSET
    others: list[OtherChunk] | msgspec.UnsetType = msgspec.UNSET
    others_total: int | msgspec.UnsetType = msgspec.UNSET
    highlights: list[TextRange] | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, found: RetrievedHit, **parts: Any) -> SearchHit:
        """Return a retrieved hit in the answer's form, with the parts that were requested."""
        payload = found.payload
        return cls(
            id=payload.id,
            chunk=payload.chunk,
            score=found.score,
            path=payload.path,
            start_line=payload.start_line,
            end_line=payload.end_line,
            text=payload.text,
            symbol=payload.symbol,
            language=payload.language,
            metadata=payload.metadata,
            explain=found.stage_ranks or msgspec.UNSET,
            **parts,
        )


class FacetValue(msgspec.Struct, frozen=True):
    """A value of a facet.

    Attributes:
        value: The value; a folder ends with a slash, as `path_prefix` takes it.
        count: How many chunks have it, or documents where hits are grouped.
    """

    value: str | int | float | bool
    count: int


class Facet(msgspec.Struct, frozen=True):
    """A facet: values and how often each occurs among the best 256 chunks of the search.

    Attributes:
        field: Its name.
        values: Those that occur most, 50 at most, the most frequent first.
        counted: How many chunks were counted, or documents where hits are grouped.
        more: How many further values there are.
    """

    field: str
    values: list[FacetValue]
    counted: int
    more: int


class LeftOut(msgspec.Struct, frozen=True):
    """A collection that could not be searched, where others could.

    Attributes:
        collection: Its name.
        code: Code of the problem.
        detail: What is wrong, and what to do.
    """

    collection: str
    code: str
    detail: str


class SearchResult(msgspec.Struct, frozen=True):
    """Result of a search: hits, times, and what was left out.

    Attributes:
        hits: Best first.
        took_ms: From the request's arrival in the pipeline to the answer.
        stages: Milliseconds by stage; the arms run at the same time.
        degraded: Parts that were left out or cut, in the words of :mod:`penstock.search.degradation`; empty
            when the answer is as good as it gets.
        next: The cursor of the next page, null where no hit can follow.
        left_out: Collections that could not be searched, where there are some.
        facets: The facets that were asked for, in their order.
        coverage: Share of the collection's chunks that are found by meaning, where it is below 1: the vectors of the
            others are still being made, and they are found by words only.
    """

    hits: list[SearchHit]
    took_ms: float
    stages: dict[str, float]
    degraded: list[str]
    next: Later[str | None] = LEFT_OUT
    left_out: list[LeftOut] | msgspec.UnsetType = msgspec.UNSET
    facets: list[Facet] | msgspec.UnsetType = msgspec.UNSET
    coverage: float | msgspec.UnsetType = msgspec.UNSET
