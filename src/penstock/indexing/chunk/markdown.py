"""Markdown: sections by heading. Fenced code and front matter are never mistaken for headings."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from penstock.indexing.chunk.line_costs import LineCosts
from penstock.indexing.chunk.outline import Heading, Outline, sections
from penstock.indexing.chunk.prose import paragraph_boundary_score

_ATX: Final = re.compile(r"\A {0,3}(#{1,6})(?=[ \t]|\r?$)")
_SETEXT: Final = re.compile(r"\A {0,3}(=+|-{2,})[ \t\r]*$")
_FENCE: Final = re.compile(r"\A {0,3}(`{3,}|~{3,})([^\r]*)")
#: Starts of lines that are no paragraph, so that a rule of dashes below them underlines nothing.
_NO_PARAGRAPH: Final = re.compile(r"\A(?: {4}|\t|\s*+(?:[>|#]|[-*+] |\d++[.)] |<))")
# None of them reaches over the beginning of another: each character is then looked at once, however many begin.
_IMAGE: Final = re.compile(r"!\[[^\[\]]*\](?:\([^)\[]*\)|\[[^\[\]]*\])|<[^<>]*>")
_LINK: Final = re.compile(r"\[([^\[\]]*)\](?:\([^)\[]*\)|\[[^\[\]]*\])")
_MARKS: Final = re.compile(r"[`*]+")
_FENCED: Final = -2.5


def outline_markdown(costs: LineCosts) -> Outline:
    """Return one unit a section, to be cut between paragraphs rather than in fenced code."""
    fenced = _fenced_lines(costs.lines)
    between = paragraph_boundary_score(costs)

    def strength(line: int) -> float:
        inside = fenced[line] and fenced[line - 1]
        return between(line) + (_FENCED if inside else 0.0)

    return Outline(sections(_headings(costs.lines, fenced), len(costs.lines)), strength)


def _front_matter_end(lines: Sequence[str]) -> int:
    """Return the line after a YAML front matter, 0 where there is none."""
    if lines[0].rstrip() != "---":
        return 0
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() in {"---", "..."}:
            return number + 1
    return 0


def _fenced_lines(lines: Sequence[str]) -> list[bool]:
    """Tell for each line whether it belongs to front matter or fenced code, the fences included."""
    fenced = [False] * len(lines)
    begin = _front_matter_end(lines)
    fenced[:begin] = [True] * begin
    fence = ""
    for number in range(begin, len(lines)):
        line = lines[number]
        found = _FENCE.match(line) if "```" in line or "~~~" in line else None
        if fence:
            fenced[number] = True
            # A fence is closed by one of its own kind, at least as long, with nothing after it.
            if found is not None and found[1].startswith(fence) and not found[2].strip():
                fence = ""
        elif found is not None and not (found[1][0] == "`" and "`" in found[2]):
            fenced[number] = True
            fence = found[1]
    return fenced


def _headings(lines: Sequence[str], fenced: Sequence[bool]) -> Iterator[Heading]:
    for number, line in enumerate(lines):
        if fenced[number]:
            continue
        if (atx := _ATX.match(line)) is not None:
            yield Heading(number, len(atx[1]), _title(_opened(line[atx.end() :])))
        elif number and not fenced[number - 1] and (setext := _SETEXT.match(line)) is not None:
            above = lines[number - 1]
            if above.strip() and _NO_PARAGRAPH.match(above) is None and _SETEXT.match(above) is None:
                yield Heading(number - 1, 1 if setext[1][0] == "=" else 2, _title(above))


def _opened(text: str) -> str:
    """Return what follows the signs that open a heading, without those that close it."""
    text = text.strip(" \t\r")
    opened = text.rstrip("#")
    return opened if not opened or opened[-1] in " \t" else text


def _title(text: str) -> str:
    """Return a heading's words: links by their text, pictures, badges and a `{#name}` left out."""
    text = text.rstrip()
    begin = text.rfind("{#")
    if begin >= 0 and text.find("}", begin) == len(text) - 1:
        text = text[:begin]
    return _MARKS.sub("", _LINK.sub(r"\1", _IMAGE.sub("", text))).strip()
