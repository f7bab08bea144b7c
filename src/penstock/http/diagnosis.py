"""The field that holds what cannot be taken, where a parser or an encoder could only say that there is one.

NaN, Infinity and half a surrogate pair are what other languages' writers get wrong most often. The
standard library's lenient parser reads them all, so the field can be told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

#: A longer body is not looked at: what the lenient parser makes of one takes up to twenty times its size. The byte
#: that the strict parser stopped at is told in any case.
DIAGNOSED_BYTES_MAX: Final = 65_536

#: Nor is one of more values: each takes the loop some ten microseconds.
DIAGNOSED_VALUES_MAX: Final = 1024

#: Each value but the first is behind one of these, or is the first of what it opens.
_BEFORE_VALUES: Final = b",[{"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where (``documents[3].text``; empty for the body itself)."""

    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Constant:
    """``NaN``, ``Infinity`` or ``-Infinity``, as it stood there."""

    text: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A value's place: its name, and the place of what holds it. Only a fault's place becomes a path."""

    holder: _Place | None = None
    name: str | int = ""

    def path(self) -> str:
        """Return the place as people write it."""
        steps: list[str] = []
        place: _Place | None = self
        while place is not None and place.holder is not None:
            steps.append(f"[{place.name}]" if isinstance(place.name, int) else f".{place.name}")
            place = place.holder
        return "".join(reversed(steps)).removeprefix(".")


def find_fault(data: bytes) -> Fault | None:
    """Return the first value that JSON does not allow, ``None`` when the fault is another."""
    if len(data) > DIAGNOSED_BYTES_MAX or sum(map(data.count, _BEFORE_VALUES)) > DIAGNOSED_VALUES_MAX:
        return None
    try:
        value = json.loads(data.decode(), parse_constant=_Constant)
    except (ValueError, RecursionError):
        return None
    return first_fault(value, _wrong)


def first_fault(value: Any, wrong: Callable[[Any], str | None]) -> Fault | None:
    """Return the first value inside another that is wrong.

    Args:
        value: Made of lists and dictionaries.
        wrong: Says what is wrong with one value itself, if anything is.
    """
    rest: list[tuple[_Place, Any]] = [(_Place(), value)]
    while rest:
        place, inner = rest.pop()
        detail = wrong(inner)
        if detail is not None:
            return Fault(place.path(), detail)
        if isinstance(inner, list):
            rest.extend((_Place(place, number), inner[number]) for number in reversed(range(len(inner))))
        elif isinstance(inner, dict):
            rest.extend((_Place(place, key), item) for key, item in reversed(inner.items()))
    return None


def _wrong(value: Any) -> str | None:
    """Return what is wrong with a value itself, if anything is."""
    if isinstance(value, _Constant):
        return f"JSON has no {value.text}; a number must be finite"
    if isinstance(value, str) and _halved(value):
        return "the text holds half of a surrogate pair, which is no character"
    if isinstance(value, dict) and any(map(_halved, value)):
        return "a key holds half of a surrogate pair, which is no character"
    return None


def _halved(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
