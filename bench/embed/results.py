"""What was measured, and the figures made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from bench.report import Figure, median, percentile

OURS: Final = "penstock"
PEER: Final = "fastembed"
RATIO_GOAL: Final = 2.0


@dataclass(frozen=True, slots=True)
class Course:
    """How much is measured.

    Attributes:
        texts: Of each set.
        rounds: Of bulk work, the first one not counted.
        queries: Single ones, alone and beside bulk work.
    """

    texts: int
    rounds: int
    queries: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Times of one system at one task: ``mixed`` or ``even`` texts in bulk, queries ``idle`` or ``beside`` bulk."""

    system: str
    task: str
    seconds: list[float]


@dataclass(slots=True)
class Results:
    """Everything that was measured.

    Attributes:
        precision: Number format of our graph.
        tokens: Of each text, by set, special tokens included and cut as the model cuts.
        taken: The times, in the order they were taken.
        cosines: By system: mean and least cosine to the exact vectors.
    """

    precision: str
    tokens: dict[str, list[int]]
    taken: list[Taken]
    cosines: dict[str, list[float]] = field(default_factory=dict)

    @property
    def systems(self) -> list[str]:
        """Names, in the order they were taken."""
        return list(dict.fromkeys(one.system for one in self.taken))

    def seconds(self, system: str, task: str) -> list[float]:
        """Return all times of a system at a task."""
        return [second for one in self.taken if (one.system, one.task) == (system, task) for second in one.seconds]

    def docs_per_s(self, system: str, task: str) -> float:
        """Return the median of the rounds."""
        return len(self.tokens[task]) / median(self.seconds(system, task))

    def percentile_ms(self, system: str, task: str, share: float) -> float:
        """Return a percentile of a system's queries."""
        return 1000 * percentile(self.seconds(system, task), share)

    def ratio(self, task: str) -> float | None:
        """Return how many times the better of fastembed's ways ours is fast: the median of the rounds' ratios."""
        theirs = [self.seconds(name, task) for name in self.systems if name.startswith(PEER)]
        if not theirs:
            return None
        best = [min(times) for times in zip(*theirs, strict=True)]
        return median([other / one for one, other in zip(self.seconds(OURS, task), best, strict=True)])

    def figures(self) -> Sequence[Figure]:
        """Return the figures, ours first."""
        found = []
        for task, lengths in self.tokens.items():
            rate = self.docs_per_s(OURS, task)
            found.append(Figure(f"{task} texts, bulk", rate, "docs/s"))
            found.append(Figure(f"{task} texts, bulk, tokens", rate * sum(lengths) / len(lengths), "tokens/s"))
            ratio = self.ratio(task)
            if ratio is not None:
                goal = f"≥ {RATIO_GOAL:g}"
                found.append(Figure(f"{task} texts, ours / fastembed", ratio, "×", goal, ratio >= RATIO_GOAL))
        for task, words in (("idle", "one query alone"), ("beside", "one query beside bulk work")):
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                found.append(Figure(f"{words}, {name}", self.percentile_ms(OURS, task, share), "ms"))
        mean, least = self.cosines[OURS]
        return (*found, Figure("cosine to float32, mean", mean, ""), Figure("cosine to float32, least", least, ""))

    def peers(self) -> Mapping[str, object]:
        """Return the same of the others."""
        return {
            name: {task: round(self.docs_per_s(name, task), 2) for task in self.tokens}
            | {
                f"{task} {word}": round(self.percentile_ms(name, task, share), 2)
                for task in ("idle", "beside")
                for word, share in (("p50 ms", 0.5), ("p99 ms", 0.99))
            }
            for name in self.systems
            if name != OURS
        }

    def plain(self) -> Any:
        """Return everything as JSON has it."""
        return msgspec.to_builtins(self)
