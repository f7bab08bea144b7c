"""One query: encode it both ways at once, retrieve, let a cross-encoder read the best.

The pipeline sees Protocols only. Whether an embedder is a thread or a topic away is none of its
business; what it must do is notice a failing arm and answer from the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from penstock.kernel.clock import Clock
from penstock.kernel.context import Context, Criticality
from penstock.kernel.errors import Invalid, PenstockError, Rejected
from penstock.kernel.messages import TextKind
from penstock.kernel.settings import SearchSettings
from penstock.kernel.together import together
from penstock.models.contract import Embedder, Reranker, SparseEncoder
from penstock.policies.ladder import Rung
from penstock.ranking.course import MENDABLE, RERANK
from penstock.ranking.records import Arm, Ranking, Retrieval
from penstock.ranking.signals import reweighed
from penstock.search.answers import AnswerCache
from penstock.search.crossing import placed, texts_read
from penstock.search.degradation import (
    CACHED,
    HITS_TRUNCATED,
    NO_RERANK,
    QUERY_TRUNCATED,
    RETRY_AFTER_S,
    plan,
    word_of_arm,
)
from penstock.search.records import QUERY_CHARACTERS_MAX, Hit, SearchRequest, SearchResult
from penstock.search.run import Run, hit, reordered
from penstock.stores.contract import VectorStore
from penstock.stores.reading import ANSWER_BYTES_MAX
from penstock.stores.records import Found

Encode = Callable[[Run, str, Context], Awaitable[None]]

#: Hits that a cross-encoder may be given, and that are weighed after it.
SHORTLIST: Final = 50

#: The share of the time left that an arm may take where there are two.
ARM_SHARE: Final = 0.8

#: The share of the time left that a cross-encoder may take.
CROSS_SHARE: Final = 0.5


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

    async def run(self, request: SearchRequest, ctx: Context) -> SearchResult:
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
        run = Run(request, ctx, self._clock, plan(request, self._rung(ctx.criticality), self._settings))
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
        """Encode, retrieve, and let a cross-encoder read the best if there is one."""
        query = run.request.query[:QUERY_CHARACTERS_MAX]
        if len(query) < len(run.request.query) or not self._reads_whole(query):
            run.degraded.append(QUERY_TRUNCATED)
        if run.plan.word:
            run.degraded.append(run.plan.word)
        encoders: dict[Arm, Encode] = {Arm.DENSE: self._dense_vector, Arm.SPARSE: self._sparse_vector}
        arms, spare = run.plan.arms, run.plan.spare
        await together([self._encode(run, arm, query, encoders[arm]) for arm in arms])
        cross = self._cross if run.plan.rerank and len(arms) > 1 else None
        found = await self._retrieved(run, query, cross)
        if spare is not None and not found:
            run.dense = run.sparse = None
            await self._encode(run, spare, query, encoders[spare])
            found = await self._retrieved(run, query, cross)
        if not run.answered:
            raise run.failures[0]
        if cross is not None and found:
            with run.stage("cross"):
                found = await self._crossed(run, query, cross, found)
        return [hit(one) for one in found[: run.request.limit]]

    async def _encode(self, run: Run, arm: Arm, query: str, encode: Encode) -> None:
        """Encode the query for one arm; note its failure instead of raising it."""
        try:
            with run.stage(f"{arm}_encode"):
                await encode(run, query, run.ctx if run.alone else self._hurried(run.ctx))
        except MENDABLE as error:
            if run.alone or run.ctx.deadline.passed(self._clock.now()):
                raise
            self._note(run, word_of_arm(arm), error)

    def _hurried(self, ctx: Context) -> Context:
        """Return the label of an arm: an arm that hangs must leave the other one time to answer."""
        now_s = self._clock.now()
        return ctx.within(ARM_SHARE * ctx.deadline.remaining_s(now_s), ctx.deadline.operation, now_s)

    async def _dense_vector(self, run: Run, query: str, ctx: Context) -> None:
        """Note ``float32 [dim]``, and the token vectors that the same run of the model gave."""
        embedded = await self._embedder.embed([query], TextKind.QUERY, ctx, late=True)
        run.tokens = embedded.late[0] if embedded.late else None
        run.dense = embedded.dense[0]

    async def _sparse_vector(self, run: Run, query: str, ctx: Context) -> None:
        (run.sparse,) = await self._sparse.encode([self._prepare(query)], TextKind.QUERY, ctx)

    async def _retrieved(self, run: Run, query: str, cross: Cross | None) -> list[Found]:
        """Ask the store for what has been encoded, if anything has."""
        if run.dense is None and run.sparse is None:
            return []
        request, plan = run.request, run.plan
        wanted = Retrieval(
            limit=request.limit if cross is None else max(request.limit, SHORTLIST),
            candidates=plan.candidates,
            dense=run.dense,
            sparse=run.sparse,
            tokens=run.tokens if plan.rerank else None,
            weights=run.weights,
            fusion=request.fusion,
            rerank=plan.rerank,
            query=query if cross is None else "",
            explain=request.explain,
        )
        with run.stage("retrieve"):
            try:
                answer = await self._store.retrieve(request.collection, wanted, request.filter, run.ctx)
            except MENDABLE as error:
                if plan.spare is None or run.ctx.deadline.passed(self._clock.now()):
                    raise
                self._note(run, word_of_arm(Arm.SPARSE if run.dense is None else Arm.DENSE), error)
                return []
        run.answered = True
        run.stages |= answer.stages
        for what, failure in answer.failures.items():
            if run.ctx.deadline.passed(self._clock.now()):
                raise failure
            self._note(run, NO_RERANK if what == RERANK else word_of_arm(Arm(what)), failure)
        if answer.cut and len(answer.hits) < request.limit:
            detail = f"an answer holds {ANSWER_BYTES_MAX} bytes of texts and metadata, ask for fewer hits"
            run.give_up(HITS_TRUNCATED, Invalid(detail, field="limit"))
        return answer.hits

    def _note(self, run: Run, word: str, error: PenstockError) -> None:
        """Go on without a part that failed."""
        run.failures.append(error)
        run.give_up(word, error)

    async def _crossed(self, run: Run, query: str, cross: Cross, found: list[Found]) -> list[Found]:
        """Order the very best by what a cross-encoder says of them, and weigh in what names and places tell.

        On failure they stay as they are. It gets a share of the time only: one that hangs must leave enough to answer
        without it.
        """
        best = {one.point: one.score for one in found}
        payloads = {one.point: one.payload for one in found}
        limit = max(self._settings.candidates, run.request.limit)
        count = texts_read(cross.texts, run.plan.candidates, limit)
        texts = [one.payload.text for one in found[:count]]
        now_s, deadline = self._clock.now(), run.ctx.deadline
        ctx = run.ctx.within(CROSS_SHARE * deadline.remaining_s(now_s), deadline.operation, now_s)
        stages: dict[str, Ranking[str]] = {}
        try:
            relevance = await cross.reranker.rerank(query, texts, ctx)
            best = stages["cross"] = placed(best, relevance.tolist())
        except (*MENDABLE, Invalid) as error:
            if deadline.passed(self._clock.now()):
                raise
            if NO_RERANK not in run.degraded:
                run.give_up(NO_RERANK, error)
        best = stages["signals"] = reweighed(query, best, payloads)
        return reordered(found, best, stages)
