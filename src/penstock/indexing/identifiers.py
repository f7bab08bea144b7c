"""The words inside compound identifiers, so that "http response" finds `parseHTTPResponse`."""

import re
from functools import lru_cache
from itertools import chain
from typing import Final

_WORD: Final = re.compile(r"\w+(?:-\w+)*")
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SEPARATOR: Final = re.compile(r"[_-]+")

#: Digests, base64 and other noise fall apart into dozens of parts; no name that a person typed
#: does.
PARTS_MAX: Final = 12
#: So is a longer word; the ones remembered would otherwise take a chunk's length each.
WORD_CHARS_MAX: Final = 128
CACHE_WORDS_MAX: Final = 65_536


@lru_cache(maxsize=CACHE_WORDS_MAX)
def _parts(word: str) -> tuple[str, ...]:
    """Return the lower-cased parts of one word, or nothing where it does not split."""
    if (word.isalpha() and (word.islower() or word[1:].islower())) or word[0].isdigit():
        return ()
    if word.isascii():
        parts = tuple(part.lower() for part in _PART.findall(word))
    else:
        # Case classes of other scripts are not worth a slower pattern: separators alone decide
        # there.
        parts = tuple(part.lower() for part in _SEPARATOR.split(word) if part)
    return parts if 1 < len(parts) <= PARTS_MAX else ()


def split_identifiers(text: str) -> list[str]:
    """Return the parts of every identifier in `text` that really splits.

    camelCase, PascalCase, snake_case, kebab-case, digits and acronyms are taken apart:
    `parseHTTPResponse2` gives `parse, http, response, 2`. A plain word gives nothing, since it is
    in the text already.

    Args:
        text: Source code or prose.

    Returns:
        Lower-cased parts in the order of the text, repeats kept (term frequency counts).

    Bounds:
        A word of more than `PARTS_MAX` parts or `WORD_CHARS_MAX` characters is noise and gives nothing;
        `CACHE_WORDS_MAX` words are remembered.
    """
    return list(chain.from_iterable(map(_parts, (word for word in _WORD.findall(text) if len(word) <= WORD_CHARS_MAX))))
