"""Parsing and formatting of settings' values as people write them (``30s``, ``10MB``, ``yes``)."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from penstock.kernel.redaction import redact_url
from penstock.kernel.settings import SettingSpec, SettingUnit

SettingValue = int | float | str | bool

_MS_PER: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_BYTES_PER: Final = {
    "b": 1,
    **{f"{letter}{tail}": 1000 ** (n + 1) for n, letter in enumerate("kmgt") for tail in ("", "b")},
    **{f"{letter}{tail}": 1024 ** (n + 1) for n, letter in enumerate("kmgt") for tail in ("i", "ib")},
}
_SHOWN_SIZES: Final = ("TB", "GB", "MB", "KB", "TiB", "GiB", "MiB", "KiB")
_WORDS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}

# Digits are bounded: a number that long is a mistake, and Python refuses to read 4300 of them.
_NUMBER: Final = r"[0-9]{1,20}+(?:\.[0-9]{1,20}+)?"
_DURATION_PART: Final = re.compile(rf"({_NUMBER})(ms|s|m|h)")
_DURATION: Final = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h)){{1,8}}")
_SIZE: Final = re.compile(rf"({_NUMBER})\s*([a-zA-Z]{{0,3}})")
_PLAIN: Final = re.compile(_NUMBER)
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}")

#: Characters of a value that an error shows.
QUOTED_CHARS_MAX: Final = 100

#: Shown in the place of a secret that is set.
SECRET_PLACEHOLDER: Final = "(set)"  # noqa: S105 - a name

_TEXTS: Final = frozenset({SettingUnit.TEXT, SettingUnit.SECRET, SettingUnit.ADDRESS})
_EXPECTED: Final = {
    SettingUnit.COUNT: "a whole number",
    SettingUnit.NUMBER: "a number",
    SettingUnit.DURATION: "a duration such as 30s, 500ms, 5m or 1h",
    SettingUnit.SIZE: "a size such as 10MB, 256KiB or a number of bytes",
    SettingUnit.TEXT: "text",
    SettingUnit.SECRET: "text",
    SettingUnit.ADDRESS: "text",
    SettingUnit.FLAG: "true or false",
}


def parse_text(text: str, spec: SettingSpec) -> SettingValue:
    """Read a value from an environment variable or a flag.

    Args:
        text: As the person wrote it.
        spec: What is known about the setting.

    Returns:
        The value in the unit's base (seconds, bytes, items), within its bounds.

    Raises:
        ValueError: It cannot be used; the message says why.
    """
    text = text.strip()
    if not text.isascii() and not is_unicode(text):
        raise ValueError(f"{_quoted(text, spec)} is not UTF-8")
    value = _read(text, spec.unit)
    if value is None:
        raise ValueError(f"{_quoted(text, spec)} is not {_EXPECTED[spec.unit]}")
    return _within(value, spec, text)


def parse_yaml(value: object, spec: SettingSpec) -> SettingValue:
    """Check a value that YAML has typed already.

    Args:
        value: What the YAML scalar was resolved to.
        spec: What is known about the setting.

    Returns:
        The value in the unit's base, within its bounds.

    Raises:
        ValueError: It cannot be used; the message says why.
    """
    if value is None:
        raise ValueError("has no value")
    unit = spec.unit
    if isinstance(value, str) and unit in {SettingUnit.DURATION, SettingUnit.SIZE, *_TEXTS}:
        return parse_text(value, spec)
    if isinstance(value, bool):
        if unit is SettingUnit.FLAG:
            return value
    elif isinstance(value, int) and unit in {SettingUnit.COUNT, SettingUnit.SIZE}:
        return _within(value, spec, str(value))
    elif isinstance(value, int | float) and unit in {SettingUnit.DURATION, SettingUnit.NUMBER} and abs(value) < 1e18:
        return _within(float(value), spec, str(value))
    # A key of digits only that YAML took for a number is a secret all the same.
    raise ValueError(f"{_quoted(value, spec)} is not {_EXPECTED[unit]}")


def format_value(value: SettingValue, unit: SettingUnit) -> str:
    """Return the value as a person would write it; reading it again gives the same value, but for one with a secret."""
    if unit is SettingUnit.SECRET:
        return SECRET_PLACEHOLDER if value else ""
    if unit is SettingUnit.FLAG:
        return "true" if value else "false"
    if isinstance(value, str):
        return redact_url(value) if unit is SettingUnit.ADDRESS else value
    if unit is SettingUnit.DURATION:
        return _duration_shown(float(value))
    if unit is SettingUnit.SIZE:
        return _size_shown(int(value))
    return str(value)


def _read(text: str, unit: SettingUnit) -> SettingValue | None:
    if unit in _TEXTS:
        return text
    if unit is SettingUnit.FLAG:
        return _WORDS.get(text.lower())
    if unit is SettingUnit.COUNT:
        return int(text) if _WHOLE.fullmatch(text) else None
    if unit is SettingUnit.SIZE:
        return _size(text)
    if _PLAIN.fullmatch(text):
        return float(text)
    return _duration(text) if unit is SettingUnit.DURATION else None


def _duration(text: str) -> float | None:
    if not _DURATION.fullmatch(text):
        return None
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
        least, most = (_bound(bound, spec.unit) for bound in (spec.at_least, spec.at_most))
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


def _bound(bound: float, unit: SettingUnit) -> str:
    whole = int(bound) if float(bound).is_integer() else bound
    return format_value(whole, unit)


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
