"""Degradation of a search on each rung of the ladder, and the words that report it in the answer. Pure.

The words in ``degraded`` are part of the API and do not change:

=================== ==========================================================================
``query_truncated`` the model reads only the beginning of this query; a later retry changes nothing
``no_dense``        the dense arm failed, the sparse one answered
``no_sparse``       the sparse arm failed, the dense one answered
``rerank_reduced``  fewer candidates were taken and reranked, because of load
``no_rerank``       the candidates were not reranked: because of load, or because it failed
``one_arm``         only one arm was asked, because of load
``hits_truncated``  the last hits were left out: an answer holds 4 MB of texts and metadata
``collection_left_out``
                    one of several collections could not be searched; ``left_out`` names it
``page_shifted``    the order has changed since the page before: hits may be missing or come twice
``cached``          the answer comes from the cache; it is as old as ``ANSWER_CACHE_TTL`` at most
=================== ==========================================================================
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from penstock.kernel.context import Clock, Criticality
from penstock.kernel.errors import Rejected
from penstock.kernel.settings import DegradationSettings, SearchSettings
from penstock.policies.ladder import Ladder, LadderSettings, Rung, RungChange, serve_at
from penstock.policies.levels import LevelSettings
from penstock.ranking.retrieval import Arm
from penstock.search.request import ArmWeights, SearchRequest

log = logging.getLogger(__name__)

#: From this share of its buffer on, searches may be answered from the cache only, or refused by the ladder (D1).
QUEUE_PRESSED_FILL: Final = LevelSettings().high
#: A refusal counts as just now for so long: some more than passes between two looks at the ladder.
JUST_NOW_S: Final = 0.15


class LadderController:
    """A ladder for each criticality class.

    Classes are served in strict priority. Pressure on the lowest class says nothing about those above it, so that class
    alone gives up quality. A class under pressure starves those below it, which are then under pressure too.

    Args:
        settings: Times between moves, and the highest rung.
        pressure: Age of the oldest search of a class that waits, as a share of its target.
        fill_ratio: Share of the queue's buffer in use in which searches wait.
        clock: The loop's clock.
        refused_at_s: For each class, when a search of it was last refused because there are too many, on the clock.

    Bounds: three ladders.

    Attributes:
        transitions: How often a rung was reached, by class and rung, so far.
    """

    def __init__(
        self,
        settings: DegradationSettings,
        pressure: Callable[[Criticality], float],
        fill_ratio: Callable[[], float],
        clock: Clock,
        refused_at_s: Mapping[Criticality, float] | None = None,
    ) -> None:
        policy = LadderSettings(up_s=settings.up, down_s=settings.down, highest=Rung[settings.highest.upper()])
        self._ladders = {criticality: Ladder(policy) for criticality in Criticality}
        self._pressure = pressure
        self._fill_ratio = fill_ratio
        self._refused_at_s = {} if refused_at_s is None else refused_at_s
        self._clock = clock
        self.transitions: dict[tuple[Criticality, Rung], int] = {}

    def __repr__(self) -> str:
        rungs = ", ".join(f"{one.name.lower()} {ladder.rung.name.lower()}" for one, ladder in self._ladders.items())
        return f"<LadderController {rungs}>"

    def observe_all(self) -> None:
        """Update every class's ladder; call some ten times a second."""
        for criticality in self._ladders:
            self._observed(criticality)

    def rung(self, criticality: Criticality) -> Rung:
        """Update a class's ladder and return the rung for one search of it."""
        return self._observed(criticality).serve()

    def _observed(self, criticality: Criticality) -> Ladder:
        """Update a class's ladder and return it."""
        ladder, now_s = self._ladders[criticality], self._clock.now()
        change = ladder.observe(
            self._pressure(criticality),
            now_s,
            nearly_full=self._fill_ratio() >= QUEUE_PRESSED_FILL,
            refusing=now_s - self._refused_at_s.get(criticality, -math.inf) < JUST_NOW_S,
        )
        if change is not None:
            self._record_change(criticality, change)
        return ladder

    def state(self) -> dict[Criticality, Rung]:
        """Return each class's rung as of the last update."""
        return {criticality: ladder.rung for criticality, ladder in self._ladders.items()}

    def _record_change(self, criticality: Criticality, change: RungChange) -> None:
        place = criticality, change.after
        self.transitions[place] = self.transitions.get(place, 0) + 1
        level = logging.WARNING if change.after > change.before else logging.INFO
        facts = {"criticality": criticality.name.lower(), "rung": change.after.name.lower()}
        log.log(level, "searches of a class %s", "degrade" if change.after > change.before else "recover", extra=facts)


