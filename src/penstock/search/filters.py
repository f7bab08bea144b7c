"""The request's ``filter`` object to the store's conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.kernel.errors import Invalid
from penstock.stores.contract import Condition, Filter, Match, Prefix, Range, Scalar

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
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Invalid("integers must fit in 64 bits", field=where)
    return value


def _range(key: str, bounds: Mapping[str, Any]) -> Range:
    where = f"filter.{key}"
    unknown = [name for name in bounds if name not in _BOUNDS]
    if unknown or not bounds:
        raise Invalid(f"a range has {', '.join(_BOUNDS)}", field=where)
    kinds = {isinstance(bound, str) for bound in bounds.values()}
    numeric = all(isinstance(bound, str | int | float) and not isinstance(bound, bool) for bound in bounds.values())
    if len(kinds) != 1 or not numeric:
        raise Invalid("bounds are numbers, or RFC 3339 times as strings", field=where)
    return Range(key, **bounds)
