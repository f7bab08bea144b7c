"""Text without a grammar: cut at paragraphs, sentences and small indents."""

from typing import Final

from penstock.indexing.chunk.ledger import Ledger
from penstock.indexing.chunk.records import Outline, Strength, Unit

_AFTER_BLANK: Final = 2.0
_AFTER_SENTENCE: Final = 0.6
_BARE: Final = -3.0
_INDENT_WEIGHT: Final = 0.08
_INDENT_MAX: Final = 24
_SENTENCE_ENDS: Final = (".", "!", "?", ":", "。", "”", '."', ".)", ";", "}")


def paragraph_strength(ledger: Ledger) -> Strength:
    """Favour the first line of a paragraph, small indents and the end of a sentence."""

    def strength(line: int) -> float:
        if ledger.is_bare(line, line + 1):
            return _BARE
        value = -_INDENT_WEIGHT * min(ledger.indent(line), _INDENT_MAX)
        if ledger.blank[line - 1]:
            value += _AFTER_BLANK
        elif ledger.lines[line - 1].rstrip().endswith(_SENTENCE_ENDS):
            value += _AFTER_SENTENCE
        return value

    return strength


def outline_prose(ledger: Ledger) -> Outline:
    """Return the whole file as one unit, to be cut at paragraphs."""
    return Outline([Unit(0, len(ledger.lines))], paragraph_strength(ledger))
