"""The request's ``filter`` object to the store's conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.kernel.errors import Invalid
from penstock.stores.moments import moment
from penstock.stores.records import Condition, Filter, Match, Prefix, Range, Scalar

_FIELDS: Final = ("id", "path", "language")
_BOUNDS: Final = ("gt", "gte", "lt", "lte")

#: Values in one list at most; more would make a single query arbitrarily dear.
VALUES_MAX: Final = 1000


def parse(filter: Mapping[str, Any]) -> Filter:
    """Return the conditions, all of which must hold.

    Args:
        filter: ``id``, ``path``, ``language`` or ``metadata.<key>`` to a value or a list of
            values; ``path_prefix`` to a string; ``metadata.<key>`` to a range
            (``gt``, ``gte``, ``lt``, ``lte``: numbers, or RFC 3339 times).

    Raises:
        Invalid: Naming the key that cannot be understood.
    """
    return tuple(_condition(key, value) for key, value in filter.items())


def _condition(key: str, value: object) -> Condition:
    where = f"filter.{key}"
    if key == "path_prefix":
        if not isinstance(value, str):
            raise Invalid("path_prefix must be a string", field=where)
        return Prefix("path", value)
    is_metadata = key.startswith("metadata.") and len(key) > len("metadata.")
    if key not in _FIELDS and not is_metadata:
        raise Invalid(
            f"unknown filter {key!r}; there are id, path, path_prefix, language and metadata.<key>",
            field=where,
        )
    if isinstance(value, Mapping):
        if not is_metadata:
            raise Invalid(f"{key} cannot be filtered by a range", field=where)
        return _range(key, value)
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= VALUES_MAX:
        raise Invalid(f"{key} needs 1 to {VALUES_MAX} values", field=where)
    return Match(key, [_scalar(key, v, where) for v in values])


def _scalar(key: str, value: object, where: str) -> Scalar:
    if not isinstance(value, str | int | float | bool):
        raise Invalid(f"{key} is compared with strings, numbers or booleans", field=where)
    if key in _FIELDS and not isinstance(value, str):
        raise Invalid(f"{key} is compared with strings", field=where)
    return value


def _range(key: str, bounds: Mapping[str, Any]) -> Range:
    where = f"filter.{key}"
    if not bounds:
        raise Invalid(f"a range needs at least one of {', '.join(_BOUNDS)}", field=where)
    said = {name: _bound(bound, f"{where}.{name}") for name, bound in bounds.items() if _known(name, where)}
    if len({isinstance(bound, str) for bound in said.values()}) != 1:
        raise Invalid("the bounds of a range are either all numbers or all times", field=where)
    return Range(key, **said)


def _known(name: str, where: str) -> bool:
    if name not in _BOUNDS:
        raise Invalid(f"a range has {', '.join(_BOUNDS)}", field=f"{where}.{name}")
    return True


def _bound(bound: object, where: str) -> float | str:
    """Return a bound: a number, or a time in the store's form."""
    if isinstance(bound, str):
        when = moment(bound)
        if when is None:
            raise Invalid("a bound is a number, or a time such as 2024-05-01T12:00:00Z", field=where)
        return when
    if not isinstance(bound, int | float) or isinstance(bound, bool):
        raise Invalid("a bound is a number, or a time such as 2024-05-01T12:00:00Z", field=where)
    return bound
