"""Records that read `null` for an optional field as its default, as clients in typed languages write it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

T = TypeVar("T")

if TYPE_CHECKING:
    #: Once the record is made, the field is never ``None``.
    OrNull = Annotated[T, "or null"]
else:
    # What the decoder and the schema see.
    OrNull = T | None


class Defaulted(msgspec.Struct, frozen=True):
    """Base of records whose fields of type ``OrNull`` take ``null`` for their default."""

    def __post_init__(self) -> None:
        for name, default in _defaults(type(self)):
            if getattr(self, name) is None:
                msgspec.structs.force_setattr(self, name, default())


@cache
def _defaults(kind: type[Defaulted]) -> list[tuple[str, Callable[[], Any]]]:
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
