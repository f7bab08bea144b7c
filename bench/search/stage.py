"""What has to stand before anything is measured: a filled server, vectors for everybody, peers filled with them.

Everything is kept in the work directory, so that a second run begins at once.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import corpus
from bench.corpus import Corpus
from bench.report import tell
from bench.serving import Server, serving
from bench.worker import Failed, Worker
from penstock.client import Client, SearchOptions
from penstock.kernel.context import Context, Criticality, Deadline, MonotonicClock
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.kernel.vectors import SparseVector
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.model_source import find_source
from penstock.models.prepare import prepare_model
from penstock.stores.backends.edge.process_client import EdgeStore
from penstock.stores.commands import UpsertPoints
from penstock.stores.data_model import ChunkPayload, Point

#: The server is settled when all its processes together used less than this share of a core for this long.
IDLE_SHARE: Final = 0.05
IDLE_S: Final = 2.0
SETTLE_S_MAX: Final = 300.0
#: The store's optimiser is kept away.
NEVER: Final = {"STORE_OPTIMIZE_POINTS": "0"}
#: Seconds without an update after which the optimiser may begin, by default 5: it has begun by then if it ever will.
BEGINS_S: Final = 8.0
UPSERT_POINTS: Final = 500
#: Stands in the work directory once everything in it is whole.
WHOLE: Final = "whole"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are kept in a work directory, for a number of chunks and a model."""

    work: Path
    name: str

    @property
    def root(self) -> Path:
        """What belongs to this corpus."""
        return self.work / self.name

    @property
    def whole(self) -> bool:
        """Whether everything is there."""
        return (self.root / WHOLE).exists()

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.root / "data"

    @property
    def raw(self) -> Path:
        """The data directory as filled, before the store's optimiser has seen it."""
        return self.root / "data-raw"

    @property
    def copy(self) -> Path:
        """The data directory of the Penstock in process."""
        return self.root / "data-in-process"

    @property
    def corpus(self) -> Path:
        """Texts and vectors."""
        return self.root / "corpus"

    @property
    def models(self) -> Path:
        """The prepared model."""
        return self.work / "models"


async def set_up(work: Path, chunks: int, data: Path) -> tuple[Places, Corpus]:
    """Make a corpus and a server filled with it, unless that has been done in this work directory with this model.

    Args:
        work: The work directory.
        chunks: How many chunks.
        data: Where the test collections are.
    """
    places = _places(work, chunks)
    if not places.whole:
        _begin(places, chunks, data)
        await fill(places.raw, Corpus.load(places.corpus))
        _complete(places)
    return places, Corpus.load(places.corpus)


def _places(work: Path, chunks: int) -> Places:
    prepared = prepare_model(find_source(), work.resolve() / "models")
    return Places(work.resolve(), f"chunks-{chunks}-{prepared.fingerprint}")


def _begin(places: Places, chunks: int, data: Path) -> None:
    """Make the corpus, and an empty collection as a server makes it."""
    shutil.rmtree(places.root, ignore_errors=True)
    dense = BuiltinDenseEncoder(prepare_model(find_source(), places.models))
    tell(f"cutting real texts into {chunks} chunks, embedding a tenth of them")
    given = corpus.texts(chunks, dense.tokenizer, data)
    corpus.build(given, corpus.queries(data), dense).save(places.corpus)
    shutil.copytree(places.models, places.raw / "models")
    with serving(places.raw, {**NEVER, "STORE_SHARDS": "1"}) as server, Client(server.url) as client:
        client.create_collection("default")


def _complete(places: Places) -> None:
    """Let a server optimise a copy of what was filled, and copy that once more."""
    shutil.copytree(places.raw, places.data)
    with serving(places.data) as server:
        tell(f"filled; at rest after {settle(server):.0f} s")
    shutil.copytree(places.data, places.copy)
    (places.root / WHOLE).touch()


async def fill(data_dir: Path, given: Corpus) -> None:
    """Write a corpus into the collection ``default`` of a server that does not run, past the model."""
    work = Context(Deadline(math.inf, "bench"), Criticality.BULK, "bench", "bench")
    store = EdgeStore(data_dir, TimeoutSettings(store=600.0), MonotonicClock(), StoreSettings(optimize_points=0))
    await store.start()
    try:
        for first in range(0, len(given.texts), UPSERT_POINTS):
            rows = range(first, min(first + UPSERT_POINTS, len(given.texts)))
            await store.run(UpsertPoints("default", [_point(given, row) for row in rows]), work)
    finally:
        await store.close()


def _point(given: Corpus, row: int) -> Point:
    payload = ChunkPayload(str(row), 0, given.texts[row], language="text", hash="bench", chunks=1)
    late = given.late[row // corpus.NEIGHBOURS] if given.late else None
    return Point(payload, given.dense[row], SparseVector(*given.sparse.row(row)), late)


def settle(server: Server) -> float:
    """Wait until the server has nothing to do for itself; return how long that took, in seconds.

    Raises:
        TimeoutError: It did not come to rest.
    """
    began_s = time.monotonic()
    time.sleep(BEGINS_S)
    while time.monotonic() - began_s < SETTLE_S_MAX:
        before_s = sum(server.cpu_s().values())
        time.sleep(IDLE_S)
        found = server.cpu_s()
        if sum(found.values()) - before_s < IDLE_SHARE * IDLE_S and "optimiser" not in found:
            return time.monotonic() - began_s
    raise TimeoutError("the server did not come to rest")


def starts(places: Places, times: int) -> list[float]:
    """Return the seconds from starting the server to its being ready, warm model."""
    found = []
    for _ in range(times):
        with serving(places.data) as server:
            found.append(server.ready_s)
    return found


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A peer that is filled, and what it said of itself."""

    name: str
    worker: Worker
    told: dict[str, Any]


@contextmanager
def neighbours(names: Sequence[str], places: Places, python: str) -> Iterator[tuple[list[Neighbour], dict[str, str]]]:
    """Start and fill peers, end them afterwards.

    Yields:
        Those that work, and why the others do not.
    """
    found, absent = [], {}
    with ExitStack() as stack:
        for name in names:
            directory = places.root / f"peer-{name}"
            shutil.rmtree(directory, ignore_errors=True)
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            worker = stack.enter_context(Worker("bench.peers.serve", name, python=python))
            order: dict[str, Any] = {"do": "fill", "corpus": str(places.corpus), "directory": str(directory)}
            if name.startswith("engine"):
                order["models"] = str(places.models)
            try:
                told = worker.ask(**order)
            except Failed as error:
                absent[name] = str(error)
                tell(f"  {name} is left out: {error}")
            else:
                tell(f"  {name} filled in {told['fill_s']:.1f} s")
                found.append(Neighbour(name, worker, told))
        yield found, absent


def found_by(url: str, queries: Sequence[str], options: SearchOptions) -> list[list[int]]:
    """Return the rows that the server finds for each query."""
    rows = []
    with Client(url) as client:
        for query in queries:
            answer = client.search(query, **options)
            rows.append([int(hit.id) for hit in answer.hits])
    return rows
