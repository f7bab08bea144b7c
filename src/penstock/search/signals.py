"""Signals: what a hit's place and the names in its text tell besides the likeness of words. Pure.

Chosen and proven on questions about Python's library (``docs/benchmarks/code.md``). A text without path is moved only
by a query that asks for an identifier which it defines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.search.fusion import best_first
from penstock.search.names import Piece, defines, names_in
from penstock.search.priors import about_tests, is_test
from penstock.stores.contract import Scored


@dataclass(frozen=True, slots=True)
class Signals:
    """Factors on the score of a hit; 1 says nothing.

    Attributes:
        definition: It defines an identifier that the query asks for, so that it stands above those that use it.
        test: It is a test, and the query is not about tests.
    """

    definition: float = 1.0
    test: float = 1.0


#: What a search uses.
SIGNALS: Final = Signals(definition=1.5, test=0.9)


def reweighed(
    query: str, candidates: Sequence[Scored], pieces: Mapping[str, Piece], signals: Signals = SIGNALS
) -> list[Scored]:
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
    return best_first({c.point: c.score + abs(c.score) * (factor(pieces[c.point]) - 1) for c in candidates})
