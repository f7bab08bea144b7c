"""A document's metadata in a form that the engine can filter.

The engine finds fields by paths with a grammar of its own, compares neither floats nor booleans for
equality, and an object nested deeper than 128 levels ends its process as soon as a filter reads it
(qdrant-edge-py 0.9.0). So metadata is stored as opaque JSON text, and beside it, flattened:

- ``facets``: one keyword for each value, by which equality is a look-up in an index;
- ``scales``: numbers and times by path, for ranges.

``{"a": {"b": [1, 2]}}`` and ``{"a.b": [1, 2]}`` flatten alike: the API names both ``metadata.a.b``.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from penstock.stores.moments import moment
from penstock.stores.records import Scalar

#: Prefix of metadata keys in conditions.
METADATA: Final = "metadata."

#: A longer facet is replaced by its digest: the index keeps every distinct one.
FACET_CHARACTERS_MAX: Final = 256

#: Longer integers are kept as floats for ranges.
INTEGER_BITS: Final = 63


def flatten(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    """Yield every scalar below ``metadata`` with its path; items of a list have the list's path."""
    rest: list[tuple[str, Any]] = list(metadata.items())
    while rest:
        path, value = rest.pop()
        if isinstance(value, Mapping):
            rest.extend((f"{path}.{key}", inner) for key, inner in value.items())
        elif isinstance(value, list | tuple):
            rest.extend((path, inner) for inner in value)
        elif value is not None:
            yield path, value


def facet(path: str, value: Scalar) -> str:
    """Return the keyword of one value; 1 and 1.0 are the same, as in JSON, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # An integer may lie beyond the 64 bits that the encoder writes.
    said = str(value) if type(value) is int else value
    text = msgspec.json.encode((path, type(value).__name__, said)).decode()
    if len(text) <= FACET_CHARACTERS_MAX:
        return text
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def facets(metadata: Mapping[str, Any]) -> list[str]:
    """Return the distinct keywords of every value."""
    return list(dict.fromkeys(facet(path, value) for path, value in flatten(metadata)))


def scales(metadata: Mapping[str, Any]) -> dict[str, list[float | str]]:
    """Return numbers and times by their keys, see :func:`scale_key`."""
    found: dict[str, list[float | str]] = {}
    for path, value in flatten(metadata):
        measure = value
        if isinstance(value, str):
            measure = moment(value) or ""
        if type(measure) is int and measure.bit_length() > INTEGER_BITS:
            measure = _rounded(measure)
        if not isinstance(measure, bool) and measure != "":
            found.setdefault(scale_key(path), []).append(measure)
    return found


def _rounded(number: int) -> float:
    """Return a number that the stores' integers cannot hold as they compare it anyway."""
    try:
        return float(number)
    except OverflowError:
        return math.copysign(sys.float_info.max, number)


def scale_key(path: str) -> str:
    """Return a path as one key without a character that means something to the engine."""
    return quote(path, safe="", errors="surrogatepass").replace(".", "%2E")
