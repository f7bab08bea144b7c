"""Signals: what a query and a chunk's path, definitions and exact terms say beside the scores. Pure.

They were chosen and evaluated on questions about 11 repositories and about Python's library
(``docs/benchmarks/code.md``). A text without a path is only affected by a query that asks for an identifier which it
defines, or for an exact term which it holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from penstock.ranking.exact_terms import exact_shares, parse_exact_terms
from penstock.ranking.fusion import sort_best_first
from penstock.ranking.identifiers import ChunkView, find_definition, parse_identifiers
from penstock.ranking.names import match_names
from penstock.ranking.retrieval import P, Ranking

#: Paths of which it is cached what they name.
CACHED_PATHS_MAX: Final = 16_384

_TEST_PATH: Final = re.compile(
    r"""
    (^|/)(tests?|testing|__tests__|specs?)/     # a directory of tests
    | (^|/)(test_|conftest\.)[^/]*$             # test_http.py
    | _(test|spec)\.[a-z]+$                     # http_test.go
    | \.(test|spec)\.[a-z]+$                    # http.spec.ts
    | (^|/)[A-Z]\w*Tests?\.(java|kt|cs|scala)$  # HttpTest.java
    """,
    re.VERBOSE,
)
_ABOUT_TESTS: Final = re.compile(r"(?<![a-z])(unit)?tests?(ed|ing)?(?![a-z])|\bspecs?\b|assert|fixture", re.IGNORECASE)


def is_about_tests(query: str) -> bool:
    """Return whether the query itself asks for tests."""
    return _ABOUT_TESTS.search(query) is not None


@lru_cache(maxsize=CACHED_PATHS_MAX)
def is_test_path(path: str) -> bool:
    """Return whether a path names a test."""
    return _TEST_PATH.search(path) is not None


_DOCUMENTATION_PATH: Final = re.compile(
    r"\.(md|mdx|markdown|rst|txt|adoc|asciidoc|org)$ | (^|/)(docs?|documentation|examples?)/",
    re.VERBOSE | re.IGNORECASE,
)
_ABOUT_DOCUMENTATION: Final = re.compile(
    r"\b(docs?|documentation|documented|readme|changelog|release\ notes|guides?|tutorials?|examples?)\b",
    re.VERBOSE | re.IGNORECASE,
)


def is_about_documentation(query: str) -> bool:
    """Return whether the query itself asks for documentation."""
    return _ABOUT_DOCUMENTATION.search(query) is not None


@lru_cache(maxsize=CACHED_PATHS_MAX)
def is_documentation_path(path: str) -> bool:
    """Return whether a path names documentation or an example."""
    return _DOCUMENTATION_PATH.search(path) is not None


@dataclass(frozen=True, slots=True)
class SignalFactors:
    """Factors on the score of a hit, of which 1 changes nothing, and bonuses in shares of the best score.

    Attributes:
        definition: Factor: it defines an identifier that the query asks for, so that it stands above those that use it.
        other_case: Factor: it does so in letters of another case than the query's.
        test: Factor: it is a test, and the query is not about tests.
        documentation: Factor: it is documentation beside code, and the query is not about documentation.
        exact: Bonus: it holds the query's exact terms (:mod:`penstock.ranking.exact_terms`).
        name: Bonus: its file's name holds the query's words (:mod:`penstock.ranking.names`).
        whole_name: Bonus: the query holds every word of its file's name.
        several: Bonus of a file's best chunk: several of the file's chunks are good.
        repeat: Factor for each better chunk of the same file.
    """

    definition: float = 1.0
    other_case: float = 1.0
    test: float = 1.0
    documentation: float = 1.0
    exact: float = 0.0
    name: float = 0.0
    whole_name: float = 0.0
    several: float = 0.0
    repeat: float = 1.0


#: What a search uses.
DEFAULT_SIGNALS: Final = SignalFactors(
    definition=1.5,
    other_case=1.2,
    test=0.65,
    documentation=0.8,
    exact=0.5,
    name=0.25,
    whole_name=0.08,
    several=0.15,
    repeat=0.84,
)


def apply_signals(
    query: str, candidates: Ranking[P], chunks: Mapping[P, ChunkView], signals: SignalFactors = DEFAULT_SIGNALS
) -> Ranking[P]:
    """Return the candidates by their scores with the signals of a query, their chunks and their files."""
    if not candidates:
        return candidates
    scores = _definitions_raised(query, candidates, chunks, signals)
    low, best = min(candidates.values()), max(map(abs, candidates.values()))
    if parse_exact_terms(query):
        for point, share in exact_shares(query, {point: chunks[point].text for point in candidates}).items():
            scores[point] += signals.exact * best * share
    files: dict[str, list[P]] = {}
    for point in candidates:
        files.setdefault(chunks[point].path, []).append(point)
    files.pop("", None)
    if files:
        _weigh_files(query, scores, files, (low, best), signals)
    return sort_best_first(scores)


def _scaled(score: float, factor: float) -> float:
    """Return a score times a factor; one below 0 must fall with a small factor as well."""
    return score + abs(score) * (factor - 1)


def _definitions_raised(
    query: str, candidates: Ranking[P], chunks: Mapping[P, ChunkView], signals: SignalFactors
) -> dict[P, float]:
    identifiers = parse_identifiers(query)
    if not identifiers:
        return dict(candidates)
    factors = (1.0, signals.other_case, signals.definition)
    return {
        point: _scaled(score, factors[find_definition(chunks[point], identifiers)])
        for point, score in candidates.items()
    }


def _place_factors(query: str, paths: Iterable[str], signals: SignalFactors) -> dict[str, float]:
    """Return the factor of each path, below 1 for a test or documentation that the query does not ask for."""
    test = 1.0 if is_about_tests(query) else signals.test
    factors = {path: test if is_test_path(path) else 1.0 for path in paths}
    prose = [] if is_about_documentation(query) else [path for path in factors if is_documentation_path(path)]
    if len(prose) < len(factors):  # where nothing else was found, there is nothing to be below of
        factors.update((path, factors[path] * signals.documentation) for path in prose)
    return factors


def _weigh_files(
    query: str,
    scores: dict[P, float],
    files: Mapping[str, Sequence[P]],
    scale: tuple[float, float],
    signals: SignalFactors,
) -> None:
    """Raise and lower the chunks of each file, in place.

    A file's further evidence is the sum of the square roots of the scores of its chunks but the best, each score scaled
    to 0…1 among the candidates.

    Args:
        query: The query.
        scores: Scores by chunk.
        files: Chunks by path.
        scale: The least and the best score of a candidate.
        signals: The factors.
    """
    low, best = scale
    span = best - low or 1.0
    names, places = match_names(query, files), _place_factors(query, files, signals)
    evidence = {
        path: sum(sorted([math.sqrt((scores[point] - low) / span) for point in points if scores[point] > low])[:-1])
        for path, points in files.items()
    }
    several = best * signals.several / max(1.0, *evidence.values())
    for path, points in files.items():
        name, factor = names[path], places[path]
        bonus = best * (signals.name * name.share + signals.whole_name * name.whole)
        first = several * evidence[path]
        for point in sorted(points, key=lambda point: (-scores[point], point)) if len(points) > 1 else points:
            scores[point] = _scaled(scores[point] + bonus + first, factor)
            factor, first = factor * signals.repeat, 0.0
