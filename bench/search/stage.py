"""What has to stand before anything is measured: a filled server, vectors for everybody, peers filled with them.

Everything is kept in the work directory, so that a second run begins at once.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from bench import corpus
from bench.corpus import Corpus
from bench.report import tell
from bench.serving import Server, serving
from bench.worker import Failed, Worker
from penstock.models.prepare import prepare
from penstock.models.source import SourceSettings, find_source
from penstock.models.tokenizer import TextTokenizer

#: The server is settled when all its processes together used less than this share of a core for this long.
IDLE_SHARE: Final = 0.05
IDLE_S: Final = 2.0
SETTLE_S_MAX: Final = 300.0
#: The store's optimiser is kept away.
NEVER: Final = {"STORE_OPTIMIZE_POINTS": "0"}
#: Seconds without an update after which the optimiser may begin, by default 5: it has begun by then if it ever will.
BEGINS_S: Final = 8.0
#: Stands in the work directory once everything in it is whole.
WHOLE: Final = "whole"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are kept in a work directory, for a number of chunks."""

    root: Path

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
        return self.raw / "models"


def set_up(work: Path, chunks: int, data: Path) -> tuple[Places, Corpus]:
    """Fill a server and save its vectors, unless that has been done in this work directory.

    Args:
        work: The work directory.
        chunks: How many chunks.
        data: Where the test collections are.
    """
    places = Places(work.resolve() / f"chunks-{chunks}")
    if not (places.root / WHOLE).exists():
        prepared = prepare(find_source(SourceSettings()), places.models)
        tell(f"cutting real texts into {chunks} chunks")
        given = corpus.texts(chunks, TextTokenizer(prepared.tokenizer_path, prepared.tokens_max), data)
        with serving(places.raw, NEVER) as server:
            tell("indexing them through HTTP")
            dense = corpus.fill(server.url, given, places.root / "parts")
            corpus.collect(server.url, given, dense, corpus.queries(data)).save(places.corpus)
        for directory in (places.data, places.copy):
            shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(places.raw, places.data)
        with serving(places.data) as server:
            tell(f"at rest after {settle(server):.0f} s")
        shutil.copytree(places.data, places.copy)
        (places.root / WHOLE).touch()
    return places, Corpus.load(places.corpus)


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


def found_by(url: str, queries: Sequence[str], wishes: dict[str, Any]) -> list[list[int]]:
    """Return the rows that the server finds for each query."""
    rows = []
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        for query in queries:
            answer = client.post("/v1/search", json={"query": query, "limit": 10, **wishes})
            answer.raise_for_status()
            rows.append([int(hit["id"]) for hit in answer.json()["hits"]])
    return rows
