"""reStructuredText: sections by underlined titles, levels by first appearance."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from penstock.indexing.chunk.line_costs import LineCosts
from penstock.indexing.chunk.outline import Heading, Outline, sections
from penstock.indexing.chunk.prose import paragraph_boundary_score

_RULE: Final = re.compile(r"\A([!-/:-@\[-`{-~])\1{2,}\s*$")
#: What may be a role, at the end of what stands before a backtick (`:class:`, `:py:func:`).
_ROLE: Final = re.compile(r"(?<![\w:+.-])[\w:+.-]++$")


def outline_restructured(costs: LineCosts) -> Outline:
    """Return one unit for each section."""
    return Outline(sections(_headings(costs.lines), len(costs.lines)), paragraph_boundary_score(costs))


def _headings(lines: Sequence[str]) -> Iterator[Heading]:
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
