"""A vector store that the contract's suite is run on, with what each one does otherwise.

The fake in memory, the real engine in its process, and Qdrant's client: over the server at ``QDRANT_URL`` where that is
set (``qdrant-server``), else over the client's own local mode (``qdrant-local``).
"""

import asyncio
import itertools
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from penstock.kernel.context import Context, point_id
from penstock.kernel.late_interaction import quantize
from penstock.ranking.retrieval import RetrievalQuery
from penstock.stores.commands import CreateCollection, DeleteDocuments, ListDocuments, UpsertPoints
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import ArmQuery, ChunkPayload, CollectionInfo, Point
from tests.fakes.memory_store import search_arm, sparse, unit

WORK = Context.background()
NUMBERS = itertools.count()

METADATA: dict[str, dict[str, Any]] = {
    "strings": {"team": "core", "tags": ["a", "b"]},
    "numbers": {"year": 2024, "share": 0.1, "whole": 3.0, "big": 2**63 + 1, "negative": -5},
    "flags": {"draft": True, "nested": {"done": False}, "none": None},
    "times": {"at": "2024-05-01T12:00:00+02:00", "day": "2023-01-31", "list": [1, "2022-02-02", {"x": 7}]},
    "odd": {"a.b": 1, "c[0]": 2, 'q"q': 3, "back\\slash": 4, "ключ": "да", "per%cent": 5, "": 6, " ": 7},
    "colliding": {"facets": ["x"], "scales": {"year": 1}, "id": "other", "hash": "h", "metadata": {"team": "core"}},
    "empty": {},
}


@dataclass(frozen=True)
class Features:
    """What a store does otherwise than the contract says.

    Attributes:
        rarity: Weighs terms by how rare they are in the whole collection.
        wordless: Counts points without a term when it tells how rare one is.
    """

    rarity: bool = True
    wordless: bool = False


#: Qdrant's client asks a server where there is one.
QDRANT = "qdrant-server" if os.environ.get("QDRANT_URL") else "qdrant-local"
#: Versions that the local mode stands in for: the newest, and the last that matches no prefixes. A server has its own.
QDRANT_VERSIONS = {QDRANT: (1, 20)} | ({} if QDRANT == "qdrant-server" else {"qdrant-local-1.18": (1, 18)})
QDRANT_FEATURES = Features(wordless=QDRANT == "qdrant-local")


@dataclass
class Shop:
    """A store, the loop that it lives on, and a fresh collection for each test."""

    runner: asyncio.Runner
    store: VectorStore
    features: Features = Features()

    def do(self, coroutine: Any) -> Any:
        return self.runner.run(asyncio.wait_for(coroutine, 30))

    def collection(self) -> str:
        """Return the collection that the tests share, emptied: making one takes the engine 0.3 s."""
        self.do(self.store.run(CreateCollection(CollectionInfo("shared", 2, "m")), WORK))
        self.do(self.store.run(DeleteDocuments("shared", ()), WORK))
        return "shared"

    def fresh(self) -> str:
        """Return a collection of its own."""
        name = f"c{next(NUMBERS)}"
        self.do(self.store.run(CreateCollection(CollectionInfo(name, 2, "m")), WORK))
        return name

    def put(self, collection: str, *points: Point) -> None:
        self.do(self.store.run(UpsertPoints(collection, points), WORK))

    def found(self, collection: str, *conditions: Any) -> set[str]:
        """Return the ids that dense and sparse search, heads and their filter agree on."""
        dense = self.do(search_arm(self.store, collection, ArmQuery(unit(1, 0), 100, conditions), WORK))
        rare = self.do(search_arm(self.store, collection, ArmQuery(sparse(t1=1), 100, conditions), WORK))
        page = self.do(self.store.run(ListDocuments(collection, conditions, None, 100), WORK))
        assert {s.point for s in dense} == {s.point for s in rare} == {point_id(head.id, 0) for head in page.documents}
        return {head.id for head in page.documents}


def point(id: str, chunk: int = 0, *, dense: Any = None, terms: Any = None, **fields: Any) -> Point:
    payload = ChunkPayload(id=id, chunk=chunk, text=fields.pop("text", f"text of {id}"), **fields)
    return Point(payload, unit(1, 0) if dense is None else dense, sparse(t1=1) if terms is None else terms)


def tokens(*rows: tuple[float, ...]) -> np.ndarray:
    """Return token vectors that point along these rows, whose sums are zero."""
    return quantize(np.array([unit(*row) for row in rows], np.float32))


LATE = 16
EAST, NORTH, WEST = (1, -1) * 4 + (0, 0) * 4, (0, 0) * 4 + (1, -1) * 4, (-1, 1) * 4 + (0, 0) * 4


def with_tokens(shop: Shop) -> str:
    """Return a collection of five points, the last without token vectors."""
    name = f"late{next(NUMBERS)}"
    shop.do(shop.store.run(CreateCollection(CollectionInfo(name, 2, "m", token_dim=LATE)), WORK))
    shop.put(name, *with_tokens_points().values())
    return name


def with_tokens_points() -> dict[str, Point]:
    rows = {"both": (WEST, EAST, NORTH), "east": (EAST,), "mean": ((1, -1) * 8,), "west": (WEST, WEST)}
    made = {id: replace(point(id), token_vectors=tokens(*ones)) for id, ones in rows.items()}
    return {**made, "none": point("none")}


WANTED = RetrievalQuery(10, 10, unit(1, 0.2), sparse(t1=1, t2=1), tokens(EAST, NORTH))
