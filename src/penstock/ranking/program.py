"""Retrieval program: a sans-I/O generator that yields the steps of a retrieval and receives their results.

It yields a step and is sent the result, or has the error thrown at it. It does not know where its steps are executed:
a store process runs many programs at once and gives the engine the steps of all of them as one batch. Over a network
the same program is run call by call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.kernel.errors import Broken, Expired, PenstockError, Rejected, Unavailable
from penstock.ranking.fusion import in_one_order, minmax, rrf, sort_best_first
from penstock.ranking.retrieval import (
    Arm,
    ArmSearch,
    CompareTokensStep,
    P,
    ProgramStep,
    Ranking,
    ReadPayloadsStep,
    RetrievalOutcome,
    RetrievalQuery,
    SearchStep,
)
from penstock.ranking.signals import apply_signals

#: The name of the scores by token vectors, beside those of the arms.
LATE_INTERACTION: Final = "late"

#: Candidates that are rescored, the best of the fusion. On three collections it finds as good hits as with all 200.
#: Where more hits are wanted, the next ones get both exact scores in blocks of their own (:func:`block_ends`).
RESCORED_CANDIDATES: Final = 64

#: Share of the likeness of their tokens in the likeness of two texts, beside the cosine of the texts as wholes.
LATE_INTERACTION_SHARE: Final = 0.4

#: Most weight of ``BM25 / best BM25`` beside the likeness.
SPARSE_SHARE: Final = 0.25

#: The best BM25 score at which that weight is half its most: few or common words in common are weak evidence.
SPARSE_HALF_SCORE: Final = 15.0

#: Least weight of a token: with one candidate none stands out.
TOKEN_WEIGHT_MIN: Final = 1e-6


def late_interaction_scores(maxima: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the likeness of each candidate's tokens to the query's: MaxSim, with tokens that count differently.

    A query token's weight is its best score among the candidates minus its mean score. A token that all candidates
    match (articles, the subject of the whole collection) separates them as little as one that none matches. With equal
    weights, nDCG@10 is half a point lower on each of three collections (``docs/benchmarks/quality.md``).

    Args:
        maxima: Best cosine of each query token in each candidate, ``float32 [candidates, tokens]``
            (:func:`penstock.kernel.late_interaction.max_cosines`).

    Returns:
        ``float32 [candidates]``.
    """
    weights = maxima.max(axis=0) - maxima.mean(axis=0) + np.float32(TOKEN_WEIGHT_MIN)
    found: NDArray[np.float32] = maxima @ (weights / weights.sum())
    return found


def mix_scores(
    candidates: Iterable[P], scores: Mapping[str, Mapping[P, float]], weights: Mapping[str, float]
) -> Ranking[P]:
    """Return the candidates by ``likeness + 0.25 · best / (best + 15) · BM25 / best``.

    The likeness is the cosine of the texts as wholes, with two fifths of that of their tokens in it where there is any;
    ``best`` is the best BM25 score of a candidate.

    Args:
        candidates: The candidates that the fusion kept.
        scores: Exact scores by arm (or ``LATE_INTERACTION``) and point. A point without a sparse score shares no term
            with the query. A point whose tokens were not compared gets the lowest such score of those that were. A
            point without a dense score has no vectors yet and gets the mean likeness of those that have.
        weights: The request's weights of the arms.
    """
    dense, sparse, late = (scores.get(name, {}) for name in (Arm.DENSE, Arm.SPARSE, LATE_INTERACTION))
    best = max(sparse.values(), default=0.0)
    scale = SPARSE_SHARE * weights.get(Arm.SPARSE, 1.0) / (best + SPARSE_HALF_SCORE) if best > 0 else 0.0
    share = weights.get(Arm.DENSE, 1.0)
    unlike = min(late.values(), default=0.0)
    part = LATE_INTERACTION_SHARE if late else 0.0

    points = list(candidates)
    likeness = {
        point: (1 - part) * dense.get(point, 0.0) + part * late.get(point, unlike)
        for point in points
        if point in dense or not dense
    }
    neutral = sum(likeness.values()) / len(likeness) if len(likeness) < len(points) and likeness else 0.0
    return sort_best_first(
        {point: share * likeness.get(point, neutral) + scale * sparse.get(point, 0.0) for point in points}
    )


