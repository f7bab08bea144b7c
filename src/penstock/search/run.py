"""One search while it runs: what it has found out so far, and how it tells."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from penstock.kernel.clock import Clock
from penstock.kernel.errors import Broken, PenstockError, Rejected
from penstock.kernel.late import TokenVectors
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.kernel.work import Work
from penstock.search.degradation import Plan
from penstock.search.fusion import best_first
from penstock.search.records import Hit, Place, SearchRequest
from penstock.search.rescoring import LATE
from penstock.stores.contract import Arm, ChunkPayload, Scored

log = logging.getLogger(__name__)

#: When a strict search may try again, unless what failed knows better.
FAILED_RETRY_AFTER_S: Final = 1.0


@dataclass(slots=True)
class Run:
    """What one search has found out so far."""

    request: SearchRequest
    work: Work
    clock: Clock
    plan: Plan
    stages: dict[str, float] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    rankings: dict[str, list[Scored]] = field(default_factory=dict)
    vectors: dict[str, DenseVectors | SparseVector | TokenVectors] = field(default_factory=dict)
    dense: DenseVectors | None = None
    tokens: TokenVectors | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: list[PenstockError] = field(default_factory=list)

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
        log.log(level, "%s: %s", what, error.detail, extra={"request_id": self.work.request_id})
        if self.request.strict:
            raise Rejected(
                f"the search is strict, and the answer would be degraded: {what} ({error.detail})",
                code="degraded",
                retry_after_s=getattr(error, "retry_after_s", FAILED_RETRY_AFTER_S),
            ) from error
        self.degraded.append(what)


def explainer(
    run: Run, fused: Sequence[Scored], later: Mapping[str, Sequence[Scored]]
) -> Callable[[str], dict[str, Place]]:
    """Return a function from a point to its places in every stage that ran.

    Args:
        run: The search.
        fused: What the fusion gave.
        later: What the stages after it gave, by name.
    """
    stages: dict[str, Sequence[Scored]] = dict(run.rankings)
    if len(run.rankings) > 1:
        stages["fusion"] = fused
    if run.scores.get(LATE):
        stages[LATE] = best_first(run.scores[LATE])
    stages.update(later)
    ranks = {name: {scored.point: rank for rank, scored in enumerate(ranking, 1)} for name, ranking in stages.items()}
    scores: dict[str, Mapping[str, float]] = {
        name: run.scores.get(name) or {scored.point: scored.score for scored in ranking}
        for name, ranking in stages.items()
    }

    def explain(point: str) -> dict[str, Place]:
        return {name: Place(ranks[name].get(point), scores[name].get(point)) for name in stages}

    return explain


def hit(scored: Scored, payload: ChunkPayload, explain: Callable[[str], dict[str, Place]] | None) -> Hit:
    """Return a point as the answer shows it."""
    return Hit(
        id=payload.id,
        chunk=payload.chunk,
        score=scored.score,
        path=payload.path,
        start_line=payload.start_line,
        end_line=payload.end_line,
        text=payload.text,
        symbol=payload.symbol,
        language=payload.language,
        metadata=payload.metadata,
        **({"explain": explain(scored.point)} if explain is not None else {}),
    )
