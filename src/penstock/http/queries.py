"""Query strings: decoded as strictly as bodies, with the offending parameter named."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Meta, UnsetType

from penstock.http.bodies import Ids, Path, PathPrefix
from penstock.http.decoding import converted
from penstock.kernel.errors import Invalid, shown

T = TypeVar("T", bound=msgspec.Struct)

#: Heads on one page of a document list at most.
PAGE_MAX: Final = 10_000


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an endpoint that takes none."""


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which documents to list.

    Attributes:
        after: The `next` of the page before.
        limit: Documents on a page.
        path_prefix: Only documents whose path begins so.
    """

    after: uuid.UUID | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 1000
    path_prefix: Path = ""


class DeletionQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which documents to delete, if no body says it: either by ids or by the beginning of their paths.

    Attributes:
        ids: An id; may be given again.
        path_prefix: The beginning of their paths; not empty.
    """

    ids: Ids | UnsetType = UNSET
    path_prefix: PathPrefix | UnsetType = UNSET


def decode_query(text: bytes, kind: type[T]) -> T:
    """Decode a query string.

    A parameter may be repeated only where it is a list. Unknown ones are refused, as unknown fields of a body are: a
    misspelt one never passes unnoticed.

    Args:
        text: What stands behind the question mark.
        kind: What it should be.

    Raises:
        Invalid: With the parameter's name as its field.
    """
    known, lists = kind.__struct_fields__, _lists(kind)
    said: dict[str, Any] = {}
    for name, value in _pairs(text):
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise Invalid(f"there is no query parameter {shown(name)!r} here; {takes}", field=shown(name) or "query")
        if name in lists:
            said.setdefault(name, []).append(value)
        elif name in said:
            raise Invalid(f"{name} is given twice; give it once", field=name)
        else:
            said[name] = value
    return converted(said, kind)


@cache
def _lists(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Return the parameters that may be repeated."""
    return frozenset(field.name for field in msgspec.structs.fields(kind) if _is_list(field.type))


def _is_list(hint: object) -> bool:
    return get_origin(hint) is list or any(map(_is_list, get_args(hint)))


def _pairs(text: bytes) -> Iterator[tuple[str, str]]:
    try:
        yield from parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise Invalid("the query string is not UTF-8 in percent-encoding", field="query") from None
