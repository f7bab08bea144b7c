"""Strict decoding of bodies and query strings: errors name the offending field and never echo long input.

Media types and the structure of a body are checked before anything is made of it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray
from starlette.datastructures import Headers

from penstock.http import request_bodies, vendor_records
from penstock.http.json_errors import InvalidField, find_invalid_json
from penstock.http.problem import UnsupportedMediaType
from penstock.http.request_bodies import Ids, PathPrefix
from penstock.indexing.document_records import PATH_CHARACTERS_MAX
from penstock.kernel.access import PATTERNS_MAX
from penstock.kernel.errors import DECODE_ERRORS, Invalid, truncated
from penstock.search.request import CHUNK_NUMBER_MAX, SearchBody
from penstock.stores.data_model import ID_CHARACTERS_MAX
from penstock.stores.sources import INCLUDE_MAX

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

_UTF8: Final = frozenset({"utf-8", "utf8"})


def check_media_type(headers: Headers, accepted: tuple[str, ...]) -> None:
    """Refuse a body of another media type before it is read. A request without a body needs no type.

    Raises:
        UnsupportedMediaType: The type, its charset or its coding is another.
    """
    if headers.get("content-length", "0").strip("0") == "" and "transfer-encoding" not in headers:
        return
    coding = ",".join(headers.getlist("content-encoding")).strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedMediaType(
            f"bodies come as they are, not in the coding {coding[:40]}", "accept-encoding", "identity"
        )
    said = headers.getlist("content-type")
    kind, *parameters = (part.strip().lower() for part in (said[0] if len(said) == 1 else "").split(";"))
    charsets = {
        value.strip('"') for name, _, value in (part.partition("=") for part in parameters) if name == "charset"
    }
    if kind not in accepted or charsets - _UTF8:
        came = f"as {said[0][:80]}" if kind else f"with {len(said)} types" if len(said) > 1 else "without a type"
        detail = f"the body must come as {' or '.join(accepted)} in UTF-8, not {came}"
        raise UnsupportedMediaType(detail, "accept", ", ".join(accepted))


S = TypeVar("S", bound=msgspec.Struct)

#: Documents on one page of a document list at most.
PAGE_DOCUMENTS_MAX: Final = 10_000

#: Chunks of a document read at once at most.
CHUNKS_READ_MAX: Final = 1000


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an endpoint that takes none."""


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query parameters of a page of documents.

    Attributes:
        after: The `next` cursor of the previous page.
        limit: Documents on a page at most.
        path_prefix: List only documents whose path begins with this.
    """

    after: uuid.UUID | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=PAGE_DOCUMENTS_MAX)] = 1000
    path_prefix: Annotated[str, Meta(max_length=PATH_CHARACTERS_MAX)] = ""


class ChunksQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of a document that is read.

    Attributes:
        chunk: Number of the first chunk wanted, from 0: the `next` of the answer before.
        limit: Number of chunks wanted at most.
    """

    chunk: Annotated[int, Meta(ge=0, le=CHUNK_NUMBER_MAX)] = 0
    limit: Annotated[int, Meta(ge=1, le=CHUNKS_READ_MAX)] = 100


