"""Search pipeline: encodes a query for both arms at once, retrieves, and lets a cross-encoder reorder the best hits.

The pipeline sees Protocols only: an embedder may run in a thread of this process or behind a topic. When one arm fails,
the pipeline answers from the other.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import msgspec

from penstock.kernel.context import Clock, Context, Criticality, run_all
from penstock.kernel.errors import Broken, Invalid, PenstockError, Rejected, Unavailable
from penstock.kernel.late_interaction import TokenVectors
from penstock.kernel.messages import TextKind
from penstock.kernel.settings import SearchSettings
from penstock.kernel.vectors import DenseVectors, SparseVector
from penstock.models.contract import Embedder, SparseEncoder
from penstock.models.text_folding import spell_out
from penstock.policies.ladder import Rung
from penstock.ranking.program import RECOVERABLE_ERRORS, RERANK_STAGE, block_ends, order_in_blocks
from penstock.ranking.retrieval import Arm, Ranking, RetrievalQuery
from penstock.ranking.signals import apply_signals
from penstock.search.cross_encoder import (
    CROSS_ENCODER_HITS,
    CROSS_ENCODER_TIME_SHARE,
    CrossEncoder,
    reorder_by_relevance,
    reorder_hits,
    texts_to_read,
)
from penstock.search.degradation import (
    CACHED,
    COLLECTION_LEFT_OUT,
    HITS_TRUNCATED,
    NO_RERANK,
    PAGE_SHIFTED,
    QUERY_TRUNCATED,
    RETRY_AFTER_S,
    SearchPlan,
    failed_arm_word,
    plan_search,
)
from penstock.search.facets import COUNTED_CHUNKS, count_facets
from penstock.search.grouping import RankChunks, ranked_groups, within
from penstock.search.highlights import Highlighter, WordTerms, folded_word
from penstock.search.likeness import StoredVectors, read_vectors
from penstock.search.pages import Page, make_cursor, requested_page
from penstock.search.request import (
    LIMIT_MAX,
    QUERY_CHARACTERS_MAX,
    Facet,
    SearchHit,
    SearchRequest,
    SearchResult,
)
from penstock.search.result_cache import ResultCache
from penstock.search.several_collections import collection_of, left_out, merge_collections
from penstock.search.vector_coverage import VectorBackfill
from penstock.stores.commands import Retrieve
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import TEXT_FOLDED, Except, RetrievalResult, RetrievedHit
from penstock.stores.program_runner import RESULT_BYTES_MAX

log = logging.getLogger(__name__)


#: Seconds after which a strict search may try again, unless the error says otherwise.
STRICT_RETRY_AFTER_S: Final = 1.0


@dataclass(slots=True)
class SearchRun:
    """State of a running search: plan, vectors, stage times and failures."""

    request: SearchRequest
    page: Page
    ctx: Context
    clock: Clock
    plan: SearchPlan
    stages: dict[str, float] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    dense: DenseVectors | None = None
    sparse: SparseVector | None = None
    like: StoredVectors | None = None
    wanted: int = LIMIT_MAX
    parts: dict[str, SearchRun] = field(default_factory=dict)
    left_out: dict[str, PenstockError] = field(default_factory=dict)
    token_vectors: TokenVectors | None = None
    failures: list[PenstockError] = field(default_factory=list)
    store_answered: bool = False
    completed: bool = False
    coverage: float = 1.0

    @property
    def single_arm(self) -> bool:
        """True if no other arm could make up for one that fails."""
        return len(self.plan.arms) == 1 and self.plan.fallback_arm is None

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

    def degrade(self, what: str, error: PenstockError) -> None:
        """Go on without a part that failed; the answer names it, and a bug is logged as a warning.

        Raises:
            Rejected: The request is strict (``degraded``).
        """
        level = logging.WARNING if isinstance(error, Broken) else logging.DEBUG
        log.log(level, "%s: %s", what, error.detail)
        if self.request.strict:
            raise Rejected(
                f"the search is strict, and the answer would be degraded: {what} ({error.detail})",
                code="degraded",
                retry_after_s=getattr(error, "retry_after_s", STRICT_RETRY_AFTER_S),
            ) from error
        if what not in self.degraded:
            self.degraded.append(what)


#: The share of the time left that an arm may take where there are two.
ARM_TIME_SHARE: Final = 0.8


class SearchPipeline:
    """Answers searches.

    Args:
        embedder: Makes dense query vectors.
        sparse: Makes sparse query vectors.
        store: Holds the points.
        settings: Candidates per arm.
        clock: The loop's clock.
        prepare_sparse: The query's text for the sparse arm (identifiers split, as in documents) in a version.
        text_version: Returns the version of a collection's text. A query of ASCII is the same in each.
        fits_dense_model: Whether the dense model reads the whole of a text.
        knows_letters: Whether the dense model's vocabulary has most of a query.
        rung_of: The degradation ladder's rung for a class now, asked once for each search.
        result_cache: Cached answers for the rung that gives nothing else; without a cache that rung refuses.
        cross_encoder: Reads query and text together; the best candidates of both arms are ordered by it.
        word_terms: Terms by which a word is searched, for highlights.
        backfill: Makes the vectors that chunks lack.
    """

    def __init__(  # noqa: PLR0913 - a composition root passes each part by name
        self,
        *,
        embedder: Embedder,
        sparse: SparseEncoder,
        store: VectorStore,
        settings: SearchSettings,
        clock: Clock,
        prepare_sparse: Callable[[str, int], str],
        text_version: Callable[[str, Context], Awaitable[int]],
        fits_dense_model: Callable[[str], bool],
        knows_letters: Callable[[str], bool] = lambda _: True,
        rung_of: Callable[[Criticality], Rung] = lambda _: Rung.FULL,
        result_cache: ResultCache | None = None,
        cross_encoder: CrossEncoder | None = None,
        word_terms: WordTerms = folded_word,
        backfill: VectorBackfill | None = None,
    ) -> None:
        self._embedder = embedder
        self._sparse = sparse
        self._store = store
        self._settings = settings
        self._clock = clock
        self._prepare_sparse = prepare_sparse
        self._text_version = text_version
        self._fits_dense_model = fits_dense_model
        self._knows_letters = knows_letters
        self._rung_of = rung_of
        self._result_cache = result_cache
        self._cross_encoder = cross_encoder
        self._word_terms = word_terms
        self._backfill = backfill

    async def run(self, request: SearchRequest, ctx: Context) -> SearchResult:
        """Answer one search.

        Raises:
            Invalid: The request is invalid, or its collection does not exist.
            Unavailable: No arm could answer.
            Rejected: The ladder refuses the search, or it is strict and the answer would be ``degraded``.
            Expired: The deadline passed first.

        Cancellation: The calls to models and store are cancelled.
        """
        request.check()
        page, began = requested_page(request), self._clock.now()
        reads, rung = self._knows_letters(request.query), self._rung_of(ctx.criticality)
        plan = plan_search(request, rung, self._settings, dense_reads=reads)
        run = SearchRun(request, page, ctx, self._clock, plan)
        key = self._result_cache.key(request) if self._result_cache is not None else b""
        if run.plan.from_cache:
            result = await self._from_cache(run, key)
        else:
            result = await self._search(run)
        result = msgspec.structs.replace(result, took_ms=round((self._clock.now() - began) * 1000, 3))
        if self._result_cache is not None and not run.plan.from_cache:
            await self._result_cache.put(key, result)
        return result

    async def _from_cache(self, run: SearchRun, key: bytes) -> SearchResult:
        """Return the cached answer.

        Raises:
            Rejected: There is none (``overloaded``).
        """
        with run.stage("cache"):
            found = await self._result_cache.get(key) if self._result_cache is not None else None
        if found is None:
            raise Rejected(
                "overloaded: only cached results are served, and this query is not cached", retry_after_s=RETRY_AFTER_S
            )
        return msgspec.structs.replace(found, stages=run.stages, degraded=[*found.degraded, CACHED])

    async def _search(self, run: SearchRun) -> SearchResult:
        """Encode, rank, and return the page that was asked for."""
        if run.request.like:
            run.like = await read_vectors(self._store, run.request.names[0], run.request.like, run.ctx)
        query = run.request.query[:QUERY_CHARACTERS_MAX]
        if len(query) < len(run.request.query) or not self._fits_dense_model(query):
            run.degraded.append(QUERY_TRUNCATED)
        if run.plan.degraded_word:
            run.degraded.append(run.plan.degraded_word)
        await run_all([self._encode(run, arm, query) for arm in run.plan.arms])
        request, depth = run.request, min(run.page.begin + (run.request.offset or 0) + run.request.limit, LIMIT_MAX)
        if not request.group:
            # Facets look deeper, and tell themselves how many they have counted.
            run.wanted = depth
        rank: RankChunks = partial(self._rank, run, query)
        if request.collections:
            await self._begin_parts(run, query)
            rank = partial(self._rank_parts, run, query)
        facets: list[Facet] | msgspec.UnsetType = msgspec.UNSET
        if request.facets:
            widest = await rank(COUNTED_CHUNKS)
            facets = await count_facets(request.facets, widest, by_document=bool(request.group))
            rank = within(widest, COUNTED_CHUNKS, rank)
        if not request.group:
            found = await rank(depth)
            hits: list[Any] = found
        else:
            hits = await ranked_groups(rank, depth)
            found = [group.best for group in hits]
        result = await self._page(run, query, hits, [hit.point for hit in found])
        return msgspec.structs.replace(result, facets=facets)

    async def _page(self, run: SearchRun, query: str, hits: list[Any], points: list[str]) -> SearchResult:
        """Return the page of an order that was asked for.

        Args:
            run: The search.
            query: The query, empty for none.
            hits: Hits or groups of them, best first.
            points: The point of each.
        """
        request = run.request
        begin, shifted = run.page.find_begin(points)
        if shifted:
            run.degraded.append(PAGE_SHIFTED)
        begin += request.offset or 0
        end = min(begin + request.limit, LIMIT_MAX)
        more = begin < end <= len(points) and end < LIMIT_MAX
        shown = [hit.search_hit() if request.group else SearchHit.of(hit) for hit in hits[begin:end]]
        if request.collections:
            names = map(collection_of, points[begin:end])
            shown = [msgspec.structs.replace(hit, collection=name) for hit, name in zip(shown, names, strict=True)]
        if request.highlights:
            ranges = await Highlighter(query, self._word_terms).ranges([hit.text for hit in shown])
            shown = [msgspec.structs.replace(hit, highlights=one) for hit, one in zip(shown, ranges, strict=True)]
        following = make_cursor(request, end, points[end - 1]) if more else None
        missing = left_out(run.left_out) if run.left_out else msgspec.UNSET
        coverage = min(run.coverage, *(part.coverage for part in run.parts.values())) if run.parts else run.coverage
        told = coverage if coverage < 1 else msgspec.UNSET
        return SearchResult(shown, 0.0, run.stages, run.degraded, following, missing, coverage=told)

    async def _begin_parts(self, run: SearchRun, query: str) -> None:
        """Make a run for each of several collections; they share the query's vectors.

        Only the words of a text that is not ASCII may be prepared differently in each of them.
        """
        for name in run.request.collections:
            request = msgspec.structs.replace(run.request, collection=name)
            part = run.parts[name] = replace(run, request=request, parts={}, left_out={}, stages={}, degraded=[])
            part.failures = list(run.failures)
        if not query.isascii() and run.sparse is not None and run.like is None:
            await run_all([self._encode(part, Arm.SPARSE, query) for part in run.parts.values()])

    async def _rank_parts(self, run: SearchRun, query: str, depth: int) -> list[RetrievedHit]:
        """Rank each of several collections by itself and put the hits into one order.

        Raises:
            Invalid: One of them does not exist, or another model made it.
            PenstockError: None of them could be searched.
        """
        found: dict[str, list[RetrievedHit]] = {}

        async def rank(name: str, part: SearchRun) -> None:
            try:
                found[name] = await self._rank(part, query, depth)
            except (Unavailable, Broken, Rejected) as error:
                run.left_out[name] = error

        await run_all([rank(name, part) for name, part in run.parts.items() if name not in run.left_out])
        if not found:
            raise next(iter(run.left_out.values()))
        for error in run.left_out.values():
            run.degrade(COLLECTION_LEFT_OUT, error)
        parts = [run.parts[name] for name in run.request.collections if name in found]
        for part in parts:
            run.degraded += [word for word in part.degraded if word not in run.degraded]
            run.stages |= {stage: max(took_ms, run.stages.get(stage, 0.0)) for stage, took_ms in part.stages.items()}
        alike = all(part.degraded == parts[0].degraded for part in parts)
        ranked = {part.request.collection: found[part.request.collection] for part in parts}
        return merge_collections(ranked, comparable=alike)[:depth]

    async def _rank(self, run: SearchRun, query: str, depth: int) -> list[RetrievedHit]:
        """Retrieve so many of the best chunks, and let the cross-encoder reorder them if there is one."""
        cross = self._cross_encoder if run.plan.rerank and len(run.plan.arms) > 1 and query else None
        found, spare = await self._retrieve(run, query, depth, cross), run.plan.fallback_arm
        if spare is not None and not found:
            run.dense = run.sparse = None
            await self._encode(run, spare, query)
            found = await self._retrieve(run, query, depth, cross)
        if not run.store_answered:
            raise run.failures[0]
        if cross is not None and found:
            with run.stage("cross"):
                found = await self._cross_encode(run, query, cross, found)
        return found[:depth]

    async def _encode(self, run: SearchRun, arm: Arm, query: str) -> None:
        """Encode the query for one arm; record a failure instead of raising it."""
        encode = self._dense_vector if arm is Arm.DENSE else self._sparse_vector
        try:
            with run.stage(f"{arm}_encode"):
                await encode(run, query, run.ctx if run.single_arm else self._with_arm_deadline(run.ctx))
        except RECOVERABLE_ERRORS as error:
            if run.single_arm or run.ctx.deadline.passed(self._clock.now()):
                raise
            self._record_failure(run, failed_arm_word(arm), error)

    def _with_arm_deadline(self, ctx: Context) -> Context:
        """Return an arm's context with its own deadline: an arm that hangs must leave the other time to answer."""
        now_s = self._clock.now()
        return ctx.within(ARM_TIME_SHARE * ctx.deadline.remaining_s(now_s), ctx.deadline.operation, now_s)

    async def _dense_vector(self, run: SearchRun, query: str, ctx: Context) -> None:
        """Set the query's dense vector ``float32 [dim]`` and the token vectors of the same run of the model."""
        if run.like is not None:
            run.dense = run.like.dense
            return
        text = query if query.isascii() else spell_out(query)
        embedded = await self._embedder.embed([text], TextKind.QUERY, ctx, late_interaction=True)
        run.token_vectors = embedded.late[0] if embedded.late else None
        run.dense = embedded.dense[0]

    async def _sparse_vector(self, run: SearchRun, query: str, ctx: Context) -> None:
        if run.like is not None:
            run.sparse = run.like.sparse
            return
        version = TEXT_FOLDED if query.isascii() else await self._text_version(run.request.names[0], ctx)
        (run.sparse,) = await self._sparse.encode([self._prepare_sparse(query, version)], TextKind.QUERY, ctx)

    async def _retrieve(self, run: SearchRun, query: str, depth: int, cross: CrossEncoder | None) -> list[RetrievedHit]:
        """Retrieve so many hits by the vectors that have been encoded; none without a vector."""
        if run.dense is None and run.sparse is None:
            return []
        request, plan = run.request, run.plan
        wanted = RetrievalQuery(
            limit=depth if cross is None else block_ends(CROSS_ENCODER_HITS, depth)[-1],
            candidates=plan.candidates,
            dense=run.dense,
            sparse=run.sparse,
            token_vectors=run.token_vectors if plan.rerank else None,
            weights=run.weights,
            fusion=request.fusion,
            rerank=plan.rerank,
            text=query if cross is None else "",
            explain=request.explain,
        )
        itself = (Except("id", [request.like.id]),) if request.like else ()
        command = Retrieve(request.collection, wanted, request.filter + itself)
        with run.stage("retrieve"):
            try:
                answer = await self._store.run(command, run.ctx)
                backfill = self._backfill
                if run.dense is not None and backfill is not None and command.collection not in backfill.whole:
                    answer = await self._with_vectors(run, command, answer, backfill)
            except RECOVERABLE_ERRORS as error:
                if plan.fallback_arm is None or run.ctx.deadline.passed(self._clock.now()):
                    raise
                self._record_failure(run, failed_arm_word(Arm.SPARSE if run.dense is None else Arm.DENSE), error)
                return []
        run.store_answered = True
        run.stages |= answer.stages
        for what, failure in answer.failures.items():
            if run.ctx.deadline.passed(self._clock.now()):
                raise failure
            self._record_failure(run, NO_RERANK if what == RERANK_STAGE else failed_arm_word(Arm(what)), failure)
        if answer.truncated and len(answer.hits) < min(depth, run.wanted):
            detail = f"an answer holds {RESULT_BYTES_MAX} bytes of texts and metadata, ask for fewer hits"
            run.degrade(HITS_TRUNCATED, Invalid(detail, field="limit"))
        return answer.hits

    async def _with_vectors(
        self, run: SearchRun, command: Retrieve, answer: RetrievalResult, backfill: VectorBackfill
    ) -> RetrievalResult:
        """Return the answer, or a second one once the best hits have the vectors that they lacked."""
        pending = [hit.payload for hit in answer.hits if hit.payload.pending]
        # Under load what is there must do.
        if pending and not (run.completed or run.plan.degraded_word):
            run.completed = True
            with run.stage("backfill"):
                completed = await backfill.complete_best(command.collection, pending, run.ctx)
            if completed:
                # Without the second answer the first is as good as it was.
                with suppress(*RECOVERABLE_ERRORS):
                    answer = await self._store.run(command, run.ctx)
        run.coverage = await backfill.coverage(command.collection, run.ctx)
        return answer

    def _record_failure(self, run: SearchRun, word: str, error: PenstockError) -> None:
        """Record the failure of a part and go on without it."""
        run.failures.append(error)
        run.degrade(word, error)

    async def _cross_encode(
        self, run: SearchRun, query: str, cross: CrossEncoder, found: list[RetrievedHit]
    ) -> list[RetrievedHit]:
        """Reorder the best hits by a cross-encoder's scores, then apply the signals.

        If it fails, the order stays. It gets only a share of the time, so that one that hangs leaves enough to answer
        without it.
        """
        best = {one.point: one.score for one in found}
        payloads = {one.point: one.payload for one in found}
        count = texts_to_read(cross.texts, run.plan.candidates, self._settings.candidates)
        texts = [one.payload.text for one in found[:count]]
        now_s, deadline = self._clock.now(), run.ctx.deadline
        ctx = run.ctx.within(CROSS_ENCODER_TIME_SHARE * deadline.remaining_s(now_s), deadline.operation, now_s)
        stages: dict[str, Ranking[str]] = {}
        try:
            relevance = await cross.reranker.rerank(query, texts, ctx)
            best = stages["cross"] = reorder_by_relevance(best, relevance.tolist())
        except (*RECOVERABLE_ERRORS, Invalid) as error:
            if deadline.passed(self._clock.now()):
                raise
            if NO_RERANK not in run.degraded:
                run.degrade(NO_RERANK, error)
        best = stages["signals"] = order_in_blocks(
            best, block_ends(CROSS_ENCODER_HITS, len(best)), lambda block: apply_signals(query, block, payloads)
        )
        return reorder_hits(found, best, stages)
