"""Results of a search as text: the hits of a file below its path, and of each hit the lines that answer best."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.style import Style
from rich.text import Text

from penstock.cli.hit_files import Roots, file_or_none, file_url
from penstock.cli.terminal import shows_links, stderr_console, stdout_console, strip_controls
from penstock.client import FacetCounts, Hit, SearchResponse
from penstock.stores.sources import SEPARATOR

LINES_MAX: Final = 6
PLAIN_WIDTH: Final = 200
_GUTTER: Final = 9
#: Other chunks of a document whose lines are told.
OTHERS_SHOWN_MAX: Final = 5
WORD_STYLE: Final = "bold yellow"
PATH_STYLE: Final = "bold cyan"
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
class Layout:
    """Layout of the results.

    Attributes:
        heading: Whether the hits of a file stand together below its path, numbered as ranked.
        before: Lines of the file shown before each of a hit's.
        after: Lines of the file shown after each of a hit's.
    """

    heading: bool = False
    before: int = 0
    after: int = 0

    @property
    def has_context(self) -> bool:
        """Return whether lines around those of the hits are shown."""
        return bool(self.before or self.after)


@dataclass(frozen=True, slots=True)
class FoundHit:
    """A hit with what there is about its file.

    Attributes:
        hit: The hit.
        number: Its place in the answer, from 1.
        roots: Directories on this host of its collection's sources.
        around: Lines of its document around it, by number.
    """

    hit: Hit
    number: int = 1
    roots: Roots = field(default_factory=dict)
    around: Mapping[int, str] = field(default_factory=dict)


def print_answer(answer: SearchResponse, text: str, found: Sequence[FoundHit], layout: Layout = Layout()) -> None:
    """Print an answer: hits and facets to standard output, what is missing to standard error."""
    console, aside = stdout_console(), stderr_console()
    if answer.degraded:
        aside.print(f"degraded: {strip_controls(', '.join(answer.degraded))}", style="yellow", soft_wrap=True)
    if answer.coverage < 1:
        aside.print(f"{answer.coverage:.0%} of the chunks are found by meaning so far, all by words", style="dim")
    for one in answer.left_out:
        aside.print(strip_controls(f"not searched: {one.collection}: {one.detail}"), style="yellow", soft_wrap=True)
    if not answer.hits:
        aside.print("Nothing was found.")
    width, linked = console.width if console.is_terminal else None, shows_links(console)
    for line in result_lines(found, query_words(text), layout, width, linked=linked):
        console.print(line)
    for facet in answer.facets:
        console.print(facet_line(facet), style="cyan", soft_wrap=True)
    if answer.hits and aside.is_terminal and console.is_terminal:
        aside.print(f"\n{len(answer.hits)} hits in {answer.took_ms:.0f} ms", style="bright_black")


def result_lines(
    found: Sequence[FoundHit], words: Sequence[str], layout: Layout, width: int | None, *, linked: bool = False
) -> Iterator[Text]:
    """Yield hits line by line; the styles matter only where the console has colour.

    Args:
        found: The hits, best first.
        words: From :func:`query_words`.
        layout: With headings, files come in the order of their best hits.
        width: The terminal's, ``None`` where there is none.
        linked: Whether the paths of files on this host are links.
    """
    cwd = Path.cwd()
    groups: dict[object, list[FoundHit]] = {}
    for one in found:
        groups.setdefault((one.hit.collection, one.hit.id) if layout.heading else one.number, []).append(one)
    for place, group in enumerate(groups.values()):
        if place:
            yield Text()
        path = _linked_path(group[0], cwd, linked=linked)
        if layout.heading:
            yield _in_collection(group[0].hit, path)
        for one in group:
            if layout.heading:
                yield _numbered(one)
            else:
                yield Text.assemble(_in_collection(one.hit, path), ":" if one.hit.start_line else "  ", _place(one.hit))
            yield from hit_lines(one, words, layout, width)


def hit_lines(one: FoundHit, words: Sequence[str], layout: Layout, width: int | None) -> Iterator[Text]:
    """Yield the lines of a hit that are shown, and where the others of its group are."""
    room = max(20, (width or PLAIN_WIDTH) - _GUTTER)
    shown = shown_lines(one, words, layout)
    indent = min((_indent(text.plain) for _, text in shown if text.plain.strip()), default=0)
    before = 0
    for number, text in shown:
        if layout.has_context and before and number != before + 1:
            yield Text(f"{'--':>6}", "bright_black")
        before = number
        line = text[indent:]
        line.rstrip()
        if len(line) > room:
            line = crop_line(line, room, indented=layout.has_context)
        # As grep marks them: a line that matches by a colon, one of the context by a hyphen.
        mark = "   " if not layout.has_context else ":  " if line.spans else "-  "
        row = Text.assemble((f"{number:>6}{mark}", "bright_black"), line)
        row.rstrip()
        yield row
    if one.hit.others_total:
        yield Text(" " * _GUTTER + _other_chunks(one.hit), "bright_black")


def shown_lines(one: FoundHit, words: Sequence[str], layout: Layout) -> list[tuple[int, Text]]:
    """Return the lines of a hit that answer best, and the context that the layout wants.

    Bounds:
        ``LINES_MAX`` lines, each with its context.
    """
    own = own_lines(one.hit)
    best = best_lines("\n".join(map(strip_controls, own.values())), min(own), words, LINES_MAX)
    if not layout.has_context:
        return best
    # The hit's own part of an over-long line takes the place of the others.
    lines, pattern = {**one.around, **own}, _pattern(words)
    wanted = {near for number, _ in best for near in range(number - layout.before, number + layout.after + 1)}
    shown = [(number, Text(strip_controls(lines[number]))) for number in sorted(wanted & lines.keys())]
    for _, text in shown:
        if pattern is not None:
            text.highlight_regex(pattern, WORD_STYLE)
    return shown


def own_lines(hit: Hit) -> dict[int, str]:
    """Return the lines of a hit's text by their numbers in the file."""
    return dict(enumerate(hit.text.split("\n"), max(1, hit.start_line)))


