"""Signals: what a hit's place and the names in its text tell besides the likeness of words. Pure.

Chosen and proven on questions about Python's library (``docs/benchmarks/code.md``). A text without path is moved only
by a query that asks for an identifier which it defines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock.ranking.fusion import best_first
from penstock.ranking.names import Piece, defines, names_in
from penstock.ranking.priors import about_tests, is_test
from penstock.ranking.records import P, Ranking


@dataclass(frozen=True, slots=True)
class Signals:
    """Factors on the score of a hit; 1 says nothing.

    Attributes:
        definition: It defines an identifier that the query asks for, so that it stands above those that use it.
        test: It is a test, and the query is not about tests.
    """

    definition: float = 1.0
    test: float = 1.0


#: Hits that are weighed, and in proportion to the limit where more are wanted: a test, a use that stands further down
#: does not come up among the first; a definition may.
SHORTLIST: Final = 50
SHORTLIST_TIMES: Final = 2

#: What a search uses.
SIGNALS: Final = Signals(definition=1.5, test=0.9)


def shortlist(query: str, limit: int) -> int:
    """Return how many hits are to be weighed where ``limit`` are wanted."""
    return max(SHORTLIST_TIMES * limit, SHORTLIST if names_in(query) else 0)


def reweighed(query: str, candidates: Ranking[P], pieces: Mapping[P, Piece], signals: Signals = SIGNALS) -> Ranking[P]:
    """Return the candidates by their scores times what their names and places tell.

    Args:
        query: The query.
        candidates: Best first.
        pieces: Each point's chunk.
        signals: The factors.
    """
    names, tests_wanted = names_in(query), about_tests(query)

    def factor(piece: Piece) -> float:
        definition = signals.definition if any(defines(piece, name) for name in names) else 1.0
        return definition * (signals.test if is_test(piece.path) and not tests_wanted else 1.0)

    # A score below 0 must fall with a small factor as well.
    return best_first({p: score + abs(score) * (factor(pieces[p]) - 1) for p, score in candidates.items()})
