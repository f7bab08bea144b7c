"""Parsing and formatting of settings' values as people write them (``30s``, ``10MB``, ``yes``)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from penstock.kernel.redaction import redact_url
from penstock.kernel.setting_spec import SettingSpec, SettingUnit

SettingValue = int | float | str | bool

_MS_PER: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_BYTES_PER: Final = {
    "b": 1,
    **{f"{letter}{tail}": 1000 ** (n + 1) for n, letter in enumerate("kmgt") for tail in ("", "b")},
    **{f"{letter}{tail}": 1024 ** (n + 1) for n, letter in enumerate("kmgt") for tail in ("i", "ib")},
}
_SHOWN_SIZES: Final = ("TB", "GB", "MB", "KB", "TiB", "GiB", "MiB", "KiB")
_FLAGS: Final = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)

# Digits are bounded: a number that long is a mistake, and Python refuses to read 4300 of them.
_NUMBER: Final = r"[0-9]{1,20}+(?:\.[0-9]{1,20}+)?"
_DURATION_PART: Final = re.compile(rf"({_NUMBER})(ms|s|m|h)")
_DURATION: Final = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h)){{1,8}}")
_SIZE: Final = re.compile(rf"({_NUMBER})\s*([a-zA-Z]{{0,3}})")
_PLAIN: Final = re.compile(_NUMBER)
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}")

#: A larger number of YAML's is a mistake, and may be too large for a float.
FLOAT_MAX: Final = 1e18
#: Characters of a value that an error shows.
QUOTED_CHARS_MAX: Final = 100

#: Shown in the place of a secret that is set.
SECRET_PLACEHOLDER: Final = "(set)"  # noqa: S105 - a name


def parse_text(text: str, spec: SettingSpec) -> SettingValue:
    """Read a value from an environment variable or a flag.

    Returns:
        The value in the unit's base (seconds, bytes, items), within its bounds.

    Raises:
        ValueError: It cannot be used; the message says why.
    """
    text = text.strip()
    if not text.isascii() and not is_unicode(text):
        raise ValueError(f"{_quoted(text, spec)} is not UTF-8")
    value = _KINDS[spec.unit].read(text)
    if value is None:
        raise ValueError(f"{_quoted(text, spec)} is not {_KINDS[spec.unit].expected}")
    return _within(value, spec, text)


def parse_yaml(value: object, spec: SettingSpec) -> SettingValue:
    """Check a value that YAML has typed already.

    Returns:
        The value in the unit's base, within its bounds.

    Raises:
        ValueError: It cannot be used; the message says why.
    """
    if value is None:
        raise ValueError("has no value")
    kind = _KINDS[spec.unit]
    # By exact type: to Python, but to no person, true is a whole number.
    if isinstance(value, str) and str in kind.yaml:
        return parse_text(value, spec)
    if type(value) in kind.yaml and isinstance(value, int | float):
        if float not in kind.yaml:
            return _within(value, spec, str(value))
        if abs(value) < FLOAT_MAX:
            return _within(float(value), spec, str(value))
    # A key of digits only that YAML took for a number is a secret all the same.
    raise ValueError(f"{_quoted(value, spec)} is not {kind.expected}")


def format_value(value: SettingValue, unit: SettingUnit) -> str:
    """Return the value as a person would write it; reading it again gives the same value, but for one with a secret."""
    return _KINDS[unit].show(value)


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


def _number(text: str) -> float | None:
    return float(text) if _PLAIN.fullmatch(text) else None


def _duration(text: str) -> float | None:
    if not _DURATION.fullmatch(text):
        return _number(text)
    parts = _DURATION_PART.findall(text)
    return float(sum(Decimal(number) * _MS_PER[unit] for number, unit in parts) / 1000)


def _size(text: str) -> int | None:
    found = _SIZE.fullmatch(text)
    factor = _BYTES_PER.get(found[2].lower() or "b") if found is not None else None
    if found is None or factor is None:
        return None
    size = Decimal(found[1]) * factor
    return int(size) if size == size.to_integral_value() else None


def _within(value: SettingValue, spec: SettingSpec, said: str) -> SettingValue:
    """Return a value that is within its bounds; ``said`` is what the person wrote."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _allowed(value, spec)
    # Written so that NaN, which compares false with everything, is out of bounds too.
    if not spec.at_least <= value <= spec.at_most:
        bounds = (int(bound) if float(bound).is_integer() else bound for bound in (spec.at_least, spec.at_most))
        least, most = (format_value(bound, spec.unit) for bound in bounds)
        raise ValueError(f"must be between {least} and {most}, not {said}")
    return value


def _allowed(text: str, spec: SettingSpec) -> str:
    if spec.choices:
        # Other programs write LOG_LEVEL in capitals.
        found = {choice.lower(): choice for choice in spec.choices}.get(text.lower())
        if found is None:
            raise ValueError(f"{_quoted(text, spec)} is none of {', '.join(spec.choices)}")
        return found
    if len(text) > spec.at_most or "\0" in text:
        raise ValueError(f"{_quoted(text, spec)} is longer than {spec.at_most:.0f} characters or holds a NUL")
    return text


def _quoted(value: object, spec: SettingSpec) -> str:
    """Return a value as an error shows it: quoted, short, and nothing of a secret."""
    if spec.confidential:
        return "its value"
    quoted = repr(value)
    return quoted if len(quoted) <= QUOTED_CHARS_MAX else f"{quoted[:QUOTED_CHARS_MAX]}…"


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8: what was not UTF-8 arrives with surrogates in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _duration_shown(value_s: float) -> str:
    exact_ms = Decimal(repr(value_s)) * 1000
    for unit in ("h", "m", "s", "ms"):
        amount = exact_ms / _MS_PER[unit]
        if amount == amount.to_integral_value() and amount >= 1:
            return f"{int(amount)}{unit}"
    return f"{exact_ms / 1000:f}s"


def _size_shown(size: int) -> str:
    for unit in _SHOWN_SIZES:
        if size and size % _BYTES_PER[unit.lower()] == 0:
            return f"{size // _BYTES_PER[unit.lower()]}{unit}"
    return str(size)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Reading and writing of the values of one unit.

    Attributes:
        expected: What a value should be, for errors.
        read: Reads a text; ``None`` for one that is something else.
        yaml: Types of YAML scalars that are taken.
        show: Writes a value as a person would.
    """

    expected: str
    read: Callable[[str], SettingValue | None]
    yaml: tuple[type, ...]
    show: Callable[[Any], str] = str


_KINDS: Final = {
    SettingUnit.COUNT: _Kind("a whole number", _whole, (int,)),
    SettingUnit.NUMBER: _Kind("a number", _number, (int, float)),
    SettingUnit.DURATION: _Kind(
        "a duration such as 30s, 500ms, 5m or 1h", _duration, (str, int, float), _duration_shown
    ),
    SettingUnit.SIZE: _Kind("a size such as 10MB, 256KiB or a number of bytes", _size, (str, int), _size_shown),
    SettingUnit.TEXT: _Kind("text", str, (str,)),
    SettingUnit.SECRET: _Kind("text", str, (str,), lambda value: SECRET_PLACEHOLDER if value else ""),
    SettingUnit.ADDRESS: _Kind("text", str, (str,), redact_url),
    SettingUnit.FLAG: _Kind(
        "true or false", lambda text: _FLAGS.get(text.lower()), (bool,), lambda value: "true" if value else "false"
    ),
}
