"""A BEIR-layout directory: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/test.tsv``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from penstock.kernel.errors import DECODE_ERRORS, Invalid

T = TypeVar("T")


class CorpusDocument(msgspec.Struct, frozen=True, rename={"id": "_id"}):
    """A document: a line of ``corpus.jsonl``."""

    id: str
    text: str
    title: str = ""

    @property
    def whole(self) -> str:
        """Title and text, as BEIR's own retrievers read them."""
        return f"{self.title}\n{self.text}" if self.title else self.text


class Query(msgspec.Struct, frozen=True, rename={"id": "_id"}):
    """A query: a line of ``queries.jsonl``."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A test collection.

    Attributes:
        name: The directory's name.
        documents: What is searched.
        queries: The judged queries. Those without a relevant document are left out.
        gains: By query id, the judged documents' gains.
    """

    name: str
    documents: list[CorpusDocument]
    queries: list[Query]
    gains: dict[str, dict[str, float]]


def read_benchmark(directory: Path) -> Benchmark:
    """Read a directory.

    Raises:
        Invalid: A file is absent or a line is broken; both are named.
    """
    gains = _judgements(directory / "qrels" / "test.tsv")
    judged = {query for query, ones in gains.items() if any(gain > 0 for gain in ones.values())}
    queries = [query for query in _lines(directory / "queries.jsonl", Query) if query.id in judged]
    if not queries:
        raise Invalid(f"{directory} has no query with a relevant document", field="DIR", code="benchmark_empty")
    documents = list(_lines(directory / "corpus.jsonl", CorpusDocument))
    return Benchmark(directory.resolve().name, documents, queries, gains)


def _judgements(file: Path) -> dict[str, dict[str, float]]:
    gains: dict[str, dict[str, float]] = {}
    for number, line in _numbered(file):
        query, document, score = (*line.rstrip("\r\n").split("\t"), "", "", "")[:3]
        try:
            gains.setdefault(query, {})[document] = float(score)
        except ValueError:
            # The first line names the columns.
            if number == 1:
                gains.pop(query, None)
                continue
            raise _broken(file, number, "is not query, document, score with tabs between") from None
    return gains


def _lines(file: Path, type_: type[T]) -> Iterator[T]:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(type_, strict=False)
    for number, line in _numbered(file):
        if line.strip():
            try:
                yield decoder.decode(line)
            except DECODE_ERRORS as error:
                raise _broken(file, number, str(error)) from error


def _numbered(file: Path) -> Iterator[tuple[int, str]]:
    try:
        with file.open(encoding="utf-8") as lines:
            yield from enumerate(lines, start=1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Invalid(f"{file}: {reason}; a BEIR-layout directory is expected", field="DIR") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{file} is not UTF-8 text", field="DIR") from error


def _broken(file: Path, number: int, reason: str) -> Invalid:
    return Invalid(f"{file} line {number}: {reason}", field="DIR", code="benchmark_broken")