class LookupQuery(ChunksQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of a document that is read by its id, whatever characters that has.

    Attributes:
        id: The document's id.
    """

    id: Annotated[str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX)]


class DeleteQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query parameters that select documents to delete, in the place of a body: either ids or a path prefix.

    Attributes:
        ids: An id of a document. May be repeated.
        path_prefix: Prefix of the documents' paths. Not empty.
    """

    ids: Ids | UnsetType = UNSET
    path_prefix: PathPrefix | UnsetType = UNSET


class IndexQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query parameters of documents to index.

    Attributes:
        wait: What is waited for, as in a JSON body, whose own `wait` comes first. `false`: for nothing; a task does
            the work.
    """

    wait: Literal["words", "vectors", "false"] = "vectors"


class SourcesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query parameters of a list of sources.

    Attributes:
        collection: List only the sources of this collection.
    """

    collection: str | UnsetType = UNSET


class SourceQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query parameters that name a source's collection.

    Attributes:
        collection: The source's collection.
    """

    collection: str = "default"


def decode_query(text: bytes, record_type: type[S]) -> S:
    """Decode a query string.

    A parameter may be repeated only where it is a list. Unknown parameters are refused like unknown fields of a body,
    so a misspelt one never passes unnoticed.

    Raises:
        Invalid: With the parameter's name as its field.
    """
    known, lists = record_type.__struct_fields__, _lists(record_type)
    said: dict[str, Any] = {}
    for name, value in _pairs(text):
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise Invalid(
                f"there is no query parameter {truncated(name)!r} here; {takes}", field=truncated(name) or "query"
            )
        if name in lists:
            said.setdefault(name, []).append(value)
        elif name in said:
            raise Invalid(f"{name} is given twice; give it once", field=name)
        else:
            said[name] = value
    return convert_query(said, record_type)


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


#: Read at once, in well under a millisecond and a megabyte.
SLICE_BYTES: Final = 1 << 14

_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")

_COMMA: Final = 1
_OPENING: Final = 2
_CLOSING: Final = 3

#: The kind of each byte outside of strings; 0 for those that are no structure.
_KIND_BY_BYTE: Final = np.zeros(256, np.uint8)
_KIND_BY_BYTE[ord(",")] = _COMMA
_KIND_BY_BYTE[[ord("["), ord("{")]] = _OPENING
_KIND_BY_BYTE[[ord("]"), ord("}")]] = _CLOSING

#: How each kind changes the depth.
_DEPTH_STEPS: Final = np.array([0, 0, 1, -1])


class StructuralIndex(NamedTuple):
    """The commas and brackets of a slice that lie outside of strings.

    Attributes:
        offsets: Their places in the text.
        kinds: What each is.
        depths: The depth behind each.
    """

    offsets: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    depths: NDArray[np.int64]


async def exceeds_values(data: bytes, values_max: int) -> bool:
    """Return whether a text holds more than about ``values_max`` values: an empty list or object counts as two.

    Bounds: memory for one slice; it stops where there are too many.
    """
    if len(data) <= SLICE_BYTES and data.count(b",") + data.count(b"[") + data.count(b"{") < values_max:
        return False
    count = 1
    for marks in _scan_slices(data):
        count += int(np.count_nonzero(marks.kinds != _CLOSING))
        if count > values_max:
            return True
        await asyncio.sleep(0)
    return False


async def split_elements(data: memoryview, elements_max: int) -> list[tuple[int, int]] | None:
    """Return where each element of a list begins and ends, ``None`` if there are more than ``elements_max``.

    Args:
        data: A list as JSON, from bracket to bracket.
        elements_max: Elements at most.

    Bounds: memory for one slice and the elements found.
    """
    begins, found = 1, list[tuple[int, int]]()
    for marks in _scan_slices(data):
        ends_list = (marks.kinds == _CLOSING) & (marks.depths == 0)
        ends = (marks.kinds == _COMMA) & (marks.depths == 1) | ends_list
        for place in marks.offsets[ends].tolist():
            found.append((begins, place))
            begins = place + 1
            if len(found) > elements_max:
                return None
        if ends_list.any():
            break
        await asyncio.sleep(0)
    empty = len(found) == 1 and not bytes(data[slice(*found[0])]).strip()
    return [] if empty else found


def _scan_slices(data: bytes | memoryview) -> Iterator[StructuralIndex]:
    quoted, escaped, depth = False, False, 0
    for first in range(0, len(data), SLICE_BYTES):
        text = np.frombuffer(data, np.uint8, min(SLICE_BYTES, len(data) - first), first)
        quotes, escaped = _quotes(text, escaped=escaped)
        inside = np.logical_xor.accumulate(quotes) ^ quoted
        quoted = bool(inside[-1])
        kinds = np.where(inside, np.uint8(0), _KIND_BY_BYTE[text])
        places = np.flatnonzero(kinds)
        kinds = kinds[places]
        depths = depth + np.cumsum(_DEPTH_STEPS[kinds])
        depth = int(depths[-1]) if len(depths) else depth
        yield StructuralIndex(places + first, kinds, depths)


def _quotes(text: NDArray[np.uint8], *, escaped: bool) -> tuple[NDArray[np.bool_], bool]:
    """Return which bytes begin or end a string, and whether the byte after the last is escaped.

    In a run of backslashes every other one escapes what follows it.

    Args:
        text: A slice.
        escaped: Whether its first byte is.
    """
    quotes = text == _QUOTE
    slashes = np.flatnonzero(text == _BACKSLASH)
    if escaped:
        quotes[0] = False
        if len(slashes) and slashes[0] == 0:
            slashes = slashes[1:]
    if not len(slashes):
        return quotes, False
    runs = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
    lengths = np.diff(runs, append=len(slashes))
    place_in_run = np.arange(len(slashes)) - np.repeat(runs, lengths)
    after = slashes[place_in_run % 2 == 0] + 1
    ends_escaped = bool(after[-1] == len(text))
    quotes[after[:-1] if ends_escaped else after] = False
    return quotes, ends_escaped


T = TypeVar("T")

#: Values in a body beside those of the list that its bound speaks of: its own fields, with room to say what is wrong.
_FIELDS_MAX: Final = 32

#: The field of each body that may grow, and how many values it may hold at most, inner ones included. Beyond them the
#: body is refused before any object is made of it; for a filter of a few too many the key is still named.
_BODY_LISTS: Final[dict[type, tuple[str, int]]] = {
    SearchBody: ("filter", 4096),
    request_bodies.TextsBody: ("texts", request_bodies.TEXTS_MAX),
    request_bodies.RerankBody: ("texts", request_bodies.TEXTS_MAX),
    request_bodies.DeleteBody: ("ids", request_bodies.IDS_MAX),
    request_bodies.SourceBody: ("include", INCLUDE_MAX),
    request_bodies.KeyBody: ("collections", PATTERNS_MAX),
    vendor_records.OpenAiEmbeddingsBody: ("input", vendor_records.INPUTS_MAX),
    vendor_records.CohereRerankBody: ("documents", request_bodies.TEXTS_MAX),
    # Each document may be an object.
    vendor_records.JinaRerankBody: ("documents", 2 * request_bodies.TEXTS_MAX),
    vendor_records.TeiEmbedBody: ("inputs", request_bodies.TEXTS_MAX),
    vendor_records.TeiSparseBody: ("inputs", request_bodies.TEXTS_MAX),
    vendor_records.TeiRerankBody: ("texts", request_bodies.TEXTS_MAX),
}

#: A longer message of the decoder holds what the caller wrote.
_SENTENCE_CHARACTERS_MAX: Final = 200

_UNKNOWN: Final = "Object contains unknown field `"
_MISSING: Final = "Object missing required field `"
_EXPECTED: Final = "Expected `"
#: JSON's names of the types that the decoder names as Python does.
_JSON_NAMES: Final = {"float": "number", "int": "whole number", "str": "string", "bool": "boolean"}
#: Separator in front of the path, at the end of the decoder's message.
_PATH_SEPARATOR: Final = " - at `"


async def decode_body(data: bytes, *record_types: type[T]) -> T:
    """Decode a body of few values, counted first.

    Args:
        data: The text.
        record_types: What it may be: the first of them whose required fields it has, else the first.

    Raises:
        Invalid: With the field; code ``malformed`` when it is not JSON at all.
    """
    record_type: type[T] = record_types[0] if len(record_types) == 1 else await _choose_record(data, record_types)
    field, most = _BODY_LISTS.get(record_type, ("body", 0))
    if await exceeds_values(data, most + _FIELDS_MAX):
        raise Invalid(f"there are too many values; {field} may hold {most} at most", field=field)
    return decode_json(data, record_type)


async def _choose_record(data: bytes, record_types: Sequence[Any]) -> Any:
    most = max(_BODY_LISTS[one][1] for one in record_types)
    if await exceeds_values(data, most + _FIELDS_MAX):
        return record_types[0]
    try:
        there = msgspec.json.decode(data, type=dict[str, msgspec.Raw]).keys()
    except DECODE_ERRORS:
        return record_types[0]
    return next((one for one in record_types if there >= _required(one)), record_types[0])


@cache
def _required(record_type: type) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(record_type) if field.required)


def decode_json(
    data: bytes | memoryview | msgspec.Raw, record_type: type[T], field_prefix: str = "", *, locate_error: bool = True
) -> T:
    """Decode JSON in one call. The caller must have bounded the number of its values.

    Args:
        data: The text.
        record_type: What it should be.
        field_prefix: Prefix of the field named in an error, e.g. ``documents[3].`` or ``line 3: ``.
        locate_error: Whether the field is looked for where the text is no JSON. That costs more than to read it.

    Raises:
        Invalid: With the field; code ``malformed`` when it is not JSON at all.
    """
    try:
        return msgspec.json.decode(data, type=record_type)
    except msgspec.ValidationError as error:
        raise _validation_error(str(error), field_prefix) from None
    except DECODE_ERRORS as error:
        fault = find_invalid_json(bytes(data)) if locate_error else None
        raise _json_error(bytes(data), error, field_prefix, fault) from None


def field_path(field_prefix: str, path: str) -> str:
    """Return a field's full path; a path's own index follows its prefix without a dot."""
    return f"{field_prefix}{truncated(path)}" if path else field_prefix.rstrip(".: ") or "body"


def convert_query(value: Any, record_type: type[T]) -> T:
    """Convert query parameters to a record. Numbers arrive as strings.

    Raises:
        Invalid: With the field.
    """
    try:
        return msgspec.convert(value, record_type, strict=False)
    except msgspec.ValidationError as error:
        raise _validation_error(str(error), "") from None


def _json_error(data: bytes, error: Exception, where: str, fault: InvalidField | None) -> Invalid:
    """Return the error for a text that is not JSON, with the field if it was located."""
    if fault is not None:
        return Invalid(fault.detail, field=field_path(where, fault.field), code="malformed")
    what = where.rstrip(".: ") or "the body"
    if not data.strip():
        reason = "it is empty"
    elif isinstance(error, RecursionError):
        reason = "it is nested too deeply"
    elif isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8"
    else:
        reason = str(error)
    return Invalid(f"{what} cannot be read as JSON: {reason}", field=field_path(where, ""), code="malformed")


def _validation_error(message: str, where: str) -> Invalid:
    """Convert the decoder's message to an error with the field's path.

    The message holds an unknown field's name as the caller wrote it. It is split from both ends and never searched
    for a pattern, since a name can look like anything.
    """
    detail, at, path = message.rpartition(_PATH_SEPARATOR)
    if not at or not message.endswith("`"):
        detail, path = message, ""
    detail = detail.replace("`float` that's a multiple of 1.0", "a whole number")
    if detail.startswith(_EXPECTED):
        detail = _with_json_type_names(detail)
    parts = [path.rstrip("`").removeprefix("key in ").removeprefix("$").removeprefix(".")]
    for begins in (_UNKNOWN, _MISSING):
        if detail.startswith(begins):
            name = truncated(detail.removeprefix(begins).removesuffix("`"))
            parts.append(name)
            detail = f"{begins}{name}`"
    if len(detail) > _SENTENCE_CHARACTERS_MAX:
        detail = truncated(detail)
    return Invalid(detail, field=field_path(where, ".".join(part for part in parts if part)))


def _with_json_type_names(detail: str) -> str:
    """Return a sentence about types, which stand between back quotes with bars between, with the names of JSON."""
    pieces = detail.split("`")
    pieces[1::2] = (" | ".join(_JSON_NAMES.get(one, one) for one in types.split(" | ")) for types in pieces[1::2])
    return "`".join(pieces)
