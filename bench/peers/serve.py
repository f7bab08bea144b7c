"""A worker around one peer: ``python -m bench.peers.serve NAME``.

Orders: ``fill`` (``corpus``, ``directory``), ``measure`` (``hybrid``, ``batch``, ``seconds``, and ``texts`` where the
queries are to be embedded too), ``find`` (``hybrid``, ``count``).
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.corpus import Corpus
from bench.peers.contract import Peer, Query, queries_of
from bench.worker import Order, work

#: Queries asked at once when only their answers are wanted.
FIND_BATCH: Final = 16
NAMES: Final = ("engine", "engine-optimised", "qdrant-local", "chroma", "lance")


def make(name: str) -> Peer:
    """Return a peer by its name; each imports its own library only.

    Raises:
        ImportError: The library is not installed.
    """
    # ruff: noqa: PLC0415 - see above
    if name.startswith("engine"):
        from bench.peers.engine import Engine

        return Engine(optimised=name.endswith("optimised"))
    if name == "qdrant-local":
        from bench.peers.qdrant_local import QdrantLocal

        return QdrantLocal()
    if name == "chroma":
        from bench.peers.chroma import Chroma

        return Chroma()
    if name == "lance":
        from bench.peers.lance import Lance

        return Lance()
    raise ValueError(f"no peer {name}; there are {', '.join(NAMES)}")


class Encoder:
    """Embeds queries as Penstock does, with all cores, and nothing around it.

    Args:
        models: Directory of the prepared model.
    """

    def __init__(self, models: Path) -> None:
        from penstock.indexing.model_inputs import sparse_query
        from penstock.kernel.cores import available_cores
        from penstock.models.bm25 import Bm25Runner, Bm25Settings
        from penstock.models.builtin_dense import BuiltinDenseEncoder
        from penstock.models.model_source import find_source
        from penstock.models.prepare import prepare_model

        self._dense = BuiltinDenseEncoder(prepare_model(find_source(), models))
        self._sparse, self._prepare = Bm25Runner(Bm25Settings()), sparse_query
        self._cores = available_cores()
        self._threads = ThreadPoolExecutor(self._cores)

    def queries(self, texts: Sequence[str]) -> list[Query]:
        """Return texts as queries, ready to be asked."""
        share = -(-len(texts) // self._cores)
        parts = [texts[first : first + share] for first in range(0, len(texts), share)]
        vectors: NDArray[np.float32] = np.concatenate(list(self._threads.map(self._dense.run, parts)))
        words = self._sparse.encode_queries([self._prepare(text) for text in texts])
        return [
            Query(text, vector, word.indices, word.values)
            for text, vector, word in zip(texts, vectors, words, strict=True)
        ]


class Desk:
    """Carries out orders on one peer."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._queries: list[Query] = []
        self._encoder: Encoder | None = None
        self._do: dict[str, Callable[[Order], dict[str, Any]]] = {
            "fill": self._fill,
            "measure": self._measure,
            "find": self._find,
        }

    def __call__(self, order: Order) -> dict[str, Any]:
        """Carry out one order."""
        return self._do[order["do"]](order)

    def _fill(self, order: Order) -> dict[str, Any]:
        corpus = Corpus.load(Path(order["corpus"]))
        began_s = time.perf_counter()
        self._peer.fill(corpus, order["directory"])
        self._queries = queries_of(corpus)
        if "models" in order:
            self._encoder = Encoder(Path(order["models"]))
        peer = self._peer
        return {
            "text": peer.text,
            "hybrid": peer.hybrid,
            "batches": peer.batches,
            "fill_s": time.perf_counter() - began_s,
        }

    def _measure(self, order: Order) -> dict[str, Any]:
        batch, hybrid, count, took_ms = order["batch"], order["hybrid"], 0, []
        groups = self._groups(order.get("texts"), batch)
        cpu_s, began_s = time.process_time(), time.perf_counter()
        while (now_s := time.perf_counter()) - began_s < order["seconds"] and (group := next(groups, None)):
            self._peer.search(group() if callable(group) else group, hybrid=hybrid)
            count += batch
            took_ms.append((time.perf_counter() - now_s) * 1000)
        took_s = time.perf_counter() - began_s
        return {
            "rate": count / took_s,
            "p50_ms": float(np.median(took_ms)),
            "cpu_ms": 1000 * (time.process_time() - cpu_s) / count,
        }

    def _groups(self, texts: list[str] | None, batch: int) -> Iterator[list[Query] | Callable[[], list[Query]]]:
        """Yield queries in batches, round and round; of texts, what makes them, until there are no more."""
        if texts is None:
            endless = itertools.cycle(self._queries)
            while True:
                yield list(islice(endless, batch))
        assert self._encoder is not None
        encode = self._encoder.queries
        for first in range(0, len(texts) - batch + 1, batch):
            yield lambda part=texts[first : first + batch]: encode(part)  # type: ignore[misc]

    def _find(self, order: Order) -> dict[str, Any]:
        batch = FIND_BATCH if self._peer.batches else 1
        wanted = self._queries[: order["count"]]
        groups = [wanted[first : first + batch] for first in range(0, len(wanted), batch)]
        return {"found": [rows for group in groups for rows in self._peer.search(group, hybrid=order["hybrid"])]}


if __name__ == "__main__":
    work(Desk(make(sys.argv[1])))
