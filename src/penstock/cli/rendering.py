"""Hits for a person: ``path:start-end  symbol  score``, then the lines that answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.text import Text

from penstock.cli.matching import Line, best_lines, cut
from penstock.cli.records import Hit
from penstock.cli.terminal import harmless

LINES_MAX: Final = 6
PLAIN_WIDTH: Final = 200
_GUTTER: Final = 9


def hit_lines(hit: Hit, words: Sequence[str], cwd: Path, width: int | None) -> Iterator[Text]:
    """Yield a hit line by line; the styles matter only where the console has colour.

    Args:
        hit: The hit.
        words: The query's words, pointed out in the text.
        cwd: The current directory.
        width: Columns of the terminal, ``None`` where there is none.
    """
    yield _headline(hit, cwd)
    room = max(20, (width or PLAIN_WIDTH) - _GUTTER)
    found = best_lines("\n".join(map(harmless, hit.text.split("\n"))), max(1, hit.start_line), words, LINES_MAX)
    indent = min((len(line.text) - len(line.text.lstrip()) for line in found), default=0)
    for line in found:
        yield _body(_outdented(line, indent), room)


def shown_path(hit: Hit, cwd: Path) -> str:
    """Return a path that opens from the current directory where the hit is a file, else the path as indexed."""
    if not hit.id.startswith("/"):
        return hit.path or hit.id
    file = Path(hit.id)
    if file.is_relative_to(cwd):
        return str(file.relative_to(cwd))
    # An id may look like a path without being one; only files are opened.
    return hit.id if hit.id.endswith(f"/{hit.path}") else hit.path or hit.id


def _headline(hit: Hit, cwd: Path) -> Text:
    line = Text(harmless(shown_path(hit, cwd)), style="bold cyan")
    if hit.start_line:
        line.append(f":{hit.start_line}-{hit.end_line}", style="not bold cyan")
    if hit.symbol:
        line.append(f"  {harmless(hit.symbol)}", style="green not bold")
    line.append(f"  {hit.score:.4f}", style="not bold bright_black")
    return line


def _outdented(line: Line, indent: int) -> Line:
    spans = tuple((max(0, start - indent), end - indent) for start, end in line.spans)
    return Line(line.number, line.text[indent:], spans)


def _body(line: Line, room: int) -> Text:
    short = line if len(line.text.rstrip()) <= room else cut(line, room)
    text = Text(f"{line.number:>6}", style="bright_black")
    content = Text(f"   {short.text.rstrip()}", style="default")
    for start, end in short.spans:
        content.stylize("bold yellow", start + 3, end + 3)
    return text.append_text(content)
