"""Text without a grammar: cut at paragraphs, sentences and small indents."""

from typing import Final

from penstock.indexing.chunk.line_costs import LineCosts
from penstock.indexing.chunk.outline import BoundaryScore, Outline, OutlineUnit

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
