"""Records of a search request, its filters and its result, as the HTTP API uses them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from penstock.kernel.errors import Invalid, truncated
from penstock.kernel.records import NullAsDefault, OrNull, TimeoutMs, WholeNumber
from penstock.ranking.retrieval import FusionName, StageRank
from penstock.stores.data_model import Condition, Filter, Match, Prefix, Range, Scalar, out_of_range_reason
from penstock.stores.timestamps import to_utc_rfc3339

_FIELDS: Final = ("id", "path", "language")
_BOUNDS: Final = ("gt", "gte", "lt", "lte")

#: Keys of one filter at most. Each is a look-up of its own for every arm and stage of a search.
KEYS_MAX: Final = 64

#: Values in one filter at most; more would make a single query arbitrarily expensive.
VALUES_MAX: Final = 1000

#: Characters of a key and of a string that is compared. Metadata of a document is not larger than the latter.
KEY_CHARACTERS_MAX: Final = 1024
VALUE_CHARACTERS_MAX: Final = 65_536

#: Characters of a language's name at most, as in a document. Putting it into lower case is slow: 10 MB take up to .2 s.
LANGUAGE_CHARACTERS_MAX: Final = 64

#: Characters of a path at most, and so of its beginning.
PREFIX_CHARACTERS_MAX: Final = 4096


def _one_or_several(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "array", "items": kind, "minItems": 1, "maxItems": VALUES_MAX}]}


def _bounded_by(kind: dict[str, Any]) -> dict[str, Any]:
    bounds = dict.fromkeys(_BOUNDS, kind)
    return {"type": "object", "properties": bounds, "minProperties": 1, "additionalProperties": False}


_TEXT: Final = {"type": "string", "maxLength": VALUE_CHARACTERS_MAX}
_LANGUAGE: Final = {"type": "string", "maxLength": LANGUAGE_CHARACTERS_MAX}
_PREFIX: Final = {"type": "string", "maxLength": PREFIX_CHARACTERS_MAX}
_TIME: Final = {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}
_VALUES: Final = _one_or_several({"type": ["string", "number", "boolean"]})

#: JSON Schema of the filters that :func:`parse_filter` accepts.
FILTER_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "maxProperties": KEYS_MAX,
    "properties": {
        "id": _one_or_several(_TEXT),
        "path": _one_or_several(_TEXT),
        "language": _one_or_several(_LANGUAGE),
        "path_prefix": _PREFIX,
    },
    "patternProperties": {
        r"^metadata\.[\s\S]": {"anyOf": [*_VALUES["anyOf"], _bounded_by({"type": "number"}), _bounded_by(_TIME)]}
    },
    "additionalProperties": False,
}


def parse_filter(filter: Mapping[str, Any], normalize_language: Callable[[str], str] = str.lower) -> Filter:
    """Return the conditions, all of which must hold.

    Args:
        filter: ``id``, ``path``, ``language`` or ``metadata.<key>`` to a value or a list of
            values; ``path_prefix`` to a string; ``metadata.<key>`` to a range
            (``gt``, ``gte``, ``lt``, ``lte``: numbers, or RFC 3339 times).
        normalize_language: Gives a language the name under which it is kept.

    Raises:
        Invalid: A key is not allowed, which is named, or the filter is too large.
    """
    if len(filter) > KEYS_MAX:
        raise Invalid(f"a filter has at most {KEYS_MAX} keys, and this one {len(filter)}", field="filter")
    conditions = tuple(_condition(key, value, normalize_language) for key, value in filter.items())
    values = sum(len(one.values) for one in conditions if isinstance(one, Match))
    if values > VALUES_MAX:
        raise Invalid(f"a filter has at most {VALUES_MAX} values over all its keys", field="filter")
    return conditions


def parse_path_prefix(value: object, field: str) -> Prefix:
    """Return the condition that a path begins with a string.

    Raises:
        Invalid: It is no string, or longer than any path.
    """
    if not isinstance(value, str):
        raise Invalid("path_prefix must be a string", field=field)
    if len(value) > PREFIX_CHARACTERS_MAX:
        raise Invalid(f"path_prefix has at most {PREFIX_CHARACTERS_MAX} characters", field=field)
    return Prefix("path", value)


def _condition(key: str, value: object, named: Callable[[str], str]) -> Condition:
    where = f"filter.{truncated(key)}"
    if key == "path_prefix":
        return parse_path_prefix(value, where)
    is_metadata = key.startswith("metadata.") and len(key) > len("metadata.")
    if key not in _FIELDS and not is_metadata:
        raise Invalid(
            f"unknown filter {truncated(key)!r}; there are id, path, path_prefix, language and metadata.<key>",
            field=where,
        )
    if len(key) > KEY_CHARACTERS_MAX:
        raise Invalid(f"a key has at most {KEY_CHARACTERS_MAX} characters", field=where)
    if isinstance(value, Mapping):
        if not is_metadata:
            raise Invalid(f"{key} cannot be filtered by a range", field=where)
        return _range(key, value)
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= VALUES_MAX:
        raise Invalid(f"{truncated(key)} needs 1 to {VALUES_MAX} values", field=where)
    scalars = [_scalar(key, v, where) for v in values]
    return Match(key, _languages(scalars, named) if key == "language" else scalars)


def _languages(values: list[Scalar], named: Callable[[str], str]) -> list[Scalar]:
    """Return languages as documents store them: normalised, and in lower case as earlier releases stored them."""
    spelled = (str(value) for value in values)
    return list(dict.fromkeys(name for value in spelled for name in (named(value), value.lower())))


def _scalar(key: str, value: object, where: str) -> Scalar:
    if not isinstance(value, str | int | float | bool):
        raise Invalid(f"{truncated(key)} is compared with strings, numbers or booleans", field=where)
    if key in _FIELDS and not isinstance(value, str):
        raise Invalid(f"{key} is compared with strings", field=where)
    most = LANGUAGE_CHARACTERS_MAX if key == "language" else VALUE_CHARACTERS_MAX
    if isinstance(value, str) and len(value) > most:
        raise Invalid(f"a value has at most {most} characters", field=where)
    if (wrong := out_of_range_reason(value)) is not None:
        raise Invalid(wrong, field=where)
    return value


def _range(key: str, bounds: Mapping[str, Any]) -> Range:
    where = f"filter.{truncated(key)}"
    if not bounds:
        raise Invalid(f"a range needs at least one of {', '.join(_BOUNDS)}", field=where)
    said = {name: _bound(name, bound, where) for name, bound in bounds.items()}
    if len({isinstance(bound, str) for bound in said.values()}) != 1:
        raise Invalid("the bounds of a range are either all numbers or all times", field=where)
    return Range(key, **said)


def _bound(name: str, bound: object, where: str) -> float | str:
    """Return a bound of a range: a number, or a time in the store's form."""
    if name not in _BOUNDS:
        raise Invalid(f"a range has {', '.join(_BOUNDS)}", field=f"{where}.{truncated(name)}")
    value: float | str | None = None
    if isinstance(bound, str):
        value = to_utc_rfc3339(bound)
    elif isinstance(bound, int | float) and not isinstance(bound, bool):
        value = bound
    if value is None:
        raise Invalid("a bound is a number, or a time such as 2024-05-01T12:00:00Z", field=f"{where}.{name}")
    if (wrong := out_of_range_reason(value)) is not None:
        raise Invalid(wrong, field=f"{where}.{name}")
    return value


