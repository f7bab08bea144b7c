"""One query: encode, ask both arms at once, fuse, rescore, fetch.

The pipeline sees Protocols only. Whether an embedder is a thread or a topic away is none of its
business; what it must do is notice a failing arm and answer from the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from penstock.kernel.clock import Clock
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.messages import TextKind
from penstock.kernel.settings import SearchSettings
from penstock.kernel.together import together
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.kernel.work import Criticality, Work
from penstock.models.contract import Embedder, Reranker, SparseEncoder
from penstock.policies.ladder import Rung
from penstock.search import rescoring
from penstock.search.answers import AnswerCache
from penstock.search.crossing import placed, texts_read
from penstock.search.degradation import (
    CACHED,
    NO_RERANK,
    QUERY_TRUNCATED,
    RETRY_AFTER_S,
    plan,
    word_of_arm,
)
from penstock.search.fusion import minmax, rrf
from penstock.search.records import QUERY_CHARACTERS_MAX, Hit, SearchRequest, SearchResult
from penstock.search.run import Run, explainer, hit
from penstock.search.signals import reweighed
from penstock.stores.contract import Arm, ArmQuery, ChunkPayload, Scored, VectorStore

Encode = Callable[[Run, str, Work], Awaitable[DenseVectors | SparseVector]]

#: Candidates whose places are looked at after rescoring; what is further down stays there.
SHORTLIST: Final = 50

#: The share of the time left that an arm may take where there are two.
ARM_SHARE: Final = 0.8

#: The share of the time left that a cross-encoder may take.
CROSS_SHARE: Final = 0.5

#: Errors of one arm that the other arm can make up for; ``Invalid`` is the request's own.
MENDABLE: Final = (Unavailable, Rejected, Expired, Broken)


@dataclass(frozen=True, slots=True)
class Cross:
    """A cross-encoder, and how many texts of a search it reads."""

    reranker: Reranker
    texts: int


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
        rung: The degradation ladder's rung for a class now, asked once for each search.
        answers: Remembered answers for the rung that has nothing else; without them it refuses.
        cross: Reads query and text together; the best candidates of both arms are ordered by it.
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
        rung: Callable[[Criticality], Rung] = lambda _: Rung.FULL,
        answers: AnswerCache | None = None,
        cross: Cross | None = None,
    ) -> None:
        self._embedder = embedder
        self._sparse = sparse
        self._store = store
        self._settings = settings
        self._clock = clock
        self._prepare = prepare
        self._reads_whole = reads_whole
        self._rung = rung
        self._answers = answers
        self._cross = cross

    async def run(self, request: SearchRequest, work: Work) -> SearchResult:
        """Answer one search.

        Raises:
            Invalid: The request makes no sense, or its collection does not exist.
            Unavailable: No arm could answer.
            Rejected: The ladder refuses it, or it is strict and the answer would be ``degraded``.
            Expired: The deadline passed first.

        Cancellation: Everything asked of other rooms is cancelled.
        """
        request.check()
        began = self._clock.now()
        run = Run(request, work, self._clock, plan(request, self._rung(work.criticality), self._settings))
        key = self._answers.key(request) if self._answers is not None else b""
        if run.plan.from_cache:
            result = await self._recalled(run, key)
        else:
            result = SearchResult(await self._searched(run), 0.0, run.stages, run.degraded)
        result = msgspec.structs.replace(result, took_ms=round((self._clock.now() - began) * 1000, 3))
        if self._answers is not None and not run.plan.from_cache:
            await self._answers.keep(key, result)
        return result

    async def _recalled(self, run: Run, key: bytes) -> SearchResult:
        """Return the remembered answer.

        Raises:
            Rejected: There is none (``overloaded``).
        """
        with run.stage("cache"):
            found = await self._answers.recall(key) if self._answers is not None else None
        if found is None:
            raise Rejected("the server answers only what it has answered lately", retry_after_s=RETRY_AFTER_S)
        return msgspec.structs.replace(found, stages=run.stages, degraded=[*found.degraded, CACHED])

    async def _searched(self, run: Run) -> list[Hit]:
        """Ask, fuse, rescore, fetch."""
        query = run.request.query[:QUERY_CHARACTERS_MAX]
        if len(query) < len(run.request.query) or not self._reads_whole(query):
            run.degraded.append(QUERY_TRUNCATED)
        if run.plan.word:
            run.degraded.append(run.plan.word)
        await self._retrieve(run, query)
        with run.stage("fusion"):
            ranked = fused = _fuse(run)
        if run.plan.rerank and len(run.rankings) > 1:
            with run.stage("rerank"):
                ranked = await self._rescore(run, fused)
        return await self._hits(run, ranked, fused)

    async def _retrieve(self, run: Run, query: str) -> None:
        """Ask the plan's arms at the same time (W2), then the spare one if they came back empty-handed."""
        encoders: dict[Arm, Encode] = {Arm.DENSE: self._dense_vector, Arm.SPARSE: self._sparse_vector}
        arms, spare = run.plan.arms, run.plan.spare
        await together([self._ask(run, arm, query, encoders[arm]) for arm in arms])
        if spare is not None and not any(run.rankings.values()):
            await self._ask(run, spare, query, encoders[spare])
            if spare in run.rankings:
                run.rankings = {spare: run.rankings[spare]}
        if not run.rankings:
            raise run.failures[0]

    async def _ask(self, run: Run, arm: Arm, query: str, encode: Encode) -> None:
        """Encode the query for one arm and ask it; note its failure instead of raising it."""
        work = run.work if run.alone else self._hurried(run.work)
        try:
            with run.stage(f"{arm}_encode"):
                vector = await encode(run, query, work)
            with run.stage(arm):
                wanted = ArmQuery(vector, run.plan.candidates, run.request.filter)
                found = await self._store.search(run.request.collection, wanted, work)
        except MENDABLE as error:
            if run.alone or run.work.deadline.passed(self._clock.now()):
                raise
            run.failures.append(error)
            run.give_up(word_of_arm(arm), error)
            return
        run.vectors[arm] = vector
        run.rankings[arm] = found
        run.scores[arm] = {scored.point: scored.score for scored in found}

    def _hurried(self, work: Work) -> Work:
        """Return the label of an arm: an arm that hangs must leave the other one time to answer."""
        now_s = self._clock.now()
        return work.within(ARM_SHARE * work.deadline.remaining_s(now_s), work.deadline.operation, now_s)

    async def _dense_vector(self, run: Run, query: str, work: Work) -> DenseVectors:
        """Return ``float32 [dim]``, and keep the token vectors that the same run of the model gave."""
        embedded = await self._embedder.embed([query], TextKind.QUERY, work, late=True)
        run.tokens = embedded.late[0] if embedded.late else None
        vector: DenseVectors = embedded.dense[0]
        run.dense = vector
        return vector

    async def _sparse_vector(self, _run: Run, query: str, work: Work) -> SparseVector:
        encoded = await self._sparse.encode([self._prepare(query)], TextKind.QUERY, work)
        return encoded[0]

    async def _rescore(self, run: Run, fused: list[Scored]) -> list[Scored]:
        """Complete every score of every candidate and mix them; on failure keep the fusion."""
        try:
            await self._complete(run, fused)
            ranked = rescoring.mixture(fused, run.scores, run.weights)
            if not run.plan.word and await self._feed_back(run, ranked):
                ranked = rescoring.mixture(fused, run.scores, run.weights)
        except MENDABLE as error:
            if run.work.deadline.passed(self._clock.now()):
                raise
            run.give_up(NO_RERANK, error)
            return fused
        return ranked

    async def _feed_back(self, run: Run, ranked: Sequence[Scored]) -> bool:
        """Ask for the cosines to the query moved towards its best hits; return whether there were any."""
        best = [scored.point for scored in ranked[: rescoring.FEEDBACK_HITS]]
        if run.dense is None or not best:
            return False
        hits = await self._store.vectors(run.request.collection, best, run.work)
        if not hits:
            return False
        query = rescoring.moved(run.dense, list(hits.values()))
        among = [scored.point for scored in ranked]
        found = await self._store.search(run.request.collection, ArmQuery(query, len(among), among=among), run.work)
        run.scores[rescoring.FEEDBACK] = {scored.point: scored.score for scored in found}
        return bool(found)

    async def _complete(self, run: Run, candidates: Sequence[Scored]) -> None:
        """Ask for the exact scores that are not known yet, all at once.

        An arm's are those of candidates that only the other arm found; nobody knows the late ones.
        """
        unknown: dict[str, list[str]] = {arm: rescoring.missing(candidates, run.scores[arm]) for arm in Arm}
        if run.tokens is not None:
            unknown[rescoring.LATE] = [scored.point for scored in candidates[: rescoring.LATE_CANDIDATES]]
            run.vectors[rescoring.LATE] = run.tokens
        asked = {name: points for name, points in unknown.items() if points}
        queries = [ArmQuery(run.vectors[name], len(points), among=points) for name, points in asked.items()]
        answers = await self._store.search_all(run.request.collection, queries, run.work)
        for name, found in zip(asked, answers, strict=True):
            run.scores.setdefault(name, {}).update({scored.point: scored.score for scored in found})

    async def _hits(self, run: Run, ranked: Sequence[Scored], fused: Sequence[Scored]) -> list[Hit]:
        """Read the chunks of the best and, where they were rescored, weigh in what their names and places tell.

        One deleted meanwhile is left out.
        """
        request, cross = run.request, self._cross if run.plan.rerank and len(run.plan.arms) > 1 else None
        rescored = ranked is not fused or cross is not None
        wanted = max(request.limit, SHORTLIST) if rescored else request.limit
        best = ranked[:wanted]
        with run.stage("fetch"):
            points = [scored.point for scored in best]
            payloads = await self._store.fetch(request.collection, points, run.work) if points else {}
        best = [scored for scored in best if scored.point in payloads]
        stages = {"rerank": ranked} if ranked is not fused else {}
        if cross is not None and best:
            with run.stage("cross"):
                best = stages["cross"] = await self._crossed(run, cross, best, payloads)
        if rescored:
            best = stages["signals"] = reweighed(request.query, best, payloads)
        explain = explainer(run, fused, stages) if request.explain else None
        return [hit(scored, payloads[scored.point], explain) for scored in best[: request.limit]]

    async def _crossed(
        self, run: Run, cross: Cross, best: list[Scored], payloads: Mapping[str, ChunkPayload]
    ) -> list[Scored]:
        """Order the very best by what a cross-encoder says of them; on failure they stay as they are.

        It gets a share of the time only: one that hangs must leave enough to answer without it.
        """
        count = texts_read(cross.texts, run.plan.candidates, max(self._settings.candidates, run.request.limit))
        texts = [payloads[scored.point].text for scored in best[:count]]
        now_s, deadline = self._clock.now(), run.work.deadline
        work = run.work.within(CROSS_SHARE * deadline.remaining_s(now_s), deadline.operation, now_s)
        try:
            relevance = await cross.reranker.rerank(run.request.query[:QUERY_CHARACTERS_MAX], texts, work)
        except (*MENDABLE, Invalid) as error:
            if deadline.passed(self._clock.now()):
                raise
            if NO_RERANK not in run.degraded:
                run.give_up(NO_RERANK, error)
            return best
        return placed(best, relevance.tolist())


def _fuse(run: Run) -> list[Scored]:
    """Fuse the arms that answered; a single one keeps its own scores."""
    if len(run.rankings) == 1:
        return next(iter(run.rankings.values()))
    fuse = rrf if run.request.fusion == "rrf" else minmax
    return fuse(run.rankings, run.weights)
