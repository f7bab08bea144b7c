"""Records that the modules of the chunker exchange, and the sections that follow from headings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import msgspec

#: Model tokens of each string, special tokens not counted. Must add up over lines (as WordPiece
#: does).
TokenCount = Callable[[Sequence[str]], list[int]]

#: How good it is to cut before a line (0-based), higher is better.
BoundaryScore = Callable[[int], float]

#: Entered around each run of a parser, with the bytes that it is given; may end the process.
ParseLimit = Callable[[int], AbstractContextManager[object]]


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a file that is embedded and found as one.

    Attributes:
        text: The lines, joined by a line feed; a part of a line where that line alone is over the
            limit.
        start_line: First line, from 1.
        end_line: Last line, included.
        symbol: Qualified name of the enclosing definition (`JSONDecoder.decode`) or heading trail
            (`Install > Docker`), empty where there is none.
        language: Its language where the document has several, as a notebook has; else empty.
    """

    text: str
    start_line: int
    end_line: int
    symbol: str
    language: str = ""


class UnitKind(Enum):
    """Kind of a unit, which decides the units that it may be merged with."""

    FILLER = auto()
    """Code between definitions: imports, constants, statements. Its symbol is the scope that it lies in."""
    HEADER = auto()
    """The beginning of a definition whose members are units of their own, or a part of one that was too large."""
    DEFINITION = auto()
    """A whole definition or section."""


@dataclass(frozen=True, slots=True)
class OutlineUnit:
    """A range of lines that belong together. Units lie side by side and cover the file.

    Attributes:
        start: First line, from 0.
        end: Line after the last.
        symbol: Qualified name of the definition that the lines belong to.
        parent: Qualified name of what encloses that definition.
        kind: What the lines are.
    """

    start: int
    end: int
    symbol: str = ""
    parent: str = ""
    kind: UnitKind = UnitKind.FILLER

    @property
    def scope(self) -> str:
        """The symbol that encloses the unit and its siblings."""
        return self.parent if self.kind is UnitKind.DEFINITION else self.symbol


@dataclass(frozen=True, slots=True)
class Outline:
    """A file's units in order, and where a unit that is too large is best cut."""

    units: list[OutlineUnit]
    boundary_score: BoundaryScore


TRAIL_SEPARATOR: Final = " > "
#: Characters of a title; every chunk of the section and of those in it carries it.
TITLE_CHARS_MAX: Final = 120
#: Levels of a trail, as many as Markdown and most kinds of documents have.
LEVELS_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: its line from 0, its level from 1, and its plain title."""

    line: int
    level: int
    title: str


def sections(headings: Iterable[Heading], lines: int) -> list[OutlineUnit]:
    """Return one unit for each section, named by its heading trail (`Install > Docker`).

    Returns:
        Units that cover all lines; what comes before the first heading has no symbol.
    """
    units: list[OutlineUnit] = []
    trail: list[Heading] = []
    start, symbol, parent = 0, "", ""
    for heading in headings:
        units.append(OutlineUnit(start, heading.line, symbol, parent, UnitKind.DEFINITION))
        while trail and trail[-1].level >= heading.level:
            trail.pop()
        parent = TRAIL_SEPARATOR.join(above.title[:TITLE_CHARS_MAX] for above in trail)
        del trail[LEVELS_MAX - 1 :]
        trail.append(heading)
        start, symbol = heading.line, TRAIL_SEPARATOR.join(above.title[:TITLE_CHARS_MAX] for above in trail)
    units.append(OutlineUnit(start, lines, symbol, parent, UnitKind.DEFINITION))
    return [unit for unit in units if unit.start < unit.end]
