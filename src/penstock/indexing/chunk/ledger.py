"""What each line of a file costs, so that every range is priced in constant time."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from penstock.indexing.chunk.records import TokenCount

#: A word that the model cannot read is one token however long it is; its length is charged all the
#: same.
CHARS_PER_TOKEN_MAX: Final = 32


def price(text: str, tokens: int) -> int:
    """Return the cost of a text that has `tokens` tokens, at least 1."""
    return max(tokens, len(text) // CHARS_PER_TOKEN_MAX, 1)


class Ledger:
    """The lines of a file with their costs.

    Attributes:
        lines: The file's lines without line feeds.
        blank: For each line, whether it holds nothing but white space.
    """

    __slots__ = ("_sums", "blank", "lines")

    def __init__(self, lines: Sequence[str], count: TokenCount) -> None:
        """Price `lines`; `count` is called once.

        Args:
            lines: The file's lines, split at line feeds only.
            count: Model tokens of each string.
        """
        self.lines = lines
        self.blank = [not line or line.isspace() for line in lines]
        written = [line for line, blank in zip(lines, self.blank, strict=True) if not blank]
        unique = list(dict.fromkeys(written))
        counted = dict(zip(unique, count(unique) if unique else (), strict=True))
        costs = (
            len(line) // CHARS_PER_TOKEN_MAX if blank else price(line, counted[line])
            for line, blank in zip(lines, self.blank, strict=True)
        )
        self._sums = list(accumulate(costs, initial=0))

    def cost(self, start: int, end: int) -> int:
        """Return the cost of the lines `start` (from 0) to before `end`."""
        return self._sums[end] - self._sums[start]

    def fitting(self, start: int, budget: int) -> int:
        """Return the furthest `end` such that lines `start` to `end - 1` cost at most `budget`."""
        return bisect_right(self._sums, self._sums[start] + budget) - 1

    def trimmed(self, start: int, end: int) -> tuple[int, int]:
        """Return the range without blank lines at its ends, empty where all are blank."""
        while start < end and self.blank[start]:
            start += 1
        while end > start and self.blank[end - 1]:
            end -= 1
        return start, end

    def indent(self, line: int) -> int:
        """Return how many white space characters the line begins with."""
        text = self.lines[line]
        return len(text) - len(text.lstrip())

    def is_bare(self, start: int, end: int) -> bool:
        """Tell whether the range holds no letter or digit: closing brackets, rules, punctuation."""
        return not any(any(map(str.isalnum, self.lines[line])) for line in range(start, end))
