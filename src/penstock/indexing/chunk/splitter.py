"""Splitting of a range of lines into ranges within a budget, and of an over-long line into pieces."""

import re
from collections.abc import Iterator
from typing import Final

from penstock.indexing.chunk.line_costs import LineCosts, token_cost
from penstock.indexing.chunk.outline import BoundaryScore, TokenCount

#: The least share of the aimed-at cost that a piece may have for the sake of a better place to cut.
_SHARE_MIN: Final = 0.5
#: How much straying from the aimed-at cost weighs against the strength of a boundary.
_STRAY_WEIGHT: Final = 2.0
#: Pieces of an over-long line are first cut a little small, since tokens lie unevenly in it.
_CAUTION: Final = 0.85
#: An over-long line is looked at in slabs of so many characters.
SLAB_CHARS: Final = 65_536
_PIECE_END: Final = re.compile(r"(?:\s|[^\w\s])(?=[^\s])", re.DOTALL)


def split_lines(
    costs: LineCosts, start: int, end: int, budget: int, boundary_score: BoundaryScore
) -> Iterator[tuple[int, int]]:
    """Cut the lines `start` to before `end` into about equal ranges that cost at most `budget`.

    Blank lines at the ends of a range are dropped. Each cut is made where `boundary_score` is high and
    the ranges stay about equal, rather than many full ones and a tiny rest.

    Args:
        costs: The file's lines.
        start: First line, from 0.
        end: Line after the last.
        budget: What a range may cost.
        boundary_score: How good it is to cut before a line.

    Yields:
        Ranges `(start, end)` within the budget, or of one single line that is over it.
    """
    while True:
        start, end = costs.strip_blank(start, end)
        if start == end:
            return
        rest = costs.cost(start, end)
        if rest <= budget:
            yield start, end
            return
        limit = min(costs.end_within(start, budget), end)
        cut = start + 1
        if limit > cut:
            aim = rest / -(-rest // budget)
            cut = _best_cut(costs, start, limit, aim, boundary_score)
        first, last = costs.strip_blank(start, cut)
        yield first, last
        start = cut


def _best_cut(ledger: LineCosts, start: int, limit: int, aim: float, strength: BoundaryScore) -> int:
    best, best_value = limit, float("-inf")
    lowest = max(start + 1, ledger.end_within(start, int(aim * _SHARE_MIN)) + 1)
    for cut in range(lowest, limit + 1):
        if ledger.blank[cut]:
            continue
        value = strength(cut) - _STRAY_WEIGHT * abs(ledger.cost(start, cut) - aim) / aim
        if value >= best_value:
            best, best_value = cut, value
    return best


def split_line(line: str, budget: int, count: TokenCount) -> list[str]:
    """Cut an over-long line into pieces within `budget`, at white space or punctuation if it can.

    Args:
        line: The line.
        budget: What a piece may cost, at least 1.
        count: Model tokens of each string; called a few times with many pieces.

    Returns:
        The pieces in order, without those that are blank; joined they give the line.

    Bounds:
        Pieces over the budget are cut in half until they fit or are one character, so `count` is
        called at most about 20 times for each slab of the line.
    """
    return [piece for slab in _slices(line, SLAB_CHARS) for piece in _cut_slab(slab, budget, count)]


def _cut_slab(line: str, budget: int, count: TokenCount) -> list[str]:
    cost = token_cost(line, count([line])[0])
    pieces = [(piece, False) for piece in _slices(line, max(1, int(len(line) * budget / cost * _CAUTION)))]
    while True:
        open_pieces = [piece for piece, fits in pieces if not fits]
        if not open_pieces:
            return [piece for piece, _ in pieces if not piece.isspace()]
        costs = iter([token_cost(piece, n) for piece, n in zip(open_pieces, count(open_pieces), strict=True)])
        checked: list[tuple[str, bool]] = []
        for piece, fits in pieces:
            if fits or next(costs) <= budget or len(piece) == 1:
                checked.append((piece, True))
            else:
                checked += ((half, False) for half in _slices(piece, -(-len(piece) // 2)))
        pieces = checked


def _slices(text: str, size: int) -> Iterator[str]:
    """Cut `text` into slices of at most `size` characters, after white space or punctuation."""
    start = 0
    while len(text) - start > size:
        end = start + size
        # Looking only at the last quarter keeps the slices long and the search short.
        breaks = [found.end() for found in _PIECE_END.finditer(text, start + size - size // 4, end + 1)]
        usable = [place for place in breaks if place <= end]
        if usable:
            end = usable[-1]
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]
