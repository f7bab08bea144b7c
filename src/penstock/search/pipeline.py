"""One query: encode, ask both arms at once, fuse, rescore, fetch.

The pipeline sees Protocols only. Whether an embedder is a thread or a topic away is none of its
business; what it must do is notice a failing arm and answer from the other.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from penstock.kernel.clock import Clock
from penstock.kernel.errors import Broken, Expired, PenstockError, Rejected, Unavailable
from penstock.kernel.messages import TextKind
from penstock.kernel.settings import SearchSettings
from penstock.kernel.together import together
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.kernel.work import Work
from penstock.models.contract import Embedder, SparseEncoder
from penstock.search import rescoring
from penstock.search.fusion import minmax, rrf
from penstock.search.priors import about_tests, reweighed
from penstock.search.records import (
    QUERY_CHARACTERS_MAX,
    Hit,
    Place,
    SearchRequest,
    SearchResult,
)
from penstock.stores.contract import Arm, ArmQuery, ChunkPayload, Scored, VectorStore

Encode = Callable[[str, Work], Awaitable[DenseVectors | SparseVector]]

log = logging.getLogger(__name__)

#: Candidates whose places are looked at after rescoring; what is further down stays there.
SHORTLIST: Final = 50

#: Errors of one arm that the other arm can make up for; ``Invalid`` is the request's own.
MENDABLE: Final = (Unavailable, Rejected, Expired, Broken)


@dataclass(slots=True)
class _Run:
    """What one search has found out so far."""

    request: SearchRequest
    work: Work
    clock: Clock
    stages: dict[str, float] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    rankings: dict[str, list[Scored]] = field(default_factory=dict)
    vectors: dict[str, DenseVectors | SparseVector] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: list[PenstockError] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage in milliseconds."""
        began = self.clock.now()
        try:
            yield
        finally:
            self.stages[name] = round((self.clock.now() - began) * 1000, 3)

    def give_up(self, what: str, error: PenstockError) -> None:
        """Go on without a part that failed; the answer says so, and of a bug the log too."""
        self.degraded.append(what)
        level = logging.WARNING if isinstance(error, Broken) else logging.DEBUG
        log.log(level, "%s: %s", what, error.detail, extra={"request_id": self.work.request_id})


