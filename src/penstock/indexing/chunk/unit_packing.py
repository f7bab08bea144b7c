"""Packing of units into chunks: units that are too large are cut, small neighbours are joined."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from penstock.indexing.chunk.line_costs import LineCosts
from penstock.indexing.chunk.outline import BoundaryScore, Chunk, Outline, OutlineUnit, TokenCount, UnitKind
from penstock.indexing.chunk.splitter import split_line, split_lines

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
