"""Locates the field of an invalid JSON value, where the strict parser or encoder only reports that there is one.

NaN, Infinity and half a surrogate pair are what other languages' writers get wrong most often. The
standard library's lenient parser reads them all, so the field can be named.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

#: A longer body is not looked at: what the lenient parser makes of one takes up to twenty times its size. The byte
#: that the strict parser stopped at is reported in any case.
SCANNED_BYTES_MAX: Final = 65_536

#: Nor is one of more values: each takes the loop some ten microseconds.
SCANNED_VALUES_MAX: Final = 1024

#: Each value but the first is behind one of these, or is the first of what it opens.
_BEFORE_VALUES: Final = b",[{"


@dataclass(frozen=True, slots=True)
class InvalidField:
    """An invalid field: its path (``documents[3].text``, empty for the body itself) and what is wrong with it."""

    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class _NonFiniteNumber:
    """``NaN``, ``Infinity`` or ``-Infinity``, as it stood there."""

    text: str


@dataclass(frozen=True, slots=True)
class _JsonPath:
    """Path of a JSON value: its name and its parent's path. Only an invalid value's path is written out."""

    parent: _JsonPath | None = None
    name: str | int = ""

    def path(self) -> str:
        """Return the path as people write it."""
        steps: list[str] = []
        place: _JsonPath | None = self
        while place is not None and place.parent is not None:
            steps.append(f"[{place.name}]" if isinstance(place.name, int) else f".{place.name}")
            place = place.parent
        return "".join(reversed(steps)).removeprefix(".")


def find_invalid_json(data: bytes) -> InvalidField | None:
    """Return the first value that JSON does not allow, ``None`` when the fault is another."""
    if len(data) > SCANNED_BYTES_MAX or sum(map(data.count, _BEFORE_VALUES)) > SCANNED_VALUES_MAX:
        return None
    try:
        value = json.loads(data.decode(), parse_constant=_NonFiniteNumber)
    except (ValueError, RecursionError):
        return None
    return first_invalid_field(value, _invalid_reason)


def first_invalid_field(value: Any, invalid_reason: Callable[[Any], str | None]) -> InvalidField | None:
    """Return the first value inside another that is wrong.

    Args:
        value: Made of lists and dictionaries.
        invalid_reason: Says what is wrong with one value itself, if anything is.
    """
    rest: list[tuple[_JsonPath, Any]] = [(_JsonPath(), value)]
    while rest:
        place, inner = rest.pop()
        detail = invalid_reason(inner)
        if detail is not None:
            return InvalidField(place.path(), detail)
        if isinstance(inner, list):
            rest.extend((_JsonPath(place, number), inner[number]) for number in reversed(range(len(inner))))
        elif isinstance(inner, dict):
            rest.extend((_JsonPath(place, key), item) for key, item in reversed(inner.items()))
    return None


def _invalid_reason(value: Any) -> str | None:
    """Return what is wrong with a value itself, if anything is."""
    if isinstance(value, _NonFiniteNumber):
        return f"JSON has no {value.text}; a number must be finite"
    if isinstance(value, str) and _has_lone_surrogate(value):
        return "the text holds half of a surrogate pair, which is no character"
    if isinstance(value, dict) and any(map(_has_lone_surrogate, value)):
        return "a key holds half of a surrogate pair, which is no character"
    return None


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
