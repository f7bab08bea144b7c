"""Token costs of a file's lines, so that every range is priced in constant time."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from penstock.indexing.chunk.outline import TokenCount

#: A word that the model cannot read is one token however long it is; its length is charged all the
#: same.
CHARS_PER_TOKEN_MAX: Final = 32
#: A longer line is over any budget that a person's line is within. It is not counted whole but taken to be as costly as
#: it can be, a token for each character.
LINE_CHARS_COUNTED_MAX: Final = 20_000
#: Characters counted at once: a tokenizer's notes take many times the memory of its text.
COUNTED_AT_ONCE: Final = 65_536


def token_cost(text: str, tokens: int) -> int:
    """Return the cost of a text that has `tokens` tokens, at least 1."""
    return max(tokens, len(text) // CHARS_PER_TOKEN_MAX, 1)


class LineCosts:
    """The lines of a file with their costs.

    Attributes:
        lines: The file's lines without line feeds.
        blank: For each line, whether it holds nothing but white space.
    """

    __slots__ = ("_sums", "blank", "lines")

    def __init__(self, lines: Sequence[str], count: TokenCount) -> None:
        """Price `lines`; `count` is called with some of them at a time."""
        self.lines = lines
        self.blank = [not line or line.isspace() for line in lines]
        written = [line for line, blank in zip(lines, self.blank, strict=True) if not blank]
        counted: dict[str, int] = {}
        for some in _batches(dict.fromkeys(written)):
            counted.update(zip(some, count(some), strict=True))
        costs = (
            len(line) // CHARS_PER_TOKEN_MAX if blank else token_cost(line, counted.get(line, len(line)))
            for line, blank in zip(lines, self.blank, strict=True)
        )
        self._sums = array("q", accumulate(costs, initial=0))

    def cost(self, start: int, end: int) -> int:
        """Return the cost of the lines `start` (from 0) to before `end`."""
        return self._sums[end] - self._sums[start]

    def end_within(self, start: int, budget: int) -> int:
        """Return the furthest `end` such that lines `start` to `end - 1` cost at most `budget`."""
        return bisect_right(self._sums, self._sums[start] + budget) - 1

    def strip_blank(self, start: int, end: int) -> tuple[int, int]:
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

    def has_no_words(self, start: int, end: int) -> bool:
        """Tell whether the range holds no letter or digit: closing brackets, rules, punctuation."""
        return not any(any(map(str.isalnum, self.lines[line])) for line in range(start, end))


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for line in lines:
        if len(line) > LINE_CHARS_COUNTED_MAX:
            continue
        if batch and characters + len(line) > COUNTED_AT_ONCE:
            yield batch
            batch, characters = [], 0
        batch.append(line)
        characters += len(line)
    if batch:
        yield batch
