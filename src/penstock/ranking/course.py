"""The course of a retrieval: what a collection is asked, one thing after another, and what follows of the answers.

A generator: it yields a step and is sent what came of it, or has the error thrown at it. Where the questions are
answered is none of its business: a store process drives many courses side by side and gives the engine the steps of
all of them as one batch; over a network the same course is driven call by call.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.kernel.errors import Broken, Expired, PenstockError, Rejected, Unavailable
from penstock.ranking import rescoring
from penstock.ranking.fusion import best_first, minmax, rrf
from penstock.ranking.records import Arm, Ask, Compare, Outcome, P, Ranking, Read, Retrieval, Seek, Step
from penstock.ranking.rescoring import LATE
from penstock.ranking.signals import reweighed, shortlist

#: Errors of one part that the others can make up for; ``Invalid`` is the request's own.
MENDABLE: Final = (Unavailable, Rejected, Expired, Broken)

#: What fails when the best cannot be rescored; an arm that fails goes by its own name.
RERANK: Final = "rerank"

Course = Generator[Step[P], Any, Outcome[P]]

#: What the time of a step is counted under, beside ``RERANK``.
ARMS: Final = "arms"
FETCH: Final = "fetch"


def course(wanted: Retrieval) -> Course[P]:
    """Retrieve, fuse, rescore, weigh, read.

    Args:
        wanted: At least one arm's vector in it.

    Yields:
        Steps; to be sent a list of ``Ranking`` (``Seek``), maxima by point (``Compare``), payloads by point (``Read``).

    Raises:
        PenstockError: What was thrown at it, where nothing could make up for it.
    """
    failures: dict[str, PenstockError] = {}
    arms: dict[str, Ranking[P]] = {}
    yield from _ask_arms(wanted, arms, failures)
    fused = _fused(wanted, arms)
    stages: dict[str, Ranking[P]] = {**arms, "fusion": fused} if len(arms) > 1 else {**arms}
    exact: dict[str, dict[P, float]] = {arm: {**ranking} for arm, ranking in arms.items()}
    ranked, weighed = fused, False
    if wanted.rerank and len(arms) > 1:
        try:
            ranked = stages[RERANK] = yield from _rescored(wanted, fused, exact)
        except MENDABLE as error:
            failures[RERANK] = error
        else:
            weighed = bool(wanted.query)
    count = shortlist(wanted.query, wanted.limit) if weighed else wanted.limit
    best = dict(list(ranked.items())[:count])
    if exact.get(LATE):
        stages[LATE] = best_first(exact[LATE])
    payloads: Mapping[P, Any] = (yield Read(list(best))) if best else {}
    best = {point: score for point, score in best.items() if point in payloads}
    if weighed:
        best = stages["signals"] = reweighed(wanted.query, best, payloads)
    first = dict(list(best.items())[: wanted.limit])
    return Outcome(first, payloads, stages, exact, failures)


def advance(going: Course[P], answer: Any = None, *, error: PenstockError | None = None) -> Step[P] | Outcome[P]:
    """Go on with a course; return its next step, or what came of it.

    Args:
        going: The course.
        answer: What came of the step before; ``None`` to begin.
        error: Why the step before could not be done.

    Raises:
        PenstockError: The error, where nothing can make up for it.
    """
    try:
        return going.send(answer) if error is None else going.throw(error)
    except StopIteration as end:
        outcome: Outcome[P] = end.value
        return outcome


def stage_of(step: Step[P]) -> str:
    """Return the stage of a search that a step belongs to: ``ARMS``, ``RERANK`` or ``FETCH``."""
    if isinstance(step, Read):
        return FETCH
    return ARMS if isinstance(step, Seek) and any(ask.among is None for ask in step.asks) else RERANK


def _ask_arms(
    wanted: Retrieval, arms: dict[str, Ranking[P]], failures: dict[str, PenstockError]
) -> Generator[Step[P], Any, None]:
    """Ask both arms at once; each by itself if one question spoiled both.

    Whoever is down or busy is not asked again.
    """
    vectors = {Arm.DENSE: wanted.dense, Arm.SPARSE: wanted.sparse}
    asks: list[Ask[P]] = [Ask(arm, vector, wanted.candidates) for arm, vector in vectors.items() if vector is not None]
    try:
        found: list[Ranking[P]] = yield Seek(asks)
    except Broken:
        if len(asks) == 1:
            raise
    else:
        arms.update(zip((ask.name for ask in asks), found, strict=True))
        return
    for ask in asks:
        try:
            (arms[ask.name],) = yield Seek([ask])
        except MENDABLE as error:
            failures[ask.name] = error
    if not arms:
        raise failures[asks[0].name]


def _fused(wanted: Retrieval, arms: Mapping[str, Ranking[P]]) -> Ranking[P]:
    """Fuse the arms that answered; a single one keeps its own scores."""
    if len(arms) == 1:
        return next(iter(arms.values()))
    return (rrf if wanted.fusion == "rrf" else minmax)(arms, wanted.weights)


def _rescored(
    wanted: Retrieval, fused: Ranking[P], scores: dict[str, dict[P, float]]
) -> Generator[Step[P], Any, Ranking[P]]:
    """Complete the scores of the best, compare their tokens, and mix."""
    chosen = list(fused)[: max(rescoring.CANDIDATES, wanted.limit)]
    asks = _unknown(wanted, chosen, scores)
    if asks:
        for ask, ranking in zip(asks, (yield Seek(asks)), strict=True):
            scores[ask.name].update(ranking)
    if wanted.tokens is not None:
        maxima: Mapping[P, NDArray[np.float32]] = yield Compare(wanted.tokens, chosen[: rescoring.CANDIDATES])
        if maxima:
            likeness = rescoring.likeness(np.stack(list(maxima.values())))
            scores[LATE] = dict(zip(maxima, likeness.tolist(), strict=True))
    return rescoring.mixture(chosen, scores, wanted.weights)


def _unknown(wanted: Retrieval, chosen: Sequence[P], scores: Mapping[str, Mapping[P, float]]) -> list[Ask[P]]:
    """Return the questions for the arms' scores of candidates that only the other arm found."""
    vectors = {Arm.DENSE: wanted.dense, Arm.SPARSE: wanted.sparse}
    missing = {arm: [point for point in chosen if point not in scores[arm]] for arm in vectors}
    return [
        Ask(arm, vector, len(missing[arm]), missing[arm])
        for arm, vector in vectors.items()
        if vector is not None and missing[arm]
    ]
