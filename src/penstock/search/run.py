"""One search while it runs: what it has found out so far, and how it tells."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec

from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.errors import Broken, PenstockError, Rejected
from penstock.kernel.late import TokenVectors
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.ranking.records import Arm, Place, Ranking
from penstock.search.degradation import Plan
from penstock.search.records import Hit, SearchRequest
from penstock.stores.records import Found

log = logging.getLogger(__name__)

#: When a strict search may try again, unless what failed knows better.
FAILED_RETRY_AFTER_S: Final = 1.0


@dataclass(slots=True)
class Run:
    """What one search has found out so far."""

    request: SearchRequest
    ctx: Context
    clock: Clock
    plan: Plan
    stages: dict[str, float] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    dense: DenseVectors | None = None
    sparse: SparseVector | None = None
    tokens: TokenVectors | None = None
    failures: list[PenstockError] = field(default_factory=list)
    answered: bool = False

    @property
    def alone(self) -> bool:
        """Whether no other arm could make up for one that fails."""
        return len(self.plan.arms) == 1 and self.plan.spare is None

    @property
    def weights(self) -> dict[str, float]:
        """The request's weights by arm."""
        return {Arm.DENSE: self.request.weights.dense, Arm.SPARSE: self.request.weights.sparse}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage in milliseconds."""
        began = self.clock.now()
        try:
            yield
        finally:
            self.stages[name] = round((self.clock.now() - began) * 1000, 3)

    def give_up(self, what: str, error: PenstockError) -> None:
        """Go on without a part that failed; the answer says so, and of a bug the log too.

        Raises:
            Rejected: The request is strict (``degraded``).
        """
        level = logging.WARNING if isinstance(error, Broken) else logging.DEBUG
        log.log(level, "%s: %s", what, error.detail, extra={"request_id": self.ctx.request_id})
        if self.request.strict:
            raise Rejected(
                f"the search is strict, and the answer would be degraded: {what} ({error.detail})",
                code="degraded",
                retry_after_s=getattr(error, "retry_after_s", FAILED_RETRY_AFTER_S),
            ) from error
        self.degraded.append(what)


def reordered(found: Sequence[Found], order: Ranking[str], stages: Mapping[str, Ranking[str]]) -> list[Found]:
    """Return hits in another order; those that tell their places tell those of some more stages."""
    by_point = {one.point: one for one in found}
    ranks = {name: {point: rank for rank, point in enumerate(stage, 1)} for name, stage in stages.items()}

    def moved(point: str, score: float) -> Found:
        one = by_point[point]
        further = {name: Place(ranks[name].get(point), stage.get(point)) for name, stage in stages.items()}
        return Found(point, score, one.payload, {**one.places, **further} if one.places else {})

    return [moved(point, score) for point, score in order.items()]


def hit(found: Found) -> Hit:
    """Return what was found as the answer shows it; without places if they were not asked for."""
    payload = found.payload
    return Hit(
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
        explain=found.places or msgspec.UNSET,
    )
