"""A corpus, the same for every system that is compared: real texts, their words, and dense vectors made of real ones.

Texts: the documents of the test collections (``../shared/data``, read in place), then Python's own standard library,
both cut by Penstock's chunker, into short chunks. Each is one document of one chunk, without a path, so that every
system holds the same rows. Sparse vectors are those of the texts. Dense ones: every tenth is that of its text, and each
of the nine after it lies about it at random, since embedding all of them would take longer than measuring. Queries: the
collections' own, with their own vectors.
"""

from __future__ import annotations

import json
import random
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench import ROOT
from penstock.cli.beir import read_benchmark
from penstock.indexing.chunk import chunk_text
from penstock.indexing.file_reader import read_text
from penstock.indexing.model_inputs import sparse_query, sparse_text
from penstock.indexing.walk import FoundFile, walk
from penstock.kernel.cores import available_cores
from penstock.kernel.errors import PenstockError
from penstock.kernel.messages import TextKind
from penstock.kernel.vectors import SparseVector
from penstock.models.bm25 import Bm25Runner, Bm25Settings
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.tokenizer import TextTokenizer

DATA: Final = ROOT.parent / "shared" / "data"
COLLECTIONS: Final = ("cranfield", "cisi", "cosqa-dev")
LIBRARY: Final = Path(sysconfig.get_path("stdlib"))
#: Chunks as functions and paragraphs are: the time of a search depends on their length in two things, the texts that an
#: answer carries, and late interaction, which looks at one vector for every two tokens.
CHUNK_TOKENS: Final = 128
#: Chunks about one real vector, and how far from it they lie: cosines of .86 to it, and of .73 to each other.
NEIGHBOURS: Final = 10
SPREAD: Final = 0.6
#: Texts that a thread embeds at a time.
SLICE_TEXTS: Final = 16
#: Queries made in vain before there are taken to be no more.
STALE_MAX: Final = 1000
_SEED: Final = 5


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

    def first(self, count: int) -> Sparse:
        """Return the first rows."""
        starts = self.starts[: count + 1]
        return Sparse(starts, self.terms[: starts[-1]], self.weights[: starts[-1]])

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
        late: Token vectors of every tenth text, where the model gives some; a text has those of the tenth before it.
    """

    texts: list[str]
    queries: list[str]
    dense: NDArray[np.float32]
    query_dense: NDArray[np.float32]
    sparse: Sparse
    query_sparse: Sparse
    late: list[NDArray[np.int8]] = field(default_factory=list)

    def save(self, directory: Path) -> None:
        """Write everything below a directory."""
        directory.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{name}_{part}": getattr(getattr(self, name), part)
            for name in ("sparse", "query_sparse")
            for part in ("starts", "terms", "weights")
        }
        arrays["late_starts"] = np.cumsum([0, *(len(rows) for rows in self.late)], dtype=np.int64)
        arrays["late"] = np.concatenate(self.late) if self.late else np.empty((0, 0), np.int8)
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
        late = np.split(found["late"], found["late_starts"][1:-1]) if len(found["late"]) else []
        return cls(words["texts"], words["queries"], found["dense"], found["query_dense"], sparse, asked, late)


def texts(chunks: int, tokenizer: TextTokenizer, data: Path = DATA) -> list[str]:
    """Return so many different chunks of real text, of ``CHUNK_TOKENS`` at most.

    Raises:
        ValueError: There are not so many.
    """
    found: dict[str, None] = {}
    for text, language in _sources(data):
        cut = chunk_text(text, language, tokens_max=CHUNK_TOKENS, count=tokenizer.count)
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

    Ends when ``STALE_MAX`` in a row were nothing new.
    """
    chance, known, stale = random.Random(seed), set(given), 0
    while stale < STALE_MAX:
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
        if isinstance(found, FoundFile) and found.path.suffix == ".py" and "site-packages" not in found.path.parts:
            try:
                yield read_text(found.path).text, "python"
            except PenstockError:
                continue


def build(chunks: list[str], asked: list[str], dense: BuiltinDenseEncoder) -> Corpus:
    """Return texts and queries with all their vectors."""
    bm25 = Bm25Runner(Bm25Settings())
    # One by one, as in a search: in eight bits a text's vector depends a little on what is embedded with it.
    queries = np.concatenate([dense.run([text]) for text in asked])
    middles, late = _embedded(chunks[::NEIGHBOURS], dense)
    return Corpus(
        chunks,
        asked,
        around(middles, len(chunks)),
        queries,
        in_rows(bm25.encode_documents([sparse_text(text, "", "") for text in chunks])),
        in_rows(bm25.encode_queries([sparse_query(text) for text in asked])),
        late,
    )


def around(middles: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """Return so many rows: each middle, and after it those that lie about it.

    Args:
        middles: ``float32 [n, dim]``, L2-normalised.
        rows: At most ``NEIGHBOURS`` times ``n``.

    Returns:
        ``float32 [rows, dim]``, L2-normalised.
    """
    repeated = np.repeat(middles, NEIGHBOURS, axis=0)[:rows]
    apart = np.random.default_rng(_SEED).standard_normal(repeated.shape, np.float32)
    apart *= SPREAD / np.linalg.norm(apart, axis=1, keepdims=True)
    apart[::NEIGHBOURS] = 0
    moved = repeated + apart
    scaled: NDArray[np.float32] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return scaled


def _embedded(chunks: Sequence[str], dense: BuiltinDenseEncoder) -> tuple[NDArray[np.float32], list[NDArray[np.int8]]]:
    """Return the vectors of texts, and their token vectors where the model gives some."""
    parts = [chunks[first : first + SLICE_TEXTS] for first in range(0, len(chunks), SLICE_TEXTS)]
    with ThreadPoolExecutor(available_cores()) as threads:
        found = list(threads.map(partial(dense.run_with_token_vectors, kind=TextKind.DOCUMENT), parts))
    return np.concatenate([part.dense for part in found]), [rows for part in found for rows in part.late or ()]