class SearchPipeline:
    """Answers searches.

    Args:
        embedder: Makes dense query vectors.
        sparse: Makes sparse query vectors.
        store: Holds the points.
        settings: Candidates per arm.
        clock: The loop's clock.
        prepare: The query's text for the sparse arm (identifiers split, as in documents).
        reads_whole: Whether the dense model reads the whole of a text.
    """

    def __init__(  # noqa: PLR0913 - a composition root passes each part by name
        self,
        *,
        embedder: Embedder,
        sparse: SparseEncoder,
        store: VectorStore,
        settings: SearchSettings,
        clock: Clock,
        prepare: Callable[[str], str],
        reads_whole: Callable[[str], bool],
    ) -> None:
        self._embedder = embedder
        self._sparse = sparse
        self._store = store
        self._settings = settings
        self._clock = clock
        self._prepare = prepare
        self._reads_whole = reads_whole

    async def run(self, request: SearchRequest, work: Work) -> SearchResult:
        """Answer one search.

        Raises:
            Invalid: The request makes no sense, or its collection does not exist.
            Unavailable: No arm could answer.
            Expired: The deadline passed first.

        Cancellation: Everything asked of other rooms is cancelled.
        """
        request.check()
        began = self._clock.now()
        run = _Run(request, work, self._clock)
        query = request.query[:QUERY_CHARACTERS_MAX]
        if len(query) < len(request.query) or not self._reads_whole(query):
            run.degraded.append("query_truncated")
        await self._retrieve(run, query)
        with run.stage("fusion"):
            ranked = fused = _fuse(run)
        if request.rerank and len(run.rankings) > 1:
            with run.stage("rerank"):
                ranked = await self._rescore(run, fused)
        with run.stage("fetch"):
            hits = await self._hits(run, ranked, fused)
        took_ms = round((self._clock.now() - began) * 1000, 3)
        return SearchResult(hits, took_ms, run.stages, run.degraded)

    async def _retrieve(self, run: _Run, query: str) -> None:
        """Ask the arms whose weight is not 0, at the same time (W2)."""
        encoders: dict[Arm, Encode] = {Arm.DENSE: self._dense_vector, Arm.SPARSE: self._sparse_vector}
        weights = _weights(run.request)
        asked = [arm for arm in Arm if weights[arm] > 0]
        await together([self._ask(run, arm, query, encoders[arm]) for arm in asked])
        if not run.rankings:
            raise run.failures[0]

    async def _ask(self, run: _Run, arm: Arm, query: str, encode: Encode) -> None:
        """Encode the query for one arm and ask it; note its failure instead of raising it."""
        limit = max(self._settings.candidates, run.request.limit)
        try:
            with run.stage(f"{arm}_encode"):
                vector = await encode(query, run.work)
            with run.stage(arm):
                question = ArmQuery(vector, limit, run.request.filter)
                found = await self._store.search(run.request.collection, question, run.work)
        except MENDABLE as error:
            if run.work.deadline.passed(self._clock.now()):
                raise
            run.give_up(f"no_{arm}", error)
            run.failures.append(error)
            return
        run.vectors[arm] = vector
        run.rankings[arm] = found
        run.scores[arm] = {scored.point: scored.score for scored in found}

    async def _dense_vector(self, query: str, work: Work) -> DenseVectors:
        """Return ``float32 [dim]``."""
        vectors = await self._embedder.embed([query], TextKind.QUERY, work)
        vector: DenseVectors = vectors[0]
        return vector

    async def _sparse_vector(self, query: str, work: Work) -> SparseVector:
        encoded = await self._sparse.encode([self._prepare(query)], TextKind.QUERY, work)
        return encoded[0]

    async def _rescore(self, run: _Run, fused: list[Scored]) -> list[Scored]:
        """Complete both arms' scores of every candidate and mix them; on failure keep the fusion."""
        try:
            await together([self._complete(run, arm, fused) for arm in (Arm.DENSE, Arm.SPARSE)])
        except MENDABLE as error:
            if run.work.deadline.passed(self._clock.now()):
                raise
            run.give_up("no_rerank", error)
            return fused
        return rescoring.mixture(fused, run.scores[Arm.DENSE], run.scores[Arm.SPARSE], _weights(run.request))

    async def _complete(self, run: _Run, arm: Arm, candidates: Sequence[Scored]) -> None:
        """Ask an arm for the exact scores of candidates that only the other arm found."""
        unknown = rescoring.missing(candidates, run.scores[arm])
        if not unknown:
            return
        query = ArmQuery(run.vectors[arm], len(unknown), among=unknown)
        found = await self._store.search(run.request.collection, query, run.work)
        run.scores[arm].update({scored.point: scored.score for scored in found})

    async def _hits(self, run: _Run, ranked: Sequence[Scored], fused: Sequence[Scored]) -> list[Hit]:
        """Read the chunks of the best and, where they were rescored, weigh their places in.

        One deleted meanwhile is left out.
        """
        request, rescored = run.request, ranked is not fused
        wanted = max(request.limit, SHORTLIST) if rescored else request.limit
        best = ranked[:wanted]
        if not best:
            return []
        payloads = await self._store.fetch(request.collection, [scored.point for scored in best], run.work)
        best = [scored for scored in best if scored.point in payloads]
        if rescored and not about_tests(request.query):
            ranked = best = reweighed(best, {point: payload.path for point, payload in payloads.items()})
        explain = _explainer(run, ranked, fused) if request.explain else None
        return [_hit(scored, payloads[scored.point], explain) for scored in best[: request.limit]]


def _weights(request: SearchRequest) -> dict[str, float]:
    return {Arm.DENSE: request.weights.dense, Arm.SPARSE: request.weights.sparse}


def _fuse(run: _Run) -> list[Scored]:
    """Fuse the arms that answered; a single one keeps its own scores."""
    if len(run.rankings) == 1:
        return next(iter(run.rankings.values()))
    fuse = rrf if run.request.fusion == "rrf" else minmax
    return fuse(run.rankings, _weights(run.request))


def _explainer(run: _Run, ranked: Sequence[Scored], fused: Sequence[Scored]) -> Callable[[str], dict[str, Place]]:
    """Return a function from a point to its places in every stage that ran."""
    stages: dict[str, Sequence[Scored]] = dict(run.rankings)
    if len(run.rankings) > 1:
        stages["fusion"] = fused
    if ranked is not fused:
        stages["rerank"] = ranked
    ranks = {name: {scored.point: rank for rank, scored in enumerate(ranking, 1)} for name, ranking in stages.items()}
    scores: dict[str, Mapping[str, float]] = {
        name: run.scores.get(name) or {scored.point: scored.score for scored in ranking}
        for name, ranking in stages.items()
    }

    def explain(point: str) -> dict[str, Place]:
        return {name: Place(ranks[name].get(point), scores[name].get(point)) for name in stages}

    return explain


def _hit(scored: Scored, payload: ChunkPayload, explain: Callable[[str], dict[str, Place]] | None) -> Hit:
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
