"""Chroma on disk in this process: its HNSW graph with its own defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import chromadb
from chromadb.config import Settings

from bench.corpus import Corpus
from bench.peers.contract import HITS, Query

NAME: Final = "bench"
ADD_ROWS: Final = 1000


class Chroma:
    """A collection, dense only: its embedded form has no sparse retrieval."""

    text = "chromadb, PersistentClient, its default HNSW"
    hybrid = False
    batches = True

    def __init__(self) -> None:
        self._rows: Any = None

    def fill(self, corpus: Corpus, directory: str) -> None:
        """Write every row."""
        client = chromadb.PersistentClient(directory, Settings(anonymized_telemetry=False))
        self._rows = client.create_collection(NAME, metadata={"hnsw:space": "ip"}, embedding_function=None)
        for first in range(0, len(corpus.texts), ADD_ROWS):
            last = min(first + ADD_ROWS, len(corpus.texts))
            self._rows.add(
                ids=[str(row) for row in range(first, last)],
                embeddings=corpus.dense[first:last],
                documents=corpus.texts[first:last],
            )

    def search(self, queries: Sequence[Query], *, hybrid: bool) -> list[list[int]]:
        """Ask all of them at once."""
        assert not hybrid
        found = self._rows.query(
            query_embeddings=[query.dense for query in queries], n_results=HITS, include=["documents", "distances"]
        )
        return [[int(row) for row in rows] for rows in found["ids"]]
