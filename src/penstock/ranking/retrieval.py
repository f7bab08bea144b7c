"""Records of a retrieval: its query, its program's steps and its outcome."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from penstock.kernel.errors import PenstockError
from penstock.kernel.late_interaction import TokenVectors
from penstock.kernel.vectors import DenseVectors, SparseVector

#: Type of a point's id in a store; it must be ordered, since the order breaks ties.
P = TypeVar("P", str, int)

Ranking = dict[P, float]
"""Points with their scores, best first."""

FusionName = Literal["rrf", "minmax"]


class Arm(enum.StrEnum):
    """The two ways of retrieving."""

    DENSE = "dense"
    SPARSE = "sparse"


class ScoredPoint(NamedTuple):
    """A point as one arm found it: its id and the arm's own score, higher is better."""

    point: str
    score: float


class RetrievalQuery(msgspec.Struct, frozen=True, array_like=True):
    """Query of a retrieval from one collection.

    Attributes:
        limit: Hits wanted.
        candidates: Points wanted from each arm.
        dense: The query's vector, ``float32 [dim]``, L2-normalised; without it the arm is not searched.
        sparse: The query's sparse vector; without it the arm is not searched.
        token_vectors: The query's token vectors, ``int8 [rows, token_dim]``, for late interaction.
        weights: Weight by arm; an arm that is not named counts 1.
        fusion: How two arms are put together.
        rerank: Whether the best of two arms are rescored (:mod:`penstock.ranking.program`).
        text: The query's text, for the signals of identifiers and paths on rescored hits
            (:mod:`penstock.ranking.signals`); empty to apply none.
        explain: Whether each hit's rank in every stage is wanted.
    """

    limit: int
    candidates: int
    dense: DenseVectors | None = None
    sparse: SparseVector | None = None
    token_vectors: TokenVectors | None = None
    weights: Mapping[str, float] = msgspec.field(default_factory=dict)
    fusion: FusionName = "rrf"
    rerank: bool = True
    text: str = ""
    explain: bool = False


@dataclass(frozen=True, slots=True)
class ArmSearch(Generic[P]):
    """Search of a collection by one arm.

    Attributes:
        arm: The arm.
        vector: The query vector.
        limit: Points wanted.
        among: Only these points, where given: for exact scores of known candidates.
    """

    arm: str
    vector: DenseVectors | SparseVector
    limit: int
    among: Sequence[P] | None = None


@dataclass(frozen=True, slots=True)
class SearchStep(Generic[P]):
    """A step: run these searches, each answered by a ``Ranking``.

    Attributes:
        searches: The searches.
        reads: Points of which the next steps read token vectors and payloads, as far as they are known. Where each step
            is a round trip they can be read in this one.
    """

    searches: Sequence[ArmSearch[P]]
    reads: Sequence[P] = ()


@dataclass(frozen=True, slots=True)
class CompareTokensStep(Generic[P]):
    """A step: compare a query's token vectors to those of the points that have some, ``float32 [tokens]`` by point.

    The values are the best cosine of each query token, see :func:`penstock.kernel.late_interaction.max_cosines`.
    """

    query_tokens: TokenVectors
    points: Sequence[P]


@dataclass(frozen=True, slots=True)
class ReadPayloadsStep(Generic[P]):
    """A step: read the payloads of those of the points that exist, by point."""

    points: Sequence[P]


ProgramStep = SearchStep[P] | CompareTokensStep[P] | ReadPayloadsStep[P]


class StageRank(msgspec.Struct, frozen=True):
    """Rank and score of a hit in one stage of the search.

    Attributes:
        rank: From 1; null when the stage did not find it among its candidates.
        score: The stage's own score, null when it gave none.
    """

    rank: int | None
    score: float | None


@dataclass(frozen=True, slots=True)
class RetrievalOutcome(Generic[P]):
    """Outcome of a retrieval: hits, their payloads and ranks, and failures.

    Attributes:
        ranked: The hits, as many as wanted if there are so many.
        payloads: The payloads read, by point; those of all hits are among them.
        stages: The ranking of every stage that ran, in their order.
        exact_scores: The scores of those stages that gave some to points which they had not found themselves.
        failures: Errors of the parts that were left out, an arm or the rescoring.
    """

    ranked: Ranking[P]
    payloads: Mapping[P, Any]
    stages: Mapping[str, Ranking[P]]
    exact_scores: Mapping[str, Mapping[P, float]]
    failures: Mapping[str, PenstockError]

    def stage_ranks(self) -> dict[P, dict[str, StageRank]]:
        """Return each hit's rank and score in every stage."""
        ranks = {name: {point: rank for rank, point in enumerate(ranking, 1)} for name, ranking in self.stages.items()}
        scores = {name: self.exact_scores.get(name, ranking) for name, ranking in self.stages.items()}
        return {
            point: {name: StageRank(ranks[name].get(point), scores[name].get(point)) for name in self.stages}
            for point in self.ranked
        }
