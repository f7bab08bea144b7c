"""Outlines of documents: Markdown and reStructuredText by heading, any other text at its paragraphs.

Fenced code and front matter are never mistaken for headings. Text without a grammar is cut at paragraphs, sentences and
small indents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from penstock.indexing.chunk.line_costs import LineCosts
from penstock.indexing.chunk.outline import BoundaryScore, Heading, Outline, OutlineUnit, sections

_AFTER_BLANK: Final = 2.0
_AFTER_SENTENCE: Final = 0.6
_BARE: Final = -3.0
_INDENT_WEIGHT: Final = 0.08
_INDENT_MAX: Final = 24
_SENTENCE_ENDS: Final = (".", "!", "?", ":", "。", "”", '."', ".)", ";", "}")


def paragraph_boundary_score(costs: LineCosts) -> BoundaryScore:
    """Favour the first line of a paragraph, small indents and the end of a sentence."""

    def strength(line: int) -> float:
        if costs.has_no_words(line, line + 1):
            return _BARE
        value = -_INDENT_WEIGHT * min(costs.indent(line), _INDENT_MAX)
        if costs.blank[line - 1]:
            value += _AFTER_BLANK
        elif costs.lines[line - 1].rstrip().endswith(_SENTENCE_ENDS):
            value += _AFTER_SENTENCE
        return value

    return strength


def outline_prose(costs: LineCosts) -> Outline:
    """Return the whole file as one unit, to be cut at paragraphs."""
    return Outline([OutlineUnit(0, len(costs.lines))], paragraph_boundary_score(costs))


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


_RULE: Final = re.compile(r"\A([!-/:-@\[-`{-~])\1{2,}\s*$")
#: What may be a role, at the end of what stands before a backtick (`:class:`, `:py:func:`).
_ROLE: Final = re.compile(r"(?<![\w:+.-])[\w:+.-]++$")


def outline_restructured(costs: LineCosts) -> Outline:
    """Return one unit for each section."""
    return Outline(sections(_underlined_titles(costs.lines), len(costs.lines)), paragraph_boundary_score(costs))


def _underlined_titles(lines: Sequence[str]) -> Iterator[Heading]:
    levels: dict[str, int] = {}
    for number in range(1, len(lines)):
        rule = _RULE.match(lines[number])
        title = lines[number - 1].rstrip()
        if rule is None or not title or _RULE.match(title) is not None:
            continue
        over = number >= 2 and lines[number - 2].rstrip() == lines[number].rstrip()
        # Without an overline, a title begins its paragraph at the margin and is no longer than its
        # rule.
        under = (number < 2 or not lines[number - 2].strip()) and not title[0].isspace()
        if not over and not (under and len(title) <= len(lines[number].rstrip())):
            continue
        style = rule[1] * (2 if over else 1)
        level = levels.setdefault(style, len(levels) + 1)
        yield Heading(number - 2 if over else number - 1, level, _plain(title))


def _plain(title: str) -> str:
    """Return a title's words: what has a role by its text, quotes and stars left out."""
    pieces = title.split("`")
    plain: list[str] = []
    has_role = False
    for number, piece in enumerate(pieces):
        if has_role:
            plain.append(piece.partition("<")[0])
            has_role = False
        else:
            is_quoted = number + 2 < len(pieces)
            end = _role_start(piece) if is_quoted else len(piece)
            plain.append(piece[:end])
            has_role = end < len(piece)
    return "".join(plain).replace("*", "").strip()


def _role_start(text: str) -> int:
    """Return where the role at the end of `text` begins, its length where it ends with none."""
    found = _ROLE.search(text)
    if found is None or not text.endswith(":"):
        return len(text)
    start = text.index(":", found.start())
    return start if len(text) - start > len("::") else len(text)
