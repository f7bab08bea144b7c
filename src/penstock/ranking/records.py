"""What a search wants of a collection, and what comes of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from penstock.kernel.errors import PenstockError
from penstock.kernel.late import TokenVectors
from penstock.kernel.vectors import DenseVectors, SparseVector

#: How a store names a point: anything that can be ordered; the order breaks ties.
P = TypeVar("P", str, int)

Ranking = dict[P, float]
"""Points with their scores, best first."""

FusionName = Literal["rrf", "minmax"]


class Arm(enum.StrEnum):
    """The two ways of retrieving."""

    DENSE = "dense"
    SPARSE = "sparse"


class Scored(NamedTuple):
    """A point as one arm found it: its id and the arm's own score, higher is better."""

    point: str
    score: float


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What a search wants of a collection.

    Attributes:
        limit: Hits wanted.
        candidates: Points wanted from each arm.
        dense: The query's vector, ``float32 [dim]``, L2-normalised; without it the arm is not asked.
        sparse: The query's sparse vector; without it the arm is not asked.
        tokens: The query's token vectors, ``int8 [rows, late]``, for late interaction.
        weights: Of the arms, by name; one that is not named counts 1.
        fusion: How two arms are put together.
        rerank: Whether the best of two arms are rescored (:mod:`penstock.ranking.rescoring`).
        query: The query's text, for what names and places tell of hits that were rescored
            (:mod:`penstock.ranking.signals`); empty to leave them aside.
        explain: Whether each hit's places in every stage are wanted.
    """

    limit: int
    candidates: int
    dense: DenseVectors | None = None
    sparse: SparseVector | None = None
    tokens: TokenVectors | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    fusion: FusionName = "rrf"
    rerank: bool = True
    query: str = ""
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Ask(Generic[P]):
    """A question to a collection.

    Attributes:
        name: The arm.
        vector: What is looked for.
        limit: Points wanted.
        among: Only these points, where given: for exact scores of known candidates.
    """

    name: str
    vector: DenseVectors | SparseVector
    limit: int
    among: Sequence[P] | None = None


@dataclass(frozen=True, slots=True)
class Seek(Generic[P]):
    """A step: answer these questions, each by a ``Ranking``."""

    asks: Sequence[Ask[P]]


@dataclass(frozen=True, slots=True)
class Compare(Generic[P]):
    """A step: compare a query's token vectors to those of the points that have some, ``float32 [tokens]`` by point.

    What each token finds there, see :func:`penstock.kernel.late.maxima`.
    """

    tokens: TokenVectors
    points: Sequence[P]


@dataclass(frozen=True, slots=True)
class Read(Generic[P]):
    """A step: read the payloads of those of the points that exist, by point."""

    points: Sequence[P]


Step = Seek[P] | Compare[P] | Read[P]


class Place(msgspec.Struct, frozen=True):
    """Where a stage put a hit.

    Attributes:
        rank: From 1; null when the stage did not find it among its candidates.
        score: The stage's own score, null when it gave none.
    """

    rank: int | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Outcome(Generic[P]):
    """What came of a retrieval.

    Attributes:
        ranked: The hits, as many as wanted if there are so many.
        payloads: Theirs.
        stages: The ranking of every stage that ran, in their order.
        exact: The scores of those stages that gave some to points which they had not found themselves.
        failures: What had to be left out, an arm or the rescoring, and why.
    """

    ranked: Ranking[P]
    payloads: Mapping[P, Any]
    stages: Mapping[str, Ranking[P]]
    exact: Mapping[str, Mapping[P, float]]
    failures: Mapping[str, PenstockError]

    def places(self) -> dict[P, dict[str, Place]]:
        """Return where every stage put each hit."""
        ranks = {name: {point: rank for rank, point in enumerate(ranking, 1)} for name, ranking in self.stages.items()}
        scores = {name: self.exact.get(name, ranking) for name, ranking in self.stages.items()}
        return {
            point: {name: Place(ranks[name].get(point), scores[name].get(point)) for name in self.stages}
            for point in self.ranked
        }
