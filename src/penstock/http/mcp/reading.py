"""The tool ``read``: lines of a document, put together from its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from penstock.http.decoding import ChunksQuery
from penstock.http.document_reading import read_document
from penstock.http.mcp.budget import BYTES_PER_TOKEN, cut_text, token_count
from penstock.http.mcp.call import ToolCall
from penstock.http.mcp.records import ReadAnswer, ReadArguments, ToolAnswer
from penstock.http.mcp.rendering import render_read
from penstock.http.responses import DocumentText, StoredChunk
from penstock.kernel.context import Context, Criticality
from penstock.kernel.errors import Invalid, truncated
from penstock.stores.commands import GetDocuments, ListDocuments
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import DocumentInfo, Match

#: Chunks read from the store at once.
CHUNKS_PER_READ: Final = 32
#: Lines between two chunks that are put in as empty ones. More are not blank lines of code, but what is not indexed.
BLANK_LINES_MAX: Final = 50
#: Documents of one path that an error lists.
_IDS_TOLD_MAX: Final = 10
_FRAME_BYTES: Final = 300


class NumberedLine(NamedTuple):
    """A line of a document."""

    number: int
    text: str


async def find_document(store: VectorStore, collection: str, path: str, ctx: Context) -> DocumentInfo:
    """Return the document of an id, else of a path.

    Raises:
        Invalid: There is none (``document_not_found``), or there are several of this path.
    """
    head = (await store.run(GetDocuments(collection, [path]), ctx)).get(path)
    if head is not None:
        return head
    named = path.removeprefix("./")
    there = (await store.run(ListDocuments(collection, (Match("path", [named]),), None, _IDS_TOLD_MAX), ctx)).documents
    if len(there) == 1:
        return there[0]
    if there:
        ids = ", ".join(one.id for one in there)
        raise Invalid(f"several documents have this path; give the `id` of one: {ids}", field="path")
    detail = f"collection {collection!r} has no document {truncated(path)!r}; take `path` or `id` as a hit has it"
    raise Invalid(detail, field="path", code="document_not_found")


async def read_chunk_at(
    store: VectorStore, collection: str, head: DocumentInfo, line: int, ctx: Context
) -> StoredChunk:
    """Return the last chunk of a document that begins at a line or before it; the first one where none does.

    Bounds: about as many reads as the number of chunks has binary digits.
    """
    first, end = 0, max(1, head.chunks)
    while end - first > 1:
        middle = (first + end) // 2
        begins = (await _read_chunks(store, collection, head.id, (middle, 1), ctx)).chunks[0].start_line
        first, end = (middle, end) if begins <= line else (first, middle)
    return (await _read_chunks(store, collection, head.id, (first, 1), ctx)).chunks[0]


async def _read_chunks(
    store: VectorStore, collection: str, id: str, place: tuple[int, int], ctx: Context
) -> DocumentText:
    return await read_document(store, collection, id, ChunksQuery(chunk=place[0], limit=place[1]), ctx)


async def read(call: ToolCall, asked: ReadArguments) -> tuple[ReadAnswer, str]:
    """Read lines of a document; return them and their text form."""
    ctx = call.context(Criticality.STANDARD, call.core.deps.settings.timeouts.search, "read")
    collection = await call.choose_collection(asked.collection, ctx)
    store = call.core.store
    head = await find_document(store, collection, asked.path, ctx)
    first, skipped = _parse_cursor(asked.cursor, asked.start_line or 1)
    last = asked.end_line or 2**31
    if last < first:
        raise Invalid("end_line lies before start_line", field="end_line")
    told = ToolAnswer(freshness=await call.freshness.of([collection], ctx))
    tokens = asked.max_tokens - token_count(_FRAME_BYTES + len(msgspec.json.encode([told, head.id, head.path])))
    chunk = await read_chunk_at(store, collection, head, first, ctx) if first > 1 else None
    lines = list[NumberedLine]()
    number, language, size, more = chunk.chunk if chunk is not None else 0, "", 0, True
    # Also the chunks before that hold parts of the same over-long line.
    while more and size <= tokens * BYTES_PER_TOKEN + skipped and (not lines or lines[-1].number < last):
        found = await _read_chunks(store, collection, head.id, (number, CHUNKS_PER_READ), ctx)
        language = found.language
        for one in found.chunks:
            size += len(one.text.encode("utf-8", "replace"))
            lines = append_chunk(lines, one)
        more = found.next is not None
        number = found.next or 0
    wanted = [one for one in lines if first <= one.number <= last]
    if not wanted:
        raise Invalid(f"the document has no text from line {first} on", field="start_line")
    shown, rest, at = fit_lines(wanted, skipped, tokens)
    omitted = len(wanted) - len(shown)
    answer = ReadAnswer(
        path=head.path,
        id=head.id,
        collection=collection,
        language=language,
        start_line=shown[0].number,
        end_line=shown[-1].number,
        text="\n".join(one.text for one in shown),
        freshness=told.freshness,
        truncated=rest is not None,
        omitted=omitted,
        cursor=None if rest is None else f"{rest}.{at}",
    )
    return answer, render_read(answer)


def append_chunk(lines: list[NumberedLine], chunk: StoredChunk) -> list[NumberedLine]:
    """Add a chunk's lines to those before it: blank lines between, and the parts of an over-long line as one."""
    parts = chunk.text.split("\n")
    if lines and chunk.start_line == lines[-1].number:
        lines[-1] = NumberedLine(lines[-1].number, lines[-1].text + parts.pop(0))
        start = chunk.start_line + 1
    else:
        start = chunk.start_line
        if lines and 0 < (gap := start - lines[-1].number - 1) <= BLANK_LINES_MAX:
            lines += [NumberedLine(start - gap + place, "") for place in range(gap)]
    lines += [NumberedLine(min(start + place, chunk.end_line), text) for place, text in enumerate(parts)]
    return lines


def fit_lines(wanted: Sequence[NumberedLine], skipped: int, tokens: int) -> tuple[list[NumberedLine], int | None, int]:
    """Return the lines that fit, and where the next answer begins.

    Args:
        wanted: At least one line.
        skipped: Characters of the first line that an answer before has shown.
        tokens: The budget.

    Returns:
        The lines; the number of the line that follows, ``None`` after the last one; the characters of it that are
        shown already.
    """
    shown = list[NumberedLine]()
    left = max(1, tokens) * BYTES_PER_TOKEN
    for place, line in enumerate(wanted):
        text = line.text[skipped:] if place == 0 else line.text
        # As JSON, the larger of the two forms.
        size = len(msgspec.json.encode(text))
        if size > left:
            if shown:
                return shown, line.number, 0
            part = cut_text(text, max(BYTES_PER_TOKEN * 4, left * 2 // 3))
            return [NumberedLine(line.number, part)], line.number, (skipped if place == 0 else 0) + len(part)
        left -= size
        shown.append(NumberedLine(line.number, text))
    return shown, None, 0


def _parse_cursor(cursor: str | None, first: int) -> tuple[int, int]:
    """Return line and character at which an answer begins.

    Raises:
        Invalid: The cursor is none (``invalid_cursor``).
    """
    if cursor is None:
        return first, 0
    line, _, character = cursor.partition(".")
    if not (line.isdecimal() and character.isdecimal() and len(cursor) <= 20 and int(line)):
        raise Invalid(
            "`cursor` must be that of an answer before; read again without it", field="cursor", code="invalid_cursor"
        )
    return int(line), int(character)
