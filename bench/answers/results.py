"""What was measured of answers, as figures beside their goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.answers.probes import Answer
from bench.report import Figure, median

#: Seconds until every word of a tree is found.
WORDS_S_MAX: Final = {"2000 files": 20.0, "repository": 8.0}
CHANGE_WORDS_S_MAX: Final = 2.0
CHANGE_MEANING_S_MAX: Final = 5.0
#: Time until every vector is there, over the time where each request waits for its vectors.
VECTORS_RATIO_MAX: Final = 1.05


@dataclass(slots=True, kw_only=True)
class TreeTimes:
    """Times of a fresh tree; in seconds from the start of ``penstock index``.

    Attributes:
        files: Documents.
        chunks: Their chunks.
        first_s: Until a search finds anything.
        words_s: Until all documents are found by words.
        vectors_s: Until all chunks have vectors and the command has ended.
        words_cpu_s: Processor time until all words, by process.
        vectors_cpu_s: The same until all vectors.
        answers: What was asked between words and vectors.
        waiting_s: Time of the same documents where each request waits for its vectors.
        waiting_cpu_s: The server's processor time for them.
    """

    files: int
    chunks: int = 0
    first_s: float = 0.0
    words_s: float = 0.0
    vectors_s: float = 0.0
    words_cpu_s: Mapping[str, float] = field(default_factory=dict)
    vectors_cpu_s: Mapping[str, float] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    waiting_s: float | None = None
    waiting_cpu_s: float = 0.0


@dataclass(slots=True)
class ChangeTimes:
    """Seconds from the save of a file until it is found, a value a change."""

    words_s: list[float] = field(default_factory=list)
    meaning_s: list[float] = field(default_factory=list)


def figures(trees: Mapping[str, TreeTimes], changes: ChangeTimes) -> list[Figure]:
    """Return the figures of all trees and of the changes."""
    found = [figure for name, times in trees.items() for figure in _of_tree(name, times)]
    return (
        found
        + _of_change("words", changes.words_s, CHANGE_WORDS_S_MAX)
        + _of_change("meaning", changes.meaning_s, CHANGE_MEANING_S_MAX)
    )


def _of_tree(name: str, times: TreeTimes) -> list[Figure]:
    found = [
        Figure(f"{name}, files", times.files, "files"),
        Figure(f"{name}, chunks", times.chunks, "chunks"),
        Figure(f"{name}, first hit", times.first_s, "s"),
        _bounded(f"{name}, all words", times.words_s, "s", WORDS_S_MAX.get(name)),
        Figure(f"{name}, all vectors", times.vectors_s, "s"),
    ]
    if times.waiting_s is not None:
        found.append(Figure(f"{name}, requests that wait", times.waiting_s, "s"))
        found.append(Figure("  processor of the server", times.waiting_cpu_s, "s"))
        ratio = times.vectors_s / times.waiting_s
        found.append(_bounded(f"{name}, all vectors / waiting", ratio, "×", VECTORS_RATIO_MAX))
    used = [Figure(f"  processor until words, {role}", value, "s") for role, value in times.words_cpu_s.items()]
    whole = Figure("  processor until vectors, all", sum(times.vectors_cpu_s.values()), "s")
    return [*found, *used, whole, *_of_answers(name, times.answers)]


def _of_answers(name: str, answers: Sequence[Answer]) -> list[Figure]:
    """Return the figures of searches while vectors were made, if there was time for any."""
    if not answers:
        return []
    return [
        Figure(f"{name}, searches before all vectors", len(answers), "searches"),
        Figure("  median", median([one.latency_ms for one in answers]), "ms"),
        Figure("  found in the first 10", sum(one.found for one in answers) / len(answers), ""),
        Figure("  coverage at the first", answers[0].coverage, ""),
    ]


def _of_change(how: str, seconds: Sequence[float], most_s: float) -> list[Figure]:
    if not seconds:
        return []
    return [
        _bounded(f"change by {how}, median", median(seconds), "s", most_s),
        _bounded(f"change by {how}, worst", max(seconds), "s", most_s),
    ]


def _bounded(name: str, value: float, unit: str, most: float | None) -> Figure:
    if most is None:
        return Figure(name, value, unit)
    return Figure(name, value, unit, f"≤ {most:g}", met=value <= most)
