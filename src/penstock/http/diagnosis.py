"""Why a body is no JSON: names the field where the parser could only count bytes.

NaN, Infinity and half a surrogate pair are what other languages' writers get wrong most often. The
standard library's lenient parser reads them all, so the field can be told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

#: A longer body is not looked at: parsing it again would hold up the loop.
DIAGNOSED_BYTES_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where (``documents[3].text``; empty for the body itself)."""

    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Constant:
    """``NaN``, ``Infinity`` or ``-Infinity``, as it stood there."""

    text: str


def find_fault(data: bytes) -> Fault | None:
    """Return the first value that JSON does not allow, ``None`` when the fault is another."""
    if len(data) > DIAGNOSED_BYTES_MAX:
        return None
    try:
        value = json.loads(data.decode(), parse_constant=_Constant)
    except (ValueError, RecursionError):
        return None
    return next(_faults(value), None)


def _faults(value: Any) -> Iterator[Fault]:
    rest: list[tuple[str, Any]] = [("", value)]
    while rest:
        path, inner = rest.pop()
        if isinstance(inner, _Constant):
            yield Fault(path, f"JSON has no {inner.text}; a number must be finite")
        elif isinstance(inner, str) and _halved(inner):
            yield Fault(path, "the text holds half of a surrogate pair, which is no character")
        elif isinstance(inner, list):
            rest.extend((f"{path}[{number}]", item) for number, item in reversed(list(enumerate(inner))))
        elif isinstance(inner, dict):
            if any(_halved(key) for key in inner):
                yield Fault(path, "a key holds half of a surrogate pair, which is no character")
            dot = "." if path else ""
            rest.extend((f"{path}{dot}{key}", item) for key, item in reversed(inner.items()))


def _halved(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
