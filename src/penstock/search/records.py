"""What a search is asked and what it answers; the HTTP API's records are these."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from penstock.kernel.defaults import Defaulted, OrNull
from penstock.kernel.errors import Invalid
from penstock.ranking.records import FusionName, Place
from penstock.stores.records import Filter

#: Hits in one answer at most.
LIMIT_MAX: Final = 1000

#: A character that can be looked for: neither white space nor, in whatever dialect this is read, a separator or a mark.
VISIBLE: Final = r"[^\s\x1c-\x1f\x85\ufeff]"

#: A longer query is cut here before any model sees it; the answer says so.
QUERY_CHARACTERS_MAX: Final = 16_384

#: A larger weight says nothing that a smaller one of the other arm would not, and might overflow.
WEIGHT_MAX: Final = 1000

_VISIBLE: Final = re.compile(VISIBLE)

Weight = Annotated[float, Meta(ge=0, le=WEIGHT_MAX)]


class Weights(Defaulted, frozen=True, forbid_unknown_fields=True):
    """How much each arm counts in the fusion; 0 leaves the arm out."""

    dense: OrNull[Weight] = 1.0
    sparse: OrNull[Weight] = 1.0


class SearchRequest(msgspec.Struct, frozen=True):
    """A search, checked.

    Attributes:
        collection: Where to look.
        query: What for, in words or code; not blank.
        limit: Hits wanted, 1 to ``LIMIT_MAX``.
        filter: Conditions that every hit meets.
        rerank: Whether candidates are rescored after the fusion.
        explain: Whether each hit tells its ranks and scores.
        weights: Of the arms.
        fusion: How the arms are put together.
        strict: Whether a refusal is better than a degraded answer; a query cut short is no reason.
    """

    collection: str
    query: str
    limit: int = 10
    filter: Filter = ()
    rerank: bool = True
    explain: bool = False
    weights: Weights = Weights()
    fusion: FusionName = "rrf"
    strict: bool = False

    def check(self) -> None:
        """Refuse what cannot be answered.

        Raises:
            Invalid: Naming the field.
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


class Hit(msgspec.Struct, frozen=True, omit_defaults=False):
    """One chunk that was found.

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
    explain: dict[str, Place] | msgspec.UnsetType = msgspec.UNSET


class SearchResult(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        hits: Best first.
        took_ms: From the request's arrival in the pipeline to the answer.
        stages: Milliseconds by stage; the arms run at the same time.
        degraded: What was left out or cut, in the words of :mod:`penstock.search.degradation`; empty
            when the answer is as good as it gets.
    """

    hits: list[Hit]
    took_ms: float
    stages: dict[str, float]
    degraded: list[str]
