"""Real texts, and their vectors, the same for every system that is compared.

Texts: the documents of the test collections (``../shared/data``, read in place), then Python's own standard library,
both cut by Penstock's chunker, into short chunks. Each is one document of one chunk, without a path, so that every
system holds the same rows. Queries: the collections' own. Vectors: the server's (``/v1/embed``), which has just made
them to index the texts.
"""

from __future__ import annotations

import json
import random
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import numpy as np
from numpy.typing import NDArray

from bench.report import tell
from bench.workbench import ROOT
from penstock.cli.beir import read_benchmark
from penstock.indexing.chunk import chunk
from penstock.indexing.composition import sparse_query, sparse_text
from penstock.indexing.reading import read_text
from penstock.indexing.walk import Found, walk
from penstock.kernel.errors import PenstockError
from penstock.kernel.vectors import SparseVector
from penstock.models.sparse import Bm25Runner, Bm25Settings
from penstock.models.tokenizer import TextTokenizer

DATA: Final = ROOT.parent / "shared" / "data"
COLLECTIONS: Final = ("cranfield", "cisi", "cosqa-dev")
LIBRARY: Final = Path(sysconfig.get_path("stdlib"))
#: Short chunks, so that 20 000 of them are embedded in minutes: the time of a search does not depend on them, but for
#: the hits' texts that it returns and for late interaction, which looks at a vector for every two tokens.
CHUNK_TOKENS: Final = 64
#: Texts in one request: vectors as JSON are some 8 KB each.
BATCH_TEXTS: Final = 200


@dataclass(frozen=True, slots=True)
class Sparse:
    """Sparse vectors in rows: row ``i`` is ``terms[starts[i]:starts[i + 1]]`` with the weights there.

    Attributes:
        starts: ``int64 [n + 1]``.
        terms: ``uint32 [total]``.
        weights: ``float32 [total]``.
    """

    starts: NDArray[np.int64]
    terms: NDArray[np.uint32]
    weights: NDArray[np.float32]

    def row(self, number: int) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Return one vector's terms and weights."""
        part = slice(self.starts[number], self.starts[number + 1])
        return self.terms[part], self.weights[part]

    def __len__(self) -> int:
        return len(self.starts) - 1


