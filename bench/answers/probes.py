"""Searches that tell how far a server has come with a tree, and questions whose answer is known."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench.tree import documented
from penstock.client import Client, Hit, PenstockError, SearchOptions
from penstock.indexing.encoding import UnreadableText
from penstock.indexing.sources.local_files import IndexableFile, IndexRoot, encode_document, find_files
from penstock.kernel.settings import Settings

WORDS: Final[SearchOptions] = {"weights": {"dense": 0, "sparse": 1}, "rerank": False}
MEANING: Final[SearchOptions] = {"weights": {"dense": 1, "sparse": 0}, "rerank": False}
#: Words of which nearly every file has one.
COMMON: Final = "import return class function value name test file data list"
#: It is looked so often, and more seldom the longer it takes: looking costs what is measured.
POLL_S: Final = 0.02
POLL_SHARE: Final = 0.01
PATIENCE_S: Final = 1800.0
#: A question is a sentence of so many words at least.
QUESTION_WORDS_MIN: Final = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question got.

    Attributes:
        latency_ms: Milliseconds until the answer.
        found: Whether one of the hits holds the question's sentence.
        coverage: Share of the chunks that have vectors, as the answer tells.
    """

    latency_ms: float
    found: bool
    coverage: float


class Probe:
    """Asks one server about one collection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def hits(self, query: str, options: SearchOptions) -> list[Hit]:
        """Return hits; none while there is no collection."""
        try:
            return self._client.search(query, **options).hits
        except PenstockError as error:
            if error.code != "collection_not_found":
                raise
            return []

    def finds(self, query: str, marker: str, options: SearchOptions) -> bool:
        """Return whether one of the hits holds a marker."""
        return any(marker in hit.text for hit in self.hits(query, options))

    def documents(self) -> int:
        """Return the number of documents."""
        return self._client.get_collection("default").documents

    def chunks(self) -> int:
        """Return the number of chunks."""
        return self._client.get_collection("default").chunks

    def pending(self) -> int:
        """Return how many chunks have no vectors yet."""
        return self._client.get_collection("default").pending

    def ask(self, question: str) -> Answer:
        """Ask a question as a user does."""
        began_s = time.perf_counter()
        answer = self._client.search(question)
        took_ms = (time.perf_counter() - began_s) * 1000
        return Answer(took_ms, any(question in hit.text for hit in answer.hits), answer.coverage)


def seconds_until(true: Callable[[], bool], began_s: float, check: Callable[[], object] = lambda: None) -> float:
    """Return the seconds from a moment until something is true.

    Args:
        true: Whether it is.
        began_s: The moment, by ``time.perf_counter``.
        check: Raises where it will never be true.

    Raises:
        TimeoutError: It was not after ``PATIENCE_S``.
    """
    while (passed_s := time.perf_counter() - began_s) < PATIENCE_S:
        if true():
            return time.perf_counter() - began_s
        check()
        time.sleep(max(POLL_S, POLL_SHARE * passed_s))
    raise TimeoutError(f"not true after {PATIENCE_S:g} s: {true}")


def encoded(tree: Path) -> list[tuple[IndexableFile, bytes]]:
    """Return what ``penstock index`` sends of a tree, in its order."""
    settings, found = Settings(), []
    for one in find_files([IndexRoot(tree, tree, tree.name)], settings.index.max_file):
        try:
            found.append((one, encode_document(one, settings.index.max_file, settings.http.max_body)))
        except UnreadableText:
            continue
    return found


def questions(documents: list[tuple[IndexableFile, bytes]], count: int) -> list[str]:
    """Return first lines of docstrings in a tree, always the same ones."""
    texts = [msgspec.json.decode(raw)["text"] for one, raw in documents if one.path.endswith(".py")]
    lines = {doc.partition("\n")[0].strip() for text in texts for _, doc in documented(text)}
    sentences = sorted(line for line in lines if len(line.split()) >= QUESTION_WORDS_MIN)
    return random.Random(1).sample(sentences, min(count, len(sentences)))