#: Errors of one part that the others can make up for; ``Invalid`` is the request's own fault.
RECOVERABLE_ERRORS: Final = (Unavailable, Rejected, Expired, Broken)

#: Name of the failure when the best cannot be rescored; the failure of an arm has the arm's name.
RERANK_STAGE: Final = "rerank"

RetrievalProgram = Generator[ProgramStep[P], Any, RetrievalOutcome[P]]

#: Further stages to which the time of a step is counted, beside ``RERANK_STAGE``.
ARMS_STAGE: Final = "arms"
FETCH_STAGE: Final = "fetch"


def retrieval_program(query: RetrievalQuery) -> RetrievalProgram[P]:
    """Search both arms, fuse, rescore, read payloads, apply signals.

    Yields:
        Steps. The result to send is a list of ``Ranking`` (``SearchStep``), maxima by point (``CompareTokensStep``), or
        payloads by point (``ReadPayloadsStep``).

    Raises:
        PenstockError: The error thrown into it, where nothing can make up for it.
    """
    failures: dict[str, PenstockError] = {}
    arms: dict[str, Ranking[P]] = {}
    yield from _ask_arms(query, arms, failures)
    fused: Ranking[P]
    ends: tuple[int, ...]
    fused, ends = yield from _deepened(query, arms)
    stages: dict[str, Ranking[P]] = {**arms, "fusion": fused} if len(arms) > 1 else {**arms}
    exact: dict[str, dict[P, float]] = {arm: {**ranking} for arm, ranking in arms.items()}
    ranked, weighed = fused, False
    if query.rerank and len(arms) > 1:
        try:
            ranked = stages[RERANK_STAGE] = yield from _rescored(query, fused, ends, exact)
        except RECOVERABLE_ERRORS as error:
            failures[RERANK_STAGE] = error
        else:
            weighed = bool(query.text)
    best = dict(list(ranked.items())[: ends[-1] if weighed else query.limit])
    if exact.get(LATE_INTERACTION):
        stages[LATE_INTERACTION] = sort_best_first(exact[LATE_INTERACTION])
    payloads: Mapping[P, Any] = (yield ReadPayloadsStep(list(best))) if best else {}
    best = {point: score for point, score in best.items() if point in payloads}
    if weighed:
        weigh = partial(apply_signals, query.text, chunks=payloads)
        best = stages["signals"] = order_in_blocks(best, ends, weigh)
    return RetrievalOutcome(dict(list(best.items())[: query.limit]), payloads, stages, exact, failures)


def advance(
    program: RetrievalProgram[P], answer: Any = None, *, error: PenstockError | None = None
) -> ProgramStep[P] | RetrievalOutcome[P]:
    """Advance a program; return its next step, or its outcome.

    Args:
        program: The program.
        answer: The result of the step before; ``None`` to begin.
        error: The error of the step before, if it failed.

    Raises:
        PenstockError: The error, where nothing can make up for it.
    """
    try:
        return program.send(answer) if error is None else program.throw(error)
    except StopIteration as end:
        outcome: RetrievalOutcome[P] = end.value
        return outcome


def stage_of(step: ProgramStep[P]) -> str:
    """Return the stage of a search that a step belongs to: ``ARMS_STAGE``, ``RERANK_STAGE`` or ``FETCH_STAGE``."""
    if isinstance(step, ReadPayloadsStep):
        return FETCH_STAGE
    return (
        ARMS_STAGE if isinstance(step, SearchStep) and any(ask.among is None for ask in step.searches) else RERANK_STAGE
    )


def _ask_arms(
    query: RetrievalQuery, arms: dict[str, Ranking[P]], failures: dict[str, PenstockError]
) -> Generator[ProgramStep[P], Any, None]:
    """Search both arms at once; each by itself if a query of one failed both.

    A store that is down or busy is not asked again.
    """
    vectors = {Arm.DENSE: query.dense, Arm.SPARSE: query.sparse}
    asks: list[ArmSearch[P]] = [
        ArmSearch(arm, vector, query.candidates) for arm, vector in vectors.items() if vector is not None
    ]
    try:
        found: list[Ranking[P]] = yield SearchStep(asks)
    except Broken:
        if len(asks) == 1:
            raise
    else:
        arms.update(zip((ask.arm for ask in asks), map(in_one_order, found), strict=True))
        return
    for ask in asks:
        try:
            arms[ask.arm] = in_one_order(*(yield SearchStep([ask])))
        except RECOVERABLE_ERRORS as error:
            failures[ask.arm] = error
    if not arms:
        raise failures[asks[0].arm]


