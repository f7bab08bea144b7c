"""Snippets: the lines of a chunk that answer a query best, and the places of its words in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.text import Text

from penstock.cli.terminal import strip_controls
from penstock.client import Hit

LINES_MAX: Final = 6
PLAIN_WIDTH: Final = 200
_GUTTER: Final = 9
WORD_STYLE: Final = "bold yellow"


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
    indent = min((_indent(text.plain) for _, text in found), default=0)
    for number, text in found:
        shown = text[indent:]
        shown.rstrip()
        yield Text.assemble(
            (f"{number:>6}", "bright_black"), "   ", shown if len(shown) <= room else crop_line(shown, room)
        )


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
    return Text.assemble(
        (strip_controls(shown_path(hit, cwd)), "bold cyan"),
        (f":{hit.start_line}-{hit.end_line}" if hit.start_line else "", "cyan"),
        (f"  {strip_controls(hit.symbol)}" if hit.symbol else "", "green"),
        (f"  {hit.score:.4f}", "bright_black"),
    )


WORDS_MAX: Final = 32
#: A longer word is not pointed out, since it was not typed to be found in a line.
WORD_CHARS_MAX: Final = 64

_WORD: Final = re.compile(r"\w+")
_COMMON: Final = """
    a an and are as at be by can do does for from has have how i if in into is it its me my of on or that the their
    then there this through to was we what when where which who why will with you your
    """
_STOP_WORDS: Final = frozenset(_COMMON.split())


def query_words(query: str) -> list[str]:
    """Return the words of a query that are worth pointing out, in lower case, without common ones.

    Bounds:
        ``WORDS_MAX`` words of ``WORD_CHARS_MAX`` characters.
    """
    words = list(dict.fromkeys(word for word in _WORD.findall(query.lower()) if len(word) <= WORD_CHARS_MAX))
    telling = [word for word in words if word not in _STOP_WORDS and (len(word) > 1 or word.isdigit())]
    return (telling or words)[:WORDS_MAX]


def best_lines(text: str, first_line: int, words: Sequence[str], lines_max: int) -> list[tuple[int, Text]]:
    """Return the lines that hold the most query words, in the order of the file.

    Args:
        text: The chunk.
        first_line: Number of its first line in the file.
        words: From :func:`query_words`.
        lines_max: How many lines at most.

    Returns:
        Numbers of the lines and the lines, the words in them pointed out; the first lines that are not empty where no
        word is found.
    """
    pattern = _pattern(words)
    lines = [(number, Text(line)) for number, line in enumerate(text.split("\n"), start=first_line)]
    if pattern is not None:
        for _, line in lines:
            line.highlight_regex(pattern, WORD_STYLE)
    matching = [one for one in lines if one[1].spans]
    if not matching:
        return [one for one in lines if one[1].plain.strip()][: max(1, lines_max // 2)]
    return sorted(sorted(matching, key=lambda one: (-_distinct(one[1]), one[0]))[:lines_max], key=lambda one: one[0])


def crop_line(line: Text, width: int) -> Text:
    """Return the line without its indentation and not wider than ``width``, its first word in sight."""
    start, end = _indent(line.plain), len(line.plain.rstrip())
    if line.spans and line.spans[0].end - start > width - 1:
        start = max(start, line.spans[0].start - width // 3)
    lead = "…" if line.plain[:start].strip() else ""
    tail = "…" if start + width < end else ""
    return Text.assemble(lead, line[start + len(lead) : min(end, start + width) - len(tail)], tail)


def _pattern(words: Sequence[str]) -> re.Pattern[str] | None:
    # Short words only where they stand alone; longer ones inside others too (`parse` in `HTMLParser`).
    alternatives = [
        re.escape(word) if len(word) > 3 else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
        for word in sorted(words, key=len, reverse=True)
    ]
    return re.compile("|".join(alternatives), re.IGNORECASE) if alternatives else None


def _distinct(line: Text) -> int:
    return len({line.plain[start:end].lower() for start, end, _ in line.spans})


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
