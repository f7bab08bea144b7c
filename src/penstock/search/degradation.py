"""What a search gives up on each rung of the ladder, and the words by which its answer says so. Pure.

The words in ``degraded`` are part of the API; they do not change:

=================== ==========================================================================
``query_truncated`` the model reads less than this query; asking later changes nothing
``no_dense``        the dense arm failed, the sparse one answered
``no_sparse``       the sparse arm failed, the dense one answered
``rerank_reduced``  fewer candidates were taken and reranked, because of load
``no_rerank``       the candidates were not reranked: because of load, or because it failed
``one_arm``         only one arm was asked, because of load
``hits_truncated``  the last hits were left out: an answer holds 4 MB of texts and metadata
``cached``          the answer was remembered; it is as old as ``ANSWER_CACHE_TTL`` at most
=================== ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.kernel.errors import Rejected
from penstock.kernel.settings import SearchSettings
from penstock.policies.ladder import Rung, serve_at
from penstock.ranking.records import Arm
from penstock.search.records import SearchRequest

QUERY_TRUNCATED: Final = "query_truncated"
RERANK_REDUCED: Final = "rerank_reduced"
NO_RERANK: Final = "no_rerank"
ONE_ARM: Final = "one_arm"
CACHED: Final = "cached"
HITS_TRUNCATED: Final = "hits_truncated"

#: The word of each rung on which the pipeline still works.
WORDS: Final = {Rung.FEWER_CANDIDATES: RERANK_REDUCED, Rung.NO_RERANK: NO_RERANK, Rung.ONE_ARM: ONE_ARM}

#: The arm that goes on alone. The dense one ranks better (nDCG@10 cranfield .396 to .384, cisi .417 to .311, cosqa
#: .600 to .375), but each query of it is a run of the model, 1.8 ms and more of a core, on the pool that is
#: short; the sparse one costs a hundredth of that and finds the words and names that were typed.
KEPT_ARM: Final = Arm.SPARSE

#: When a refused search may try again: about as long as the ladder needs to come down one rung.
RETRY_AFTER_S: Final = 3.0


def word_of_arm(arm: Arm) -> str:
    """Return the word for an arm that failed."""
    return f"no_{arm}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request is served.

    Attributes:
        arms: The arms asked at once.
        spare: Asked after them if they failed or found nothing: one that finds nothing has not answered well.
        candidates: Points wanted from each arm.
        rerank: Whether the candidates are rescored.
        from_cache: Whether only a remembered answer is given.
        word: What the rung takes from this answer, empty for nothing.
    """

    arms: tuple[Arm, ...]
    candidates: int
    rerank: bool
    spare: Arm | None = None
    from_cache: bool = False
    word: str = ""


def plan(request: SearchRequest, rung: Rung, settings: SearchSettings) -> Plan:
    """Return how a request is served on a rung.

    A rung that takes nothing from the request leaves it as it is: one without rerank has no candidates
    to lose, one that weighs a single arm has none to spare.

    Raises:
        Rejected: The ladder stands at its end (``overloaded``), or the request is strict and would
            lose something (``degraded``).
    """
    weights = {Arm.DENSE: request.weights.dense, Arm.SPARSE: request.weights.sparse}
    arms = tuple(arm for arm in Arm if weights[arm] > 0)
    served = serve_at(rung, strict=request.strict, harmed_from=_harmed_from(request, len(arms), settings))
    if served is Rung.REFUSE:
        if rung is Rung.REFUSE:
            raise Rejected("the server has more searches than it can answer", retry_after_s=RETRY_AFTER_S)
        raise Rejected(
            f"the search is strict, and under this load the answer would be degraded: {rung.word}",
            code="degraded",
            retry_after_s=RETRY_AFTER_S,
        )
    full = max(settings.candidates, request.limit)
    if served is Rung.FULL:
        return Plan(arms, full, request.rerank)
    reduced = min(full, max(settings.candidates_reduced, request.limit))
    if served >= Rung.CACHED_ONLY:
        return Plan((), reduced, rerank=False, from_cache=True)
    if served is Rung.ONE_ARM:
        (other,) = (arm for arm in arms if arm is not KEPT_ARM)
        return Plan((KEPT_ARM,), reduced, rerank=False, spare=other, word=ONE_ARM)
    return Plan(arms, reduced, rerank=served is Rung.FEWER_CANDIDATES, word=WORDS[served])


def _harmed_from(request: SearchRequest, arms: int, settings: SearchSettings) -> Rung:
    """Return the first rung that takes something from this request."""
    if arms == 1:
        return Rung.CACHED_ONLY
    if not request.rerank:
        return Rung.ONE_ARM
    if max(settings.candidates_reduced, request.limit) >= settings.candidates:
        return Rung.NO_RERANK
    return Rung.FEWER_CANDIDATES