def block_ends(first: int, depth: int) -> tuple[int, ...]:
    """Return where the blocks of a ranking end of which ``depth`` hits are wanted: ``first``, then twice as many.

    A block is ordered by itself and stands below the one before. So a longer answer begins as the shorter one: what
    only the longer one looks at cannot rise among the hits of the shorter.
    """
    ends = [max(first, 1)]
    while ends[-1] < depth:
        ends.append(2 * ends[-1])
    return tuple(ends)


def order_in_blocks(ranking: Ranking[P], ends: Sequence[int], order: Callable[[Ranking[P]], Ranking[P]]) -> Ranking[P]:
    """Return a ranking with each block ordered by itself; no score is above the last one of the block before."""
    if len(ranking) <= ends[0]:
        return order(ranking)
    entries, ordered, begin, most = list(ranking.items()), dict[P, float](), 0, math.inf
    for end in ends:
        block = order(dict(entries[begin:end]))
        ordered.update((point, min(score, most)) for point, score in block.items())
        begin, most = end, min(most, min(block.values(), default=most))
    return ordered


def _deepened(
    query: RetrievalQuery, arms: dict[str, Ranking[P]]
) -> Generator[ProgramStep[P], Any, tuple[Ranking[P], tuple[int, ...]]]:
    """Fuse the arms, and return where the blocks end; where the fusion is shorter, ask the arms for twice as many.

    What they find then stands below what they found before.
    """
    fused, asked = _fused(query, arms), query.candidates
    ends = block_ends(min(len(fused), RESCORED_CANDIDATES), query.limit)
    vectors = {Arm.DENSE: query.dense, Arm.SPARSE: query.sparse}
    while len(fused) < ends[-1] and any(len(ranking) >= asked for ranking in arms.values()):
        asked *= 2
        asks: list[ArmSearch[P]] = [
            ArmSearch(arm, vector, asked) for arm, vector in vectors.items() if arm in arms and vector is not None
        ]
        arms.update(zip((ask.arm for ask in asks), map(in_one_order, (yield SearchStep(asks))), strict=True))
        lowest = min(fused.values())
        fused |= {point: min(score, lowest) for point, score in _fused(query, arms).items() if point not in fused}
    return fused, ends


def _fused(query: RetrievalQuery, arms: Mapping[str, Ranking[P]]) -> Ranking[P]:
    """Fuse the arms that answered; a single one keeps its own scores."""
    if len(arms) == 1:
        return next(iter(arms.values()))
    return (rrf if query.fusion == "rrf" else minmax)(arms, query.weights)


def _rescored(
    query: RetrievalQuery, fused: Ranking[P], ends: Sequence[int], scores: dict[str, dict[P, float]]
) -> Generator[ProgramStep[P], Any, Ranking[P]]:
    """Complete the scores of the best candidates, compare the tokens of the first block, and mix the scores."""
    chosen = list(fused)[: ends[-1]]
    asks = _unknown(query, chosen, scores)
    if asks:
        for ask, ranking in zip(asks, (yield SearchStep(asks, chosen[: ends[0]])), strict=True):
            scores[ask.arm].update(ranking)
    if query.token_vectors is not None:
        maxima: Mapping[P, NDArray[np.float32]] = yield CompareTokensStep(query.token_vectors, chosen[: ends[0]])
        if maxima:
            likeness = late_interaction_scores(np.stack(list(maxima.values())))
            scores[LATE_INTERACTION] = dict(zip(maxima, likeness.tolist(), strict=True))
    best = {point: fused[point] for point in chosen}
    return order_in_blocks(best, ends, lambda block: mix_scores(block, scores, query.weights))


def _unknown(query: RetrievalQuery, chosen: Sequence[P], scores: Mapping[str, Mapping[P, float]]) -> list[ArmSearch[P]]:
    """Return the searches for the arms' scores of candidates that only the other arm found."""
    vectors = {Arm.DENSE: query.dense, Arm.SPARSE: query.sparse}
    missing = {arm: [point for point in chosen if point not in scores[arm]] for arm in vectors}
    return [
        ArmSearch(arm, vector, len(missing[arm]), missing[arm])
        for arm, vector in vectors.items()
        if vector is not None and missing[arm]
    ]