#: Hits in one answer at most.
LIMIT_MAX: Final = 1000

#: A character that can be looked for: neither white space nor, in whatever dialect this is read, a separator or a mark.
VISIBLE_CHARACTER: Final = r"[^\s\x1c-\x1f\x85\ufeff]"

#: A longer query is cut here before any model sees it; the answer says so.
QUERY_CHARACTERS_MAX: Final = 16_384

#: A larger weight says nothing that a smaller one of the other arm would not, and might overflow.
WEIGHT_MAX: Final = 1000

_VISIBLE: Final = re.compile(VISIBLE_CHARACTER)

Weight = Annotated[float, Meta(ge=0, le=WEIGHT_MAX)]

#: The bounds of these are checked by :meth:`SearchFields.check` and :func:`parse_filter`, whose errors say more.
Query = Annotated[str, Meta(extra_json_schema={"minLength": 1, "pattern": VISIBLE_CHARACTER})]
if TYPE_CHECKING:
    #: Once the record is made, the field is an integer.
    Limit = int
else:
    Limit = Annotated[WholeNumber, Meta(extra_json_schema={"minimum": 1, "maximum": LIMIT_MAX})]
FilterConditions = Annotated[dict[str, Any], Meta(extra_json_schema=FILTER_SCHEMA)]


