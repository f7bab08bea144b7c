"""Sections of a document from its headings, whatever markup they were written in."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from penstock.indexing.chunk.outline import OutlineUnit, UnitKind

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

    Args:
        headings: In the order of their lines.
        lines: Number of lines of the document.

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
