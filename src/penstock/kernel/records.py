"""Base and field types of the records that requests are decoded into; ``null`` stands for a field's default."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

#: A wish for a deadline may not exceed an hour.
TIMEOUT_MS_MAX: Final = 3_600_000

#: A whole number, with or without a point: clients whose only number is a float write ``5.0``, and JSON Schema calls
#: that an integer.
WholeNumber = Annotated[float, Meta(multiple_of=1)]
TimeoutMs = Annotated[WholeNumber, Meta(ge=1, le=TIMEOUT_MS_MAX)]

if TYPE_CHECKING:
    #: Once the record is made, the field is never ``None``.
    OrNull = Annotated[T, "or null"]
else:
    # What the decoder and the schema see.
    OrNull = T | None


class NullAsDefault(msgspec.Struct, frozen=True):
    """Base of records whose fields of type ``OrNull`` take ``null`` for their default."""

    def __post_init__(self) -> None:
        for name, default in _defaults(type(self)):
            if getattr(self, name) is None:
                msgspec.structs.force_setattr(self, name, default())


@cache
def _defaults(kind: type[NullAsDefault]) -> list[tuple[str, Callable[[], Any]]]:
    """Return the fields with a default that is not ``None``, and what makes it."""
    made: list[tuple[str, Callable[[], Any]]] = []
    for field in msgspec.structs.fields(kind):
        if field.default_factory is not msgspec.NODEFAULT:
            made.append((field.name, field.default_factory))
        elif field.default is not msgspec.NODEFAULT and field.default is not None:
            made.append((field.name, partial(_same, field.default)))
    return made


def _same(value: T) -> T:
    return value
