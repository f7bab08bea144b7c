"""Text folding for BM25: one form for every way to type a letter, and words for scripts without spaces.

Queries and documents are folded alike. The stored text, the dense model and the cross-encoder keep what was given.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

#: Stands before the letters of :func:`fold_document`. Unicode keeps it for a program's own use; no text holds it.
LETTERS_FOLLOW: Final = "\ufdd0"

#: Marks that are left out. These blocks hold the accents of Latin, Greek and Cyrillic letters, which people type or
#: leave out; marks of other scripts, such as their vowels, have blocks of their own and stay. The rest has no shape:
#: soft hyphens, joiners, selectors of a variant.
_OPTIONAL: Final = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
    "\u00ad\u200b\u200d\u2060\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef\ufdd0]+"
)

#: Letters whose plain form Unicode does not tell. The engine would lower-case a sigma by its place in the word.
_PLAIN: Final = dict(zip("øØđĐðÐħĦłŁıςΣ", "oOdDdDhHlLiσσ", strict=True)) | {
    one: plain.upper() if one.isupper() else plain
    for one, plain in zip("ßẞæÆœŒþÞ", ("ss", "ss", "ae", "ae", "oe", "oe", "th", "th"), strict=True)
}
_HAS_PLAIN: Final = re.compile(f"[{''.join(_PLAIN)}]")

#: Runs of letters and their marks in scripts without spaces, and in Korean, which joins particles to words.
_UNSPACED: Final = re.compile(
    "["
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U00020000-\U0003ffff"  # Han, the rare ones
    "\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\u3105-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    "\u0e81-\u0ece\u0edc-\u0edf"  # Lao
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"  # Burmese
    "]+"
)

#: A letter with its marks: vowels, tones.
_LETTER: Final = re.compile(r"\w\W*|\W+")

#: Marks, and punctuation beyond ASCII.
_NO_LETTER: Final = re.compile(r"[^\w\s\x00-\x7f]")

#: More marks in a row than any letter has (Unicode's Stream-Safe Text Format): to sort them takes time that grows with
#: their square.
_MARKS_IN_ROW: Final = re.compile(r"([^\w\s\x00-\x7f]{30})[^\w\s\x00-\x7f]+")

#: Characters folded at once: some milliseconds for which the interpreter's lock is held. No chunk is longer, and a pair
#: across the border of two pieces is lost.
PIECE_CHARACTERS: Final = 8_192

#: Characters of a folded text from which on the rest is left out: more than the encoder reads.
FOLDED_CHARACTERS_MIN: Final = 131_073

#: The first of the letters that stand for marks, and their number: ideographs so rare that they are met nowhere else.
_STAND_INS: Final = (0x20000, 0xA000)


def fold_query(text: str) -> str:
    """Return a query as its terms are wanted, a text of ASCII as it is.

    * Composed or decomposed, full or half width, with ligatures or without: one form (NFKC).
    * Letters of Latin, Greek and Cyrillic lose their accents.
    * A run of a script without spaces becomes its overlapping pairs of letters. A letter alone stays.
    * Marks within words become letters, because the engine would cut the words there.

    Bounds: what the encoder does not read is not folded (``FOLDED_CHARACTERS_MIN``).
    """
    return text if text.isascii() else _fold(text)[0]


def fold_document(text: str) -> str:
    """Return a document as its terms are wanted: as a query, and after a sign each letter of the pairs.

    A query of one letter is then found in the midst of a run. The letters are encoded by themselves
    (:class:`penstock.models.bm25.Bm25Runner`), so that they do not count as length of the text.
    """
    if text.isascii():
        return text
    folded, letters = _fold(text)
    return f"{folded}{LETTERS_FOLLOW}{letters}" if letters else folded


def pair_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the overlapping pairs of letters stand in runs of scripts without spaces, and letters alone."""
    for run in _UNSPACED.finditer(text):
        letters = [(run.start() + letter.start(), run.start() + letter.end()) for letter in _LETTER.finditer(run[0])]
        if len(letters) == 1:
            yield letters[0]
        yield from ((first[0], second[1]) for first, second in pairwise(letters))


def without_pairs(text: str) -> str:
    """Return a text as long with spaces in the place of the runs of scripts without spaces."""
    return text if text.isascii() else _UNSPACED.sub(lambda run: " " * len(run[0]), text)


def spell_out(text: str) -> str:
    """Return a text with ligatures, full-width letters and the like as the letters that dense models know (NFKC)."""
    return unicodedata.normalize("NFKC", _MARKS_IN_ROW.sub(r"\1", text))


def _fold(text: str) -> tuple[str, str]:
    """Return as much of a text folded as is read, and the letters of its pairs, with spaces between."""
    if len(text) <= PIECE_CHARACTERS:
        return _fold_piece(text)
    pieces: list[tuple[str, str]] = []
    characters = 0
    for begin in range(0, len(text), PIECE_CHARACTERS):
        pieces.append(_fold_piece(text[begin : begin + PIECE_CHARACTERS]))
        characters += len(pieces[-1][0])
        if characters >= FOLDED_CHARACTERS_MIN:
            break
    return "".join(folded for folded, _ in pieces), " ".join(letters for _, letters in pieces)


def _fold_piece(text: str) -> tuple[str, str]:
    text = _MARKS_IN_ROW.sub(r"\1", text)
    text = unicodedata.normalize("NFC", _OPTIONAL.sub("", unicodedata.normalize("NFKD", text)))
    text = _HAS_PLAIN.sub(lambda found: _PLAIN[found[0]], text)
    paired: list[str] = []

    def pairs(run: re.Match[str]) -> str:
        letters = _LETTER.findall(run[0])
        if len(letters) == 1:
            return f" {run[0]} "
        paired.extend(letters)
        return f" {' '.join(map(''.join, pairwise(letters)))} "

    text = _UNSPACED.sub(pairs, text)
    return _without_marks(text), _without_marks(" ".join(paired))


def _without_marks(text: str) -> str:
    return _NO_LETTER.sub(_stand_in, text)


def _stand_in(found: re.Match[str]) -> str:
    """Return a letter for a mark; punctuation stays."""
    if not unicodedata.category(found[0]).startswith("M"):
        return found[0]
    first, count = _STAND_INS
    return chr(first + ord(found[0]) % count)