def in_rows(vectors: Sequence[SparseVector]) -> Sparse:
    """Return sparse vectors in rows."""
    starts = np.cumsum([0, *(len(vector.indices) for vector in vectors)], dtype=np.int64)
    terms = np.concatenate([np.empty(0, np.uint32), *(vector.indices for vector in vectors)])
    weights = np.concatenate([np.empty(0, np.float32), *(vector.values for vector in vectors)])
    return Sparse(starts, terms.astype(np.uint32), weights.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts and queries with their vectors.

    Attributes:
        texts: The chunks; a document's id is its place here.
        queries: The queries.
        dense: ``float32 [texts, dim]``, L2-normalised.
        query_dense: ``float32 [queries, dim]``.
        sparse: Of the texts.
        query_sparse: Of the queries.
    """

    texts: list[str]
    queries: list[str]
    dense: NDArray[np.float32]
    query_dense: NDArray[np.float32]
    sparse: Sparse
    query_sparse: Sparse

    def save(self, directory: Path) -> None:
        """Write everything below a directory."""
        directory.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{name}_{part}": getattr(getattr(self, name), part)
            for name in ("sparse", "query_sparse")
            for part in ("starts", "terms", "weights")
        }
        np.savez(directory / "vectors.npz", dense=self.dense, query_dense=self.query_dense, **arrays)
        (directory / "texts.json").write_text(json.dumps({"texts": self.texts, "queries": self.queries}))

    @classmethod
    def load(cls, directory: Path) -> Corpus:
        """Read what :meth:`save` wrote."""
        found = np.load(directory / "vectors.npz")
        words = json.loads((directory / "texts.json").read_text())
        sparse, asked = (
            Sparse(*(found[f"{name}_{part}"] for part in ("starts", "terms", "weights")))
            for name in ("sparse", "query_sparse")
        )
        return cls(words["texts"], words["queries"], found["dense"], found["query_dense"], sparse, asked)


def texts(chunks: int, tokenizer: TextTokenizer, data: Path = DATA) -> list[str]:
    """Return so many different chunks of real text, of ``CHUNK_TOKENS`` at most.

    Raises:
        ValueError: There are not so many.
    """
    found: dict[str, None] = {}
    for text, language in _sources(data):
        cut = chunk(text, language, tokens_max=CHUNK_TOKENS, count=tokenizer.count)
        found.update(dict.fromkeys(one.text for one in cut))
        if len(found) >= chunks:
            return list(found)[:chunks]
    raise ValueError(f"there are {len(found)} chunks of real text, not {chunks}")


def queries(data: Path = DATA) -> list[str]:
    """Return the collections' different queries, mixed, always in the same order."""
    found = list(dict.fromkeys(query.text for name in COLLECTIONS for query in read_benchmark(data / name).queries))
    random.Random(1).shuffle(found)
    return found


def fresh(given: Sequence[str], seed: int) -> Iterator[str]:
    """Yield queries that were not asked before: given ones, each without one or two of its words.

    Ends when ten in a row were nothing new.
    """
    chance, known, stale = random.Random(seed), set(given), 0
    while stale < 10:
        words = chance.choice(given).split()
        for _ in range(min(len(words) - 1, chance.choice((1, 2)))):
            del words[chance.randrange(len(words))]
        query = " ".join(words)
        stale = stale + 1 if query in known else 0
        if not stale:
            known.add(query)
            yield query


def _sources(data: Path) -> Iterator[tuple[str, str]]:
    """Yield whole texts and their languages."""
    for name in COLLECTIONS:
        for document in read_benchmark(data / name).documents:
            yield document.whole, "text"
    for found in walk([LIBRARY]):
        if isinstance(found, Found) and found.path.suffix == ".py" and "site-packages" not in found.path.parts:
            try:
                yield read_text(found.path).text, "python"
            except PenstockError:
                continue


def fill(url: str, chunks: Sequence[str], kept: Path) -> NDArray[np.float32]:
    """Index chunks, each as one document, into ``default``; return their vectors.

    Args:
        url: Of the server.
        chunks: The texts.
        kept: Directory for the vectors of finished batches: an interrupted run is taken up there.

    Returns:
        ``float32 [chunks, dim]``.

    Raises:
        ValueError: The server made another number of chunks of them.
    """
    kept.mkdir(parents=True, exist_ok=True)
    with httpx.Client(base_url=url, timeout=600, trust_env=False) as client:
        client.put("/v1/collections/default").raise_for_status()
        for first in range(0, len(chunks), BATCH_TEXTS):
            part, batch = kept / f"{first}.npy", chunks[first : first + BATCH_TEXTS]
            if part.exists():
                continue
            documents = [{"id": str(first + number), "text": text} for number, text in enumerate(batch)]
            answer = client.post("/v1/collections/default/documents", json={"documents": documents})
            answer.raise_for_status()
            if (made := sum(one["chunks"] for one in answer.json()["documents"])) != len(batch):
                raise ValueError(f"{len(batch)} texts became {made} chunks")
            np.save(part, _embedded(client, batch, "document"))
            if first % (10 * BATCH_TEXTS) == 0:
                tell(f"  {first + len(batch)} of {len(chunks)} chunks indexed")
    return np.concatenate([np.load(kept / f"{first}.npy") for first in range(0, len(chunks), BATCH_TEXTS)])


def collect(url: str, chunks: list[str], dense: NDArray[np.float32], asked: list[str]) -> Corpus:
    """Return texts and queries with all their vectors; those of the queries are the server's."""
    bm25 = Bm25Runner(Bm25Settings())
    with httpx.Client(base_url=url, timeout=600, trust_env=False) as client:
        return Corpus(
            chunks,
            asked,
            dense,
            # One by one, as in a search: in eight bits a text's vector depends a little on what is embedded with it.
            _embedded(client, asked, "query", 1),
            in_rows(bm25.encode_documents([sparse_text(text, "", "") for text in chunks])),
            in_rows(bm25.encode_queries([sparse_query(text) for text in asked])),
        )


def _embedded(client: httpx.Client, given: Sequence[str], kind: str, batch: int = BATCH_TEXTS) -> NDArray[np.float32]:
    parts = []
    for first in range(0, len(given), batch):
        body = {"texts": list(given[first : first + batch]), "kind": kind}
        answer = client.post("/v1/embed", json=body)
        answer.raise_for_status()
        parts.append(np.array(answer.json()["embeddings"], np.float32))
    return np.concatenate(parts)
