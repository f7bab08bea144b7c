"""Text form of the tools' answers, as a model reads it: headings ``path:start-end``, code in fences. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from penstock.http.mcp.records import (
    CollectionFreshness,
    FoundChunk,
    ListedCollection,
    ReadAnswer,
    SearchAnswer,
    SourceEntry,
    ToolAnswer,
    ToolError,
)

_FENCES: Final = re.compile(r"^ {0,3}(`{3,})", re.MULTILINE)
#: What could end a heading or begin another one.
_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str) -> str:
    """Return a text that may be a caller's as a part of a line."""
    return _BREAKS.sub(" ", text)


def fenced(text: str, language: str) -> str:
    """Return a text in a fence that nothing in it can end."""
    longest = max((len(found) for found in _FENCES.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{one_line(language).replace('`', '')}\n{text}\n{fence}"


def render_hit(hit: FoundChunk) -> str:
    """Return a hit: its place, what it is, and its code."""
    facts = [one_line(one) for one in (hit.symbol, hit.language, hit.collection) if one]
    cut = "; cut, read the rest" if hit.cut else ""
    place = f"{one_line(hit.path or hit.id)}:{hit.start_line}-{hit.end_line}"
    return f"## {place} ({', '.join(facts)}; {hit.score:.3f}{cut})\n{fenced(hit.snippet, hit.language)}"


def render_search(answer: SearchAnswer, asked: str) -> str:
    """Return hits with what there is to say about all of them."""
    count = f"{len(answer.hits)} hit{'s' * (len(answer.hits) != 1)}" if answer.hits else "Nothing found"
    lines = [f"{count} for {one_line(asked)}", *_notes(answer)]
    lines += [f"Not searched: {one}" for one in answer.left_out]
    return "\n\n".join(["\n".join(lines), *map(render_hit, answer.hits), *_continuation(answer, "hits")])


def render_read(answer: ReadAnswer) -> str:
    """Return lines of a document."""
    place = f"{one_line(answer.path or answer.id)}:{answer.start_line}-{answer.end_line} ({one_line(answer.language)})"
    head = "\n".join([f"## {place}", *_notes(answer)])
    return "\n\n".join([head, fenced(answer.text, answer.language), *_continuation(answer, "lines")])


def render_table(rows: Iterable[str], answer: ToolAnswer, empty: str) -> str:
    """Return one line for each entry."""
    lines = list(rows) or [empty]
    return "\n".join([*lines, *_notes(answer), *_continuation(answer, "entries")])


def collection_row(entry: ListedCollection) -> str:
    """Return a collection as a line."""
    return f"- {entry.name}: {entry.documents} documents, {entry.chunks} chunks, {entry.state}"


def source_row(entry: SourceEntry) -> str:
    """Return a source as a line."""
    counts = ", ".join(
        f"{count} {name}" for name in ("indexed", "unchanged", "removed", "failed") if (count := getattr(entry, name))
    )
    detail = f" ({one_line(entry.detail)})" if entry.detail else ""
    last = f"last run {entry.completed_at}: {counts or 'nothing to do'}" if entry.completed_at else "no run completed"
    name = f"{entry.collection}/{one_line(entry.name)}"
    return f"- {name}: {entry.documents} documents, {last}; watch {entry.watch}{detail}"


def render_error(error: ToolError) -> str:
    """Return an error in one sentence, with the time of another try."""
    again = "" if error.retry_after_ms is None else f"; retry in {error.retry_after_ms / 1000:.1f} s"
    return f"{error.code}: {one_line(error.detail)}{again}"


def _notes(answer: ToolAnswer) -> list[str]:
    notes = [_freshness_line(one) for one in answer.freshness]
    if answer.degraded:
        notes.append(f"Degraded: {', '.join(answer.degraded)}")
    return notes


def _freshness_line(one: CollectionFreshness) -> str:
    indexed = f"indexed {one.indexed_at}" if one.indexed_at else "no source has been indexed"
    if one.pending is None:
        return f"Collection {one.collection}: freshness unknown"
    kept = ", kept up to date" if one.watched else ""
    pending = f"; {one.pending} chunks are found by words only so far" if one.pending else ""
    return f"Collection {one.collection}: {indexed}{kept}{pending}"


def _continuation(answer: ToolAnswer, what: str) -> Sequence[str]:
    if answer.cursor is None:
        return [f"{answer.omitted} {what} left out"] if answer.omitted else []
    left = f"{answer.omitted} more {what} of this page left out. " if answer.omitted else ""
    return [f'{left}Go on with cursor "{answer.cursor}".']
