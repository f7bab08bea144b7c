"""Range checks for the fields of settings records."""

from __future__ import annotations

from penstock.kernel.errors import Invalid


def at_least(record: object, least: float, *fields: str) -> None:
    """Refuse a record with a field below ``least``; NaN counts as below.

    Raises:
        Invalid: Names the field, its value and the bound.
    """
    for field in fields:
        value = getattr(record, field)
        if not value >= least:
            raise Invalid(f"{field} must be at least {least:g}, not {value}", field=field)


def within(record: object, least: float, most: float, *fields: str) -> None:
    """Refuse a record with a field outside ``least`` to ``most``.

    Raises:
        Invalid: Names the field, its value and the bounds.
    """
    for field in fields:
        value = getattr(record, field)
        if not least <= value <= most:
            raise Invalid(f"{field} must lie between {least:g} and {most:g}, not {value}", field=field)
