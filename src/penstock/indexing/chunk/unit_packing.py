"""Packing of units into chunks: units and lines that are too large are cut, small neighbours are joined."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from penstock.indexing.chunk.line_costs import LineCosts, token_cost
from penstock.indexing.chunk.outline import BoundaryScore, Chunk, Outline, OutlineUnit, TokenCount, UnitKind

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


#: A unit of at least this share of the budget is a chunk of its own.
SOLID_SHARE: Final = 0.25
#: Code between definitions below this share is too little to be found alone: it joins whatever is
#: beside it.
TINY_SHARE: Final = 0.08


def pack(costs: LineCosts, outline: Outline, budget: int) -> list[OutlineUnit]:
    """Return units within the budget, each a chunk; one line over the budget stays whole."""
    pieces = _cut(costs, outline.units, budget, outline.boundary_score)
    return list(_joined(costs, pieces, budget))


def chunks_of(costs: LineCosts, units: Iterable[OutlineUnit], budget: int, count: TokenCount) -> Iterator[Chunk]:
    """Yield the chunk of each unit, and several for a line that is over the budget."""
    for unit in units:
        text = "\n".join(costs.lines[unit.start : unit.end])
        if costs.cost(unit.start, unit.end) <= budget:
            yield Chunk(text, unit.start + 1, unit.end, unit.symbol)
        else:
            for piece in split_line(text, budget, count):
                yield Chunk(piece, unit.start + 1, unit.end, unit.symbol)


def _cut(
    ledger: LineCosts, units: Iterable[OutlineUnit], budget: int, strength: BoundaryScore
) -> Iterator[OutlineUnit]:
    for unit in units:
        for start, end in split_lines(ledger, unit.start, unit.end, budget, strength):
            whole = ledger.cost(unit.start, unit.end) <= budget
            kind = unit.kind if whole or unit.kind is UnitKind.FILLER else UnitKind.HEADER
            yield replace(unit, start=start, end=end, kind=kind)


@dataclass(slots=True)
class _OpenChunk:
    """The chunk being filled, and whether it holds a unit that asks to be alone."""

    unit: OutlineUnit
    solid: bool
    tiny: bool


def _joined(ledger: LineCosts, units: Iterable[OutlineUnit], budget: int) -> Iterator[OutlineUnit]:
    current: _OpenChunk | None = None
    for unit in units:
        cost = ledger.cost(unit.start, unit.end)
        following = _OpenChunk(unit, cost >= budget * SOLID_SHARE, _is_tiny(unit, cost, budget))
        if current is None:
            current = following
        elif (joined := _join(ledger, current, following, budget)) is not None:
            current = joined
        else:
            yield current.unit
            current = following
    if current is not None:
        yield current.unit


def _is_tiny(unit: OutlineUnit, cost: int, budget: int) -> bool:
    return unit.kind is not UnitKind.DEFINITION and cost < budget * TINY_SHARE


def _join(ledger: LineCosts, first: _OpenChunk, second: _OpenChunk, budget: int) -> _OpenChunk | None:
    """Return both as one chunk, or `None` where they are better apart."""
    one, two = first.unit, second.unit
    if ledger.cost(one.start, two.end) > budget:
        return None
    siblings = one.scope == two.scope
    if ledger.has_no_words(two.start, two.end) or (siblings and second.tiny and not first.tiny):
        return replace(first, unit=replace(one, end=two.end))
    enters = two.kind is UnitKind.HEADER and two.parent == one.scope
    if ledger.has_no_words(one.start, one.end) or (first.tiny and (enters or (siblings and second.solid))):
        return replace(second, unit=replace(two, start=one.start))
    if first.solid or second.solid:
        return None
    if one.kind is UnitKind.DEFINITION and one.symbol and two.parent == one.symbol:
        return _OpenChunk(replace(one, end=two.end), solid=False, tiny=False)
    return _OpenChunk(_together(one, two), solid=False, tiny=False) if siblings else None


def _together(one: OutlineUnit, two: OutlineUnit) -> OutlineUnit:
    """Name small siblings after what encloses them; at the top, after the first that has a name."""
    if one.scope:
        return OutlineUnit(one.start, two.end, one.scope, one.parent, UnitKind.FILLER)
    return OutlineUnit(one.start, two.end, one.symbol or two.symbol, "", UnitKind.DEFINITION)
