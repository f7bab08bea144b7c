"""Parity between a prepared model and its own float32 form: cosines, and rankings of the same texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.models.contract import Floats

COSINE_MEAN_MIN: Final = 0.985
"""Least mean cosine over texts. Vectors that close cost the rankings of test collections less than half a point."""

COSINE_MIN: Final = 0.96
"""Least cosine of any one text: the empty one and lone symbols are the worst, words in sentences stay above .98."""

NDCG_LOSS_MAX: Final = 0.005
"""Half a point of nDCG@10."""

TEXTS: Final = (
    "",
    "a",
    "?",
    "open a file and read it line by line",
    "How do I reverse a linked list?",
    "parse_json_string",
    "HTTPServerError: 503 Service Unavailable, Retry-After: 3",
    "with open(path, encoding='utf-8') as stream:\n    for line in stream:\n        print(line.rstrip())",
    "def median(values):\n    ordered = sorted(values)\n    return ordered[len(ordered) // 2]",
    "SELECT name, count(*) FROM visits WHERE day >= '2020-02-29' GROUP BY name HAVING count(*) > 3;",
    "for (size_t i = 0; i < n; ++i) { sum += weights[i] * inputs[i]; }",
    "The heat that flows through a flat plate grows with the difference of temperature between its sides.",
    "Libraries keep a catalogue by author, title and subject, so that a book can be found in three ways.",
    "A queue that is always full only adds delay: what waits in it longest is what will be thrown away.",
    "Dans la forêt, les oiseaux chantent avant l'aube.",
    "Die Brücke wurde nach dem Hochwasser neu gebaut.",
    "東京の朝は静かだった。",
    "السلام عليكم، كيف حالك اليوم؟",
    "🎉 release day 🚀🚀 all tests pass ✅",
    "0 1 1 2 3 5 8 13 21 34 55 89 144 233 377 610 987",
    "word " * 40,
    "The same sentence again and again fills a page without telling anything new. " * 12,
    "Every request carries a deadline. " + "Work that cannot end in time is not begun. " * 20,
    "import os\nimport sys\n\n\nclass Reader:\n    def __init__(self, path):\n        self.path = path\n\n" * 6,
)
"""Texts of many kinds and lengths, the awkward ones included."""


@dataclass(frozen=True, slots=True)
class Closeness:
    """Cosines between two sets of vectors of the same texts.

    Attributes:
        mean: Their mean.
        least: The least.
        worst: Position of the text that has it.
    """

    mean: float
    least: float
    worst: int

    @property
    def within_bounds(self) -> bool:
        """True if mean and least cosine lie within the bounds."""
        return self.mean >= COSINE_MEAN_MIN and self.least >= COSINE_MIN


def closeness(fast: Floats, exact: Floats) -> Closeness:
    """Compare vectors text by text.

    Args:
        fast: ``float32 [n, dim]``, L2-normalised, at least one.
        exact: The same texts by the float32 form.
    """
    cosines = (fast * exact).sum(1)
    return Closeness(float(cosines.mean()), float(cosines.min()), int(cosines.argmin()))


def exact_rankings(queries: Floats, documents: Floats, k: int) -> list[list[int]]:
    """Return for each query the ``k`` documents of the highest cosine, the best first, by exact search.

    Args:
        queries: ``float32 [m, dim]``, L2-normalised.
        documents: ``float32 [n, dim]``, L2-normalised.
        k: How many; all of them where there are fewer.
    """
    return [np.argsort(-scores, kind="stable")[:k].tolist() for scores in queries @ documents.T]


def split_batches(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    """Cut a list into parts of ``size`` texts, the last one shorter."""
    return [texts[first : first + size] for first in range(0, len(texts), size)]
