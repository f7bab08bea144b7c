"""Units become chunks: what is too large is cut, small neighbours are joined."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from penstock.indexing.chunk.ledger import Ledger
from penstock.indexing.chunk.lines import cut_line, split
from penstock.indexing.chunk.records import Chunk, Kind, Outline, Strength, TokenCount, Unit

#: A unit of at least this share of the budget is a chunk of its own.
SOLID_SHARE: Final = 0.25
#: Code between definitions below this share is too little to be found alone: it joins whatever is
#: beside it.
TINY_SHARE: Final = 0.08


def pack(ledger: Ledger, outline: Outline, budget: int) -> list[Unit]:
    """Return units within the budget, each a chunk; one line over the budget stays whole."""
    pieces = _cut(ledger, outline.units, budget, outline.strength)
    return list(_joined(ledger, pieces, budget))


def chunks_of(ledger: Ledger, units: Iterable[Unit], budget: int, count: TokenCount) -> Iterator[Chunk]:
    """Yield the chunk of each unit, and several for a line that is over the budget."""
    for unit in units:
        text = "\n".join(ledger.lines[unit.start : unit.end])
        if ledger.cost(unit.start, unit.end) <= budget:
            yield Chunk(text, unit.start + 1, unit.end, unit.symbol)
        else:
            for piece in cut_line(text, budget, count):
                yield Chunk(piece, unit.start + 1, unit.end, unit.symbol)


def _cut(ledger: Ledger, units: Iterable[Unit], budget: int, strength: Strength) -> Iterator[Unit]:
    for unit in units:
        for start, end in split(ledger, unit.start, unit.end, budget, strength):
            whole = ledger.cost(unit.start, unit.end) <= budget
            kind = unit.kind if whole or unit.kind is Kind.FILLER else Kind.HEAD
            yield replace(unit, start=start, end=end, kind=kind)


@dataclass(slots=True)
class _Open:
    """The chunk being filled, and whether it holds a unit that asks to be alone."""

    unit: Unit
    solid: bool
    tiny: bool


def _joined(ledger: Ledger, units: Iterable[Unit], budget: int) -> Iterator[Unit]:
    current: _Open | None = None
    for unit in units:
        cost = ledger.cost(unit.start, unit.end)
        following = _Open(unit, cost >= budget * SOLID_SHARE, _is_tiny(unit, cost, budget))
        if current is None:
            current = following
        elif (joined := _join(ledger, current, following, budget)) is not None:
            current = joined
        else:
            yield current.unit
            current = following
    if current is not None:
        yield current.unit


def _is_tiny(unit: Unit, cost: int, budget: int) -> bool:
    return unit.kind is not Kind.DEFINITION and cost < budget * TINY_SHARE


def _join(ledger: Ledger, first: _Open, second: _Open, budget: int) -> _Open | None:
    """Return both as one chunk, or `None` where they are better apart."""
    one, two = first.unit, second.unit
    if ledger.cost(one.start, two.end) > budget:
        return None
    siblings = one.scope == two.scope
    if ledger.is_bare(two.start, two.end) or (siblings and second.tiny and not first.tiny):
        return replace(first, unit=replace(one, end=two.end))
    enters = two.kind is Kind.HEAD and two.parent == one.scope
    if ledger.is_bare(one.start, one.end) or (first.tiny and (enters or (siblings and second.solid))):
        return replace(second, unit=replace(two, start=one.start))
    if first.solid or second.solid:
        return None
    if one.kind is Kind.DEFINITION and one.symbol and two.parent == one.symbol:
        return _Open(replace(one, end=two.end), solid=False, tiny=False)
    return _Open(_together(one, two), solid=False, tiny=False) if siblings else None


def _together(one: Unit, two: Unit) -> Unit:
    """Name small siblings after what encloses them; at the top, after the first that has a name."""
    if one.scope:
        return Unit(one.start, two.end, one.scope, one.parent, Kind.FILLER)
    return Unit(one.start, two.end, one.symbol or two.symbol, "", Kind.DEFINITION)