QUERY_TRUNCATED: Final = "query_truncated"
RERANK_REDUCED: Final = "rerank_reduced"
NO_RERANK: Final = "no_rerank"
ONE_ARM: Final = "one_arm"
CACHED: Final = "cached"
HITS_TRUNCATED: Final = "hits_truncated"
PAGE_SHIFTED: Final = "page_shifted"
COLLECTION_LEFT_OUT: Final = "collection_left_out"

#: The word of each rung on which the pipeline still works.
RUNG_WORDS: Final = {Rung.FEWER_CANDIDATES: RERANK_REDUCED, Rung.NO_RERANK: NO_RERANK, Rung.ONE_ARM: ONE_ARM}

#: The arm that goes on alone. The dense one ranks better (nDCG@10 cranfield .396 to .384, cisi .417 to .311, cosqa
#: .600 to .375), but each query of it is a run of the model, 1.8 ms and more of a core, on the pool that is
#: short; the sparse one costs a hundredth of that and finds the words and names that were typed.
SINGLE_ARM: Final = Arm.SPARSE

#: When a refused search may try again: about as long as the ladder needs to come down one rung.
RETRY_AFTER_S: Final = 3.0


def failed_arm_word(arm: Arm) -> str:
    """Return the word for an arm that failed."""
    return f"no_{arm}"


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """Plan by which one search is served: arms, candidates, rescoring, cache.

    Attributes:
        arms: The arms searched at once.
        fallback_arm: Searched after them if they failed or found nothing.
        candidates: Points wanted from each arm.
        rerank: Whether the candidates are rescored.
        from_cache: Whether only a cached answer is given.
        degraded_word: The word that reports the rung's effect on this answer; empty for none.
    """

    arms: tuple[Arm, ...]
    candidates: int
    rerank: bool
    fallback_arm: Arm | None = None
    from_cache: bool = False
    degraded_word: str = ""


def plan_search(
    request: SearchRequest, rung: Rung, settings: SearchSettings, *, dense_reads: bool = True
) -> SearchPlan:
    """Return the plan by which a request is served on a rung.

    A rung that takes nothing from the request leaves it as it is: a request without rerank has no candidates
    to lose, one that weights a single arm has no arm to spare.

    A query of letters that the dense model does not know has a vector that says nothing about it. Unless the request
    weights the arms itself, its words are searched, and the other arm only if they find nothing.

    Args:
        request: The request.
        rung: The ladder's.
        settings: Candidates per arm.
        dense_reads: Whether the dense model knows the query's letters.

    Raises:
        Rejected: The ladder stands at its end (``overloaded``), or the request is strict and would
            lose something (``degraded``).
    """
    weights = {Arm.DENSE: request.weights.dense, Arm.SPARSE: request.weights.sparse}
    arms = tuple(arm for arm in Arm if weights[arm] > 0)
    words_alone = not dense_reads and request.weights == ArmWeights()
    if words_alone:
        arms = (Arm.SPARSE,)
    served = serve_at(rung, strict=request.strict, degraded_from=_harmed_from(request, len(arms), settings))
    if served is Rung.REFUSE:
        if rung is Rung.REFUSE:
            raise Rejected("the server has more searches than it can answer", retry_after_s=RETRY_AFTER_S)
        raise Rejected(
            f"the search is strict, and under this load the answer would be degraded: {rung.label}",
            code="degraded",
            retry_after_s=RETRY_AFTER_S,
        )
    # How many hits are wanted does not count: the program asks the arms again where these are too few.
    if served is Rung.FULL and words_alone:
        return SearchPlan(arms, settings.candidates, rerank=False, fallback_arm=Arm.DENSE)
    if served is Rung.FULL:
        return SearchPlan(arms, settings.candidates, request.rerank)
    reduced = min(settings.candidates, settings.candidates_reduced)
    if served >= Rung.CACHED_ONLY:
        return SearchPlan((), reduced, rerank=False, from_cache=True)
    if served is Rung.ONE_ARM:
        (other,) = (arm for arm in arms if arm is not SINGLE_ARM)
        return SearchPlan((SINGLE_ARM,), reduced, rerank=False, fallback_arm=other, degraded_word=ONE_ARM)
    return SearchPlan(arms, reduced, rerank=served is Rung.FEWER_CANDIDATES, degraded_word=RUNG_WORDS[served])


def _harmed_from(request: SearchRequest, arms: int, settings: SearchSettings) -> Rung:
    """Return the first rung that takes something from this request."""
    if arms == 1:
        return Rung.CACHED_ONLY
    if not request.rerank:
        return Rung.ONE_ARM
    if settings.candidates_reduced >= settings.candidates:
        return Rung.NO_RERANK
    return Rung.FEWER_CANDIDATES