def lines_wanted(hit: Hit, words: Sequence[str], layout: Layout) -> tuple[int, int]:
    """Return how many lines of context are wanted before and after the hit's own."""
    own = own_lines(hit)
    best = [number for number, _ in best_lines(hit.text, min(own), words, LINES_MAX)]
    if not best or not layout.has_context:
        return 0, 0
    first = max(1, min(best) - layout.before)
    return max(0, min(own) - first), max(0, max(best) + layout.after - max(own))


def best_line(hit: Hit, words: Sequence[str]) -> int:
    """Return the number of the line that holds the most query words, the first of several."""
    lines = best_lines(hit.text, max(1, hit.start_line), words, LINES_MAX)
    best = min(lines, key=lambda one: (-_distinct(one[1]), one[0]), default=(max(1, hit.start_line), None))
    return best[0]


def _other_chunks(hit: Hit) -> str:
    """Return where the other chunks of a grouped hit are, the best ones in the order of the file."""
    best = sorted((one.start_line, one.end_line) for one in hit.others[:OTHERS_SHOWN_MAX])
    more = hit.others_total - len(best)
    return "also " + ", ".join(f"{first}-{last}" for first, last in best) + (f" and {more} more" if more else "")


def shown_path(hit: Hit, cwd: Path, roots: Mapping[str, str]) -> str:
    """Return a path that opens from the current directory where the hit is a file here, else what tells it best.

    Args:
        hit: The hit.
        cwd: The current directory.
        roots: The directory of each source on this host; empty for a source that only other hosts feed.
    """
    source, _, path = hit.id.partition(SEPARATOR)
    if source in roots and path == hit.path:
        if not roots[source]:
            return hit.id
        file = Path(roots[source]) / path
    elif hit.id.startswith("/") and hit.id.endswith(f"/{hit.path}"):
        # An earlier release indexed it. An id may look like a path without being one; only files are opened.
        file = Path(hit.id)
    else:
        return hit.path or hit.id
    return str(file.relative_to(cwd) if file.is_relative_to(cwd) else file)


def facet_line(facet: FacetCounts) -> str:
    """Return a facet as a line of its values and counts."""
    values = ", ".join(f"{one.value} {one.count}" for one in facet.values) or "none"
    more = f" and {facet.more} more" if facet.more else ""
    return strip_controls(f"{facet.field} of {facet.counted}: {values}{more}")


def _linked_path(one: FoundHit, cwd: Path, *, linked: bool) -> Text:
    """Return a hit's path, as a link where terminals show links and the file is here."""
    file = file_or_none(one.hit, one.roots) if linked else None
    link = Style(link=file_url(file, socket.gethostname())) if file is not None else Style()
    return Text.assemble((strip_controls(shown_path(one.hit, cwd, one.roots)), Style.parse(PATH_STYLE) + link))


def _in_collection(hit: Hit, text: Text) -> Text:
    return Text.assemble((f"{strip_controls(hit.collection)}  " if hit.collection else "", "bright_black"), text)


def _numbered(one: FoundHit) -> Text:
    return Text.assemble((f"{f'#{one.number}':>6}   ", "bright_black"), _place(one.hit))


def _place(hit: Hit) -> Text:
    """Return where in its file a hit is, and its score."""
    parts = [
        (f"{hit.start_line}-{hit.end_line}" if hit.start_line else "", "cyan"),
        (strip_controls(hit.symbol), "green"),
        (f"{hit.score:.4f}", "bright_black"),
    ]
    return Text("  ").join(Text(text, style) for text, style in parts if text)


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


def crop_line(line: Text, width: int, *, indented: bool = False) -> Text:
    """Return the line not wider than ``width``, its first word in sight; without indentation unless ``indented``."""
    start, end = 0 if indented else _indent(line.plain), len(line.plain.rstrip())
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
