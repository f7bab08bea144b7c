"""Filters of a search: what a request may say, and the conditions that it means. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.kernel.errors import Invalid, truncated
from penstock.stores.data_model import Condition, Filter, Match, Prefix, Range, Scalar, out_of_range_reason
from penstock.stores.timestamps import to_utc_rfc3339

_FIELDS: Final = ("id", "path", "language", "source")
_BOUNDS: Final = ("gt", "gte", "lt", "lte")

#: Keys of one filter at most. Each is a look-up of its own for every arm and stage of a search.
KEYS_MAX: Final = 64

#: Values in one filter at most; more would make a single query arbitrarily expensive.
VALUES_MAX: Final = 1000

#: Characters of a key and of a string that is compared. Metadata of a document is not larger than the latter.
KEY_CHARACTERS_MAX: Final = 1024
VALUE_CHARACTERS_MAX: Final = 65_536

#: Characters of a language's name at most, as in a document. Putting it into lower case is slow: 10 MB take up to .2 s.
LANGUAGE_CHARACTERS_MAX: Final = 64

#: Characters of a path at most, and so of its beginning.
PREFIX_CHARACTERS_MAX: Final = 4096


def _one_or_several(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "array", "items": kind, "minItems": 1, "maxItems": VALUES_MAX}]}


def _bounded_by(kind: dict[str, Any]) -> dict[str, Any]:
    bounds = dict.fromkeys(_BOUNDS, kind)
    return {"type": "object", "properties": bounds, "minProperties": 1, "additionalProperties": False}


_TEXT: Final = {"type": "string", "maxLength": VALUE_CHARACTERS_MAX}
_LANGUAGE: Final = {"type": "string", "maxLength": LANGUAGE_CHARACTERS_MAX}
_PREFIX: Final = {"type": "string", "maxLength": PREFIX_CHARACTERS_MAX}
_TIME: Final = {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}
_VALUES: Final = _one_or_several({"type": ["string", "number", "boolean"]})

#: JSON Schema of the filters that :func:`parse_filter` accepts.
FILTER_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "maxProperties": KEYS_MAX,
    "properties": {
        "id": _one_or_several(_TEXT),
        "path": _one_or_several(_TEXT),
        "language": _one_or_several(_LANGUAGE),
        "path_prefix": _PREFIX,
        "source": _one_or_several(_TEXT),
    },
    "patternProperties": {
        r"^metadata\.[\s\S]": {"anyOf": [*_VALUES["anyOf"], _bounded_by({"type": "number"}), _bounded_by(_TIME)]}
    },
    "additionalProperties": False,
}


def parse_filter(filter: Mapping[str, Any], normalize_language: Callable[[str], str] = str.lower) -> Filter:
    """Return the conditions, all of which must hold.

    Args:
        filter: ``id``, ``path``, ``language``, ``source`` or ``metadata.<key>`` to a value or a list of
            values; ``path_prefix`` to a string; ``metadata.<key>`` to a range
            (``gt``, ``gte``, ``lt``, ``lte``: numbers, or RFC 3339 times).
        normalize_language: Gives a language the name under which it is kept.

    Raises:
        Invalid: A key is not allowed, which is named, or the filter is too large.
    """
    if len(filter) > KEYS_MAX:
        raise Invalid(f"a filter has at most {KEYS_MAX} keys, and this one {len(filter)}", field="filter")
    conditions = tuple(_condition(key, value, normalize_language) for key, value in filter.items())
    values = sum(len(one.values) for one in conditions if isinstance(one, Match))
    if values > VALUES_MAX:
        raise Invalid(f"a filter has at most {VALUES_MAX} values over all its keys", field="filter")
    return conditions


def parse_path_prefix(value: object, field: str) -> Prefix:
    """Return the condition that a path begins with a string.

    Raises:
        Invalid: It is no string, or longer than any path.
    """
    if not isinstance(value, str):
        raise Invalid("path_prefix must be a string", field=field)
    if len(value) > PREFIX_CHARACTERS_MAX:
        raise Invalid(f"path_prefix has at most {PREFIX_CHARACTERS_MAX} characters", field=field)
    return Prefix("path", value)


def _condition(key: str, value: object, named: Callable[[str], str]) -> Condition:
    where = f"filter.{truncated(key)}"
    if key == "path_prefix":
        return parse_path_prefix(value, where)
    is_metadata = key.startswith("metadata.") and len(key) > len("metadata.")
    if key not in _FIELDS and not is_metadata:
        raise Invalid(
            f"unknown filter {truncated(key)!r}; there are id, path, path_prefix, language, source and metadata.<key>",
            field=where,
        )
    if len(key) > KEY_CHARACTERS_MAX:
        raise Invalid(f"a key has at most {KEY_CHARACTERS_MAX} characters", field=where)
    if isinstance(value, Mapping):
        if not is_metadata:
            raise Invalid(f"{key} cannot be filtered by a range", field=where)
        return _range(key, value)
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= VALUES_MAX:
        raise Invalid(f"{truncated(key)} needs 1 to {VALUES_MAX} values", field=where)
    scalars = [_scalar(key, v, where) for v in values]
    return Match(key, _languages(scalars, named) if key == "language" else scalars)


def _languages(values: list[Scalar], named: Callable[[str], str]) -> list[Scalar]:
    """Return languages as documents store them: normalised, and in lower case as earlier releases stored them."""
    spelled = (str(value) for value in values)
    return list(dict.fromkeys(name for value in spelled for name in (named(value), value.lower())))


def _scalar(key: str, value: object, where: str) -> Scalar:
    if not isinstance(value, str | int | float | bool):
        raise Invalid(f"{truncated(key)} is compared with strings, numbers or booleans", field=where)
    if key in _FIELDS and not isinstance(value, str):
        raise Invalid(f"{key} is compared with strings", field=where)
    most = LANGUAGE_CHARACTERS_MAX if key == "language" else VALUE_CHARACTERS_MAX
    if isinstance(value, str) and len(value) > most:
        raise Invalid(f"a value has at most {most} characters", field=where)
    if (wrong := out_of_range_reason(value)) is not None:
        raise Invalid(wrong, field=where)
    return value


def _range(key: str, bounds: Mapping[str, Any]) -> Range:
    where = f"filter.{truncated(key)}"
    if not bounds:
        raise Invalid(f"a range needs at least one of {', '.join(_BOUNDS)}", field=where)
    said = {name: _bound(name, bound, where) for name, bound in bounds.items()}
    if len({isinstance(bound, str) for bound in said.values()}) != 1:
        raise Invalid("the bounds of a range are either all numbers or all times", field=where)
    return Range(key, **said)


def _bound(name: str, bound: object, where: str) -> float | str:
    """Return a bound of a range: a number, or a time in the store's form."""
    if name not in _BOUNDS:
        raise Invalid(f"a range has {', '.join(_BOUNDS)}", field=f"{where}.{truncated(name)}")
    value: float | str | None = None
    if isinstance(bound, str):
        value = to_utc_rfc3339(bound)
    elif isinstance(bound, int | float) and not isinstance(bound, bool):
        value = bound
    if value is None:
        raise Invalid("a bound is a number, or a time such as 2024-05-01T12:00:00Z", field=f"{where}.{name}")
    if (wrong := out_of_range_reason(value)) is not None:
        raise Invalid(wrong, field=f"{where}.{name}")
    return value
