"""LanceDB on disk in this process: exact vector search, its own full-text index, fused by rank."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import lancedb
from lancedb.rerankers import RRFReranker

from bench.corpus import Corpus
from bench.peers.contract import HITS, Query

NAME: Final = "bench"
#: Its own column is named too: leaving it out has another meaning in each of its releases.
_COLUMNS: Final = ["row", "text", "_distance"]
_WORDS: Final = re.compile(r"\w+")


class Lance:
    """A table; below some hundred thousand rows LanceDB itself advises to do without a vector index."""

    text = "lancedb, no vector index, full-text index with its own BM25"
    hybrid = True
    batches = False

    def __init__(self) -> None:
        self._table: Any = None
        self._fusion = RRFReranker()

    def fill(self, corpus: Corpus, directory: str) -> None:
        """Write every row and index the words."""
        rows = [
            {"row": row, "text": text, "vector": vector}
            for row, (text, vector) in enumerate(zip(corpus.texts, corpus.dense, strict=True))
        ]
        self._table = lancedb.connect(directory).create_table(NAME, data=rows)
        self._table.create_fts_index("text", replace=True)

    def search(self, queries: Sequence[Query], *, hybrid: bool) -> list[list[int]]:
        """Ask one after the other."""
        return [self._hybrid(query) if hybrid else self._dense(query) for query in queries]

    def _dense(self, query: Query) -> list[int]:
        found = self._table.search(query.dense).distance_type("dot").limit(HITS).select(_COLUMNS).to_arrow()
        return [int(row) for row in found["row"].to_pylist()]

    def _hybrid(self, query: Query) -> list[int]:
        # Signs have a meaning in its query language; the words alone are what is searched for.
        words = " ".join(_WORDS.findall(query.text))
        asked = self._table.search(query_type="hybrid").vector(query.dense).text(words).distance_type("dot")
        found = asked.limit(HITS).rerank(self._fusion).to_arrow()
        return [int(row) for row in found["row"].to_pylist()[:HITS]]
