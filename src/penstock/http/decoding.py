"""Request bodies from their bytes: decoded strictly, the offending field named, and nothing echoed at length."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from penstock.http import bodies
from penstock.http.diagnosis import Fault, find_fault
from penstock.http.structure import values_exceed
from penstock.kernel.errors import UNREADABLE, Invalid, shown

T = TypeVar("T")

#: Values in a body beside those of the list that its bound speaks of: its own fields, with room to say what is wrong.
_FIELDS_MAX: Final = 32

#: The field of each body that may grow, and how many values it may hold at most, inner ones included. Beyond them the
#: body is refused before any object is made of it; a filter of a few too many is still told which key it is.
_GROWING: Final[dict[type, tuple[str, int]]] = {
    bodies.SearchBody: ("filter", 4096),
    bodies.EmbedBody: ("texts", bodies.TEXTS_MAX),
    bodies.SparseBody: ("texts", bodies.TEXTS_MAX),
    bodies.RerankBody: ("texts", bodies.TEXTS_MAX),
    bodies.DeleteBody: ("ids", bodies.IDS_MAX),
}

#: A longer sentence of the decoder's holds what the caller wrote.
_SENTENCE_CHARACTERS_MAX: Final = 200

_UNKNOWN: Final = "Object contains unknown field `"
_MISSING: Final = "Object missing required field `"
_EXPECTED: Final = "Expected `"
#: What JSON calls the types that the decoder names as Python does.
_JSON_NAMES: Final = {"float": "number", "int": "whole number", "str": "string", "bool": "boolean"}
#: How the decoder says where, at the end of its sentence.
_AT: Final = " - at `"


async def read(data: bytes, kind: type[T]) -> T:
    """Decode a body of few values, counted first.

    Raises:
        Invalid: With the field; code ``malformed`` when it is not JSON at all.
    """
    field, most = _GROWING.get(kind, ("body", 0))
    if await values_exceed(data, most + _FIELDS_MAX):
        raise Invalid(f"there are too many values; {field} may hold {most} at most", field=field)
    return decode(data, kind)


def decode(data: bytes | memoryview | msgspec.Raw, kind: type[T], where: str = "", *, diagnosed: bool = True) -> T:
    """Decode JSON in one go; whoever calls it has bounded what may be in it.

    Args:
        data: The text.
        kind: What it should be.
        where: Prefix of the field named in an error, e.g. ``documents[3].`` or ``line 3: ``.
        diagnosed: Whether the field is looked for where the text is no JSON. That costs more than to read it.

    Raises:
        Invalid: With the field; code ``malformed`` when it is not JSON at all.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _validation(str(error), where) from None
    except UNREADABLE as error:
        fault = find_fault(bytes(data)) if diagnosed else None
        raise _malformed(bytes(data), error, where, fault) from None


def whole_number(text: str, field: str, most: int) -> int:
    """Return the number from 1 to ``most`` that a header or a query parameter says.

    Raises:
        Invalid: It says something else.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise Invalid(f"{field} must be a whole number between 1 and {most}", field=field)
    return int(text)


def field_of(where: str, path: str) -> str:
    """Return a field's full path; a path's own index follows its prefix without a dot."""
    return f"{where}{shown(path)}" if path else where.rstrip(".: ") or "body"


def converted(value: Any, kind: type[T]) -> T:
    """Return what came as query parameters as a record; a number arrives as its digits.

    Raises:
        Invalid: With the field.
    """
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _validation(str(error), "") from None


def _malformed(data: bytes, error: Exception, where: str, fault: Fault | None) -> Invalid:
    """Say why it is not JSON, naming the field where that has been found out."""
    if fault is not None:
        return Invalid(fault.detail, field=field_of(where, fault.field), code="malformed")
    what = where.rstrip(".: ") or "the body"
    if not data.strip():
        reason = "it is empty"
    elif isinstance(error, RecursionError):
        reason = "it is nested too deeply"
    elif isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8"
    else:
        reason = str(error)
    return Invalid(f"{what} cannot be read as JSON: {reason}", field=field_of(where, ""), code="malformed")


def _validation(message: str, where: str) -> Invalid:
    """Turn the decoder's sentence into ours, with the field's path.

    The sentence holds an unknown field's name as the caller wrote it. It is taken apart from both ends and never
    searched for a pattern: a name can look like anything.
    """
    detail, at, path = message.rpartition(_AT)
    if not at or not message.endswith("`"):
        detail, path = message, ""
    detail = detail.replace("`float` that's a multiple of 1.0", "a whole number")
    if detail.startswith(_EXPECTED):
        detail = _in_words_of_json(detail)
    parts = [path.rstrip("`").removeprefix("key in ").removeprefix("$").removeprefix(".")]
    for begins in (_UNKNOWN, _MISSING):
        if detail.startswith(begins):
            name = shown(detail.removeprefix(begins).removesuffix("`"))
            parts.append(name)
            detail = f"{begins}{name}`"
    if len(detail) > _SENTENCE_CHARACTERS_MAX:
        detail = shown(detail)
    return Invalid(detail, field=field_of(where, ".".join(part for part in parts if part)))


def _in_words_of_json(detail: str) -> str:
    """Return a sentence about types, which stand between back quotes with bars between, with the names of JSON."""
    pieces = detail.split("`")
    pieces[1::2] = (" | ".join(_JSON_NAMES.get(one, one) for one in types.split(" | ")) for types in pieces[1::2])
    return "`".join(pieces)