class ArmWeights(NullAsDefault, frozen=True, forbid_unknown_fields=True):
    """Weights of the dense and the sparse arm in the fusion; 0 leaves an arm out."""

    dense: OrNull[Weight] = 1.0
    sparse: OrNull[Weight] = 1.0


class SearchFields(NullAsDefault, frozen=True, kw_only=True):
    """Fields of a search that its body and its message have alike.

    Attributes:
        query: What to look for, in words or code.
        limit: Number of hits to return at most.
        filter: Conditions that all must hold.
        rerank: Whether candidates are rescored after the fusion.
        explain: Whether each hit includes its rank and score at every stage.
        weights: Weights of the dense and the sparse arm in the fusion.
        fusion: Method that fuses the rankings of the arms.
        strict: Whether the request is refused rather than answered with a degraded result.
    """

    query: Query
    limit: OrNull[Limit] = 10
    filter: Filter = ()
    rerank: OrNull[bool] = True
    explain: OrNull[bool] = False
    weights: OrNull[ArmWeights] = ArmWeights()
    fusion: OrNull[FusionName] = "rrf"
    strict: OrNull[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.limit) is float:
            msgspec.structs.force_setattr(self, "limit", int(self.limit))

    def check(self) -> None:
        """Refuse an invalid request.

        Raises:
            Invalid: A field is invalid; the error names it.
        """
        if not _VISIBLE.search(self.query):
            raise Invalid("the query is empty", field="query", code="empty_query")
        if not 1 <= self.limit <= LIMIT_MAX:
            raise Invalid(f"limit must lie between 1 and {LIMIT_MAX}", field="limit")
        for name in ("dense", "sparse"):
            # Written such that NaN is refused too.
            if not 0 <= getattr(self.weights, name) <= WEIGHT_MAX:
                raise Invalid(f"a weight must lie between 0 and {WEIGHT_MAX}", field=f"weights.{name}")
        if self.weights.dense == 0 and self.weights.sparse == 0:
            raise Invalid("at least one arm needs a weight above 0", field="weights")


class SearchBody(SearchFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Search request.

    Attributes:
        filter: Conditions that all must hold: `id`, `path`, `language` or `metadata.<key>` to a value
            or a list of values; `path_prefix` to a string; `metadata.<key>` to a range of numbers or
            times, `{"gte": 2020, "lt": 2024}` (`gt`, `gte`, `lt`, `lte`). 64 conditions and 1000 values at most.
        timeout_ms: Time limit in milliseconds, if tighter than the server's own.
    """

    filter: OrNull[FilterConditions] = msgspec.field(default_factory=dict)  # type: ignore[assignment] # not parsed yet
    timeout_ms: TimeoutMs | None = None


class SearchRequest(SearchFields, frozen=True):
    """Message of a search: its fields, the filter parsed, and the collection of its path."""

    collection: str

    @classmethod
    def from_body(cls, body: SearchBody, collection: str, normalize_language: Callable[[str], str]) -> SearchRequest:
        """Return the message of a body, checked.

        Raises:
            Invalid: A field is invalid; the error names it.
        """
        said = {name: getattr(body, name) for name in SearchFields.__struct_fields__}
        # The rest is never read. One character of it tells the pipeline that the query is too long.
        said["query"] = body.query[: QUERY_CHARACTERS_MAX + 1]
        said["filter"] = parse_filter(body.filter, normalize_language)
        made = cls(collection, **said)
        made.check()
        return made


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
        explain: Ranks and scores by stage (``dense``, ``sparse``, ``fusion``, ``rerank``,
            ``signals``).
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


class SearchResult(msgspec.Struct, frozen=True):
    """Result of a search: hits, times, and what was left out.

    Attributes:
        hits: Best first.
        took_ms: From the request's arrival in the pipeline to the answer.
        stages: Milliseconds by stage; the arms run at the same time.
        degraded: Parts that were left out or cut, in the words of :mod:`penstock.search.degradation`; empty
            when the answer is as good as it gets.
    """

    hits: list[SearchHit]
    took_ms: float
    stages: dict[str, float]
    degraded: list[str]
