"""Snippets: the lines of a chunk that answer a query best, and the places of its words in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.text import Text

from penstock.cli.terminal import strip_controls
from penstock.client import Hit

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
    found = best_lines("\n".join(map(strip_controls, hit.text.split("\n"))), max(1, hit.start_line), words, LINES_MAX)
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
    line = Text(strip_controls(shown_path(hit, cwd)), style="bold cyan")
    if hit.start_line:
        line.append(f":{hit.start_line}-{hit.end_line}", style="not bold cyan")
    if hit.symbol:
        line.append(f"  {strip_controls(hit.symbol)}", style="green not bold")
    line.append(f"  {hit.score:.4f}", style="not bold bright_black")
    return line


def _outdented(line: SnippetLine, indent: int) -> SnippetLine:
    spans = tuple((max(0, start - indent), end - indent) for start, end in line.spans)
    return SnippetLine(line.number, line.text[indent:], spans)


def _body(line: SnippetLine, room: int) -> Text:
    short = line if len(line.text.rstrip()) <= room else crop_line(line, room)
    text = Text(f"{line.number:>6}", style="bright_black")
    content = Text(f"   {short.text.rstrip()}", style="default")
    for start, end in short.spans:
        content.stylize("bold yellow", start + 3, end + 3)
    return text.append_text(content)


WORDS_MAX: Final = 32
#: A longer word is not pointed out, since it was not typed to be found in a line.
WORD_CHARS_MAX: Final = 64

_WORD: Final = re.compile(r"\w+")
_COMMON: Final = """
    a an and are as at be by can do does for from has have how i if in into is it its me my of on or that the their
    then there this through to was we what when where which who why will with you your
    """
_STOP_WORDS: Final = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class SnippetLine:
    """A line of a chunk.

    Attributes:
        number: Its number in the file.
        text: The line.
        spans: Start and end of each query word in it.
    """

    number: int
    text: str
    spans: tuple[tuple[int, int], ...]


def query_words(query: str) -> list[str]:
    """Return the words of a query that are worth pointing out, in lower case, without common ones.

    Bounds:
        ``WORDS_MAX`` words of ``WORD_CHARS_MAX`` characters.
    """
    words = list(dict.fromkeys(word for word in _WORD.findall(query.lower()) if len(word) <= WORD_CHARS_MAX))
    telling = [word for word in words if word not in _STOP_WORDS and (len(word) > 1 or word.isdigit())]
    return (telling or words)[:WORDS_MAX]


def best_lines(text: str, first_line: int, words: Sequence[str], lines_max: int) -> list[SnippetLine]:
    """Return the lines that hold the most query words, in the order of the file.

    Args:
        text: The chunk.
        first_line: Number of its first line in the file.
        words: From :func:`query_words`.
        lines_max: How many lines at most.

    Returns:
        Lines with their words; the first lines that are not empty where no word is found.
    """
    pattern = _pattern(words)
    lines = [_line(number, line, pattern) for number, line in enumerate(text.split("\n"), start=first_line)]
    matching = [line for line in lines if line.spans]
    if not matching:
        return [line for line in lines if line.text.strip()][: max(1, lines_max // 2)]
    best = sorted(matching, key=lambda line: (-_distinct(line), line.number))[:lines_max]
    return sorted(best, key=lambda line: line.number)


def crop_line(line: SnippetLine, width: int) -> SnippetLine:
    """Return the line without its indentation and not wider than ``width``, its first word in sight."""
    start = len(line.text) - len(line.text.lstrip())
    text = line.text.rstrip()
    if line.spans and line.spans[0][1] - start > width - 1:
        start = line.spans[0][0] - width // 3
    piece = text[start : start + width]
    lead = "…" if text[:start].strip() else ""
    tail = "…" if start + width < len(text) else ""
    inner = piece[len(lead) : len(piece) - len(tail)]
    offset = start + len(lead)
    spans = (
        (max(begin - offset, 0) + len(lead), min(end - offset, len(inner)) + len(lead))
        for begin, end in line.spans
        if begin - offset < len(inner) and end > offset
    )
    return SnippetLine(line.number, f"{lead}{inner}{tail}", tuple(spans))


def _pattern(words: Sequence[str]) -> re.Pattern[str] | None:
    # Short words only where they stand alone; longer ones inside others too (`parse` in `HTMLParser`).
    alternatives = [
        re.escape(word) if len(word) > 3 else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
        for word in sorted(words, key=len, reverse=True)
    ]
    return re.compile("|".join(alternatives), re.IGNORECASE) if alternatives else None


def _line(number: int, text: str, pattern: re.Pattern[str] | None) -> SnippetLine:
    spans = tuple(found.span() for found in pattern.finditer(text)) if pattern is not None else ()
    return SnippetLine(number, text.rstrip("\r"), spans)


def _distinct(line: SnippetLine) -> int:
    return len({line.text[start:end].lower() for start, end in line.spans})
