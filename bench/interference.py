"""``python -m bench interference``: how long a search takes beside nothing, beside indexing, beside optimising.

Searches come in an open loop at a fixed rate, each one new to the server, and are counted from their scheduled send.
Beside them ``penstock index`` writes into the same collection as fast as it can, or the store's optimiser builds a new
generation.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import httpx

from bench import drawing
from bench.calling import search_bodies
from bench.corpus import DATA, fresh
from bench.report import Figure, Report, median, percentile, tell
from bench.search import stage
from bench.serving import Server, serving
from bench.tree import index, plant
from bench.worker import Worker

PATH: Final = "/v1/search"
GOAL: Final = 2.0
IDLE: Final = "idle"
INDEXING: Final = "indexing"
OPTIMISING: Final = "optimising"
#: Nothing is remembered: what is searched and what is indexed has to be embedded in every round.
SETTINGS: Final = {"EMBED_CACHE_SIZE": "0", "SPARSE_CACHE_SIZE": "0"}
#: Beside something that has not ended yet, searches go on for at most so often as long as without.
STRETCHES_MAX: Final = 20


@dataclass(slots=True)
class Seen:
    """What the searches of one phase saw, all rounds together."""

    latencies_ms: list[float] = field(default_factory=list)
    rounds_p99_ms: list[float] = field(default_factory=list)
    degraded: int = 0
    refused: int = 0

    def add(self, latencies_ms: list[float], told: dict[str, Any]) -> None:
        """Add what a stretch of a phase saw."""
        self.latencies_ms += latencies_ms
        self.degraded += told["degraded"]
        self.refused += told["refused"]


@dataclass(slots=True)
class Results:
    """Everything measured: searches by phase, and how fast was indexed beside them and alone, in chunks a second."""

    rate: float
    phases: dict[str, Seen] = field(default_factory=dict)
    beside: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        """Return the figures, beside their goals where there are some."""
        found = [Figure("searches a second", self.rate, "1/s")]
        idle_ms = self._percentile(IDLE, 0.99)
        for phase, seen in self.phases.items():
            p99_ms = self._percentile(phase, 0.99)
            found += [
                Figure(f"{phase}, p50", self._percentile(phase, 0.5), "ms"),
                Figure(f"{phase}, p99", p99_ms, "ms"),
                Figure("  worst", max(seen.latencies_ms), "ms"),
                Figure("  degraded", seen.degraded, "searches"),
                Figure("  refused", seen.refused, "searches"),
            ]
            if phase != IDLE:
                ratio = p99_ms / idle_ms
                found.append(Figure(f"{phase}, p99 / idle p99", ratio, "×", f"≤ {GOAL:g}", met=ratio <= GOAL))
        for name, rates in (("indexing beside searches", self.beside), ("indexing alone", self.alone)):
            if rates:
                found.append(Figure(name, median(rates), "chunks/s"))
        return found

    def plain(self) -> dict[str, Any]:
        """Return everything, latencies as percentiles."""
        shares = (10, 25, 50, 75, 90, 95, 98, 99, 99.5)
        return {
            "rate": self.rate,
            "phases": {
                phase: {
                    "searches": len(seen.latencies_ms),
                    "rounds_p99_ms": seen.rounds_p99_ms,
                    **{f"p{share:g}_ms": self._percentile(phase, share / 100) for share in shares},
                }
                for phase, seen in self.phases.items()
            },
            "indexing": {"beside": self.beside, "alone": self.alone},
        }

    def _percentile(self, phase: str, share: float) -> float:
        return percentile(self.phases[phase].latencies_ms, share)


async def run(  # noqa: PLR0913 - each is an option of the command
    *,
    chunks: int = 20_000,
    rounds: int = 3,
    rate: float = 20.0,
    seconds: float = 15.0,
    files: int = 90,
    work: Path | None = None,
    out: Path | None = None,
    data: Path = DATA,
) -> Report:
    """Search beside nothing, indexing and optimising, in turn.

    Args:
        chunks: Size of the collection that is searched.
        rounds: How often each phase comes.
        rate: Searches a second.
        seconds: Length of the idle phase; the others last as long as what is beside them.
        files: Files of the tree that is indexed.
        work: Kept directory for the filled server; a temporary one by default.
        out: Where ``interference.json`` and the plot go.
        data: The test collections.
    """
    with ExitStack() as stack:
        place = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        places, corpus = stage.set_up(place, chunks, data)
        copy, tree = places.root / "data-interference", places.root / "tree"
        shutil.rmtree(copy, ignore_errors=True)
        stack.callback(shutil.rmtree, copy, ignore_errors=True)
        shutil.copytree(places.data, copy)
        plant(tree, files)
        server = stack.enter_context(serving(copy, SETTINGS))
        callers = stack.enter_context(Worker("bench.calling"))
        searches = Searches(server, callers, fresh(corpus.queries, 2), rate, seconds)
        results = Results(rate)
        stage.settle(server)
        searches.beside(None)  # warms up
        for number in range(1, rounds + 1):
            _round(searches, results, tree)
            tell(f"round {number} of {rounds} done")
    report = Report("interference", results.figures())
    if out is not None:
        report.save(out, results.plain())
        _draw(results, out)
    return report


class Searches:
    """Searches in an open loop, stretch after stretch, while something else goes on."""

    def __init__(self, server: Server, callers: Worker, queries: Iterator[str], rate: float, seconds: float) -> None:
        self.server = server
        self._callers = callers
        self._queries = queries
        self._rate = rate
        self._seconds = seconds
        self._seed = 0

    def beside(self, other: Callable[[], object] | None) -> tuple[list[tuple[list[float], dict[str, Any]]], object]:
        """Search for a stretch, or until something else has ended; searches that ended after it do not count.

        Returns:
            For each stretch the latencies in milliseconds and what else the callers told; then what the other returned.
        """
        if other is None:
            told = self._stretch(self._seconds)
            return [(told["latencies_ms"], told)], None
        with ThreadPoolExecutor(1) as threads:
            future = threads.submit(lambda: (other(), time.monotonic()))
            found = []
            for _ in range(STRETCHES_MAX):
                found.append(self._stretch(self._seconds / 3))
                if future.done():
                    break
            value, ended_s = future.result()
        return [(before(ended_s, told), told) for told in found], value

    def _stretch(self, seconds: float) -> dict[str, Any]:
        self._seed += 1
        bodies = search_bodies(list(islice(self._queries, round(2 * self._rate * seconds) + 20)))
        return self._callers.ask(
            port=self.server.port, path=PATH, bodies=bodies, rate=self._rate, seconds=seconds, seed=self._seed
        )


def before(ended_s: float, told: dict[str, Any]) -> list[float]:
    """Return the latencies of the searches that were answered before a moment of the monotonic clock."""
    pairs = zip(told["latencies_ms"], told["ended_s"], strict=True)
    return [took_ms for took_ms, at_s in pairs if told["began_s"] + at_s < ended_s]


def _round(searches: Searches, results: Results, tree: Path) -> None:
    """Go through every phase once."""
    data_dir = searches.server.data_dir
    _note(results, IDLE, searches.beside(None)[0])
    stretches, told = searches.beside(lambda: index(tree, data_dir))
    _note(results, INDEXING, stretches)
    results.beside.append(_rate_of(told))
    _forget(searches.server, tree)
    results.alone.append(_rate_of(index(tree, data_dir)))
    _forget(searches.server, tree)
    stage.settle(searches.server)


def _note(results: Results, phase: str, stretches: list[tuple[list[float], dict[str, Any]]]) -> None:
    seen = results.phases.setdefault(phase, Seen())
    for latencies_ms, told in stretches:
        seen.add(latencies_ms, told)
    every = [ms for latencies_ms, _ in stretches for ms in latencies_ms]
    seen.rounds_p99_ms.append(percentile(every, 0.99))
    tell(f"  {phase:<12} {len(every)} searches, p50 {median(every):.1f} ms, p99 {seen.rounds_p99_ms[-1]:.1f} ms")


def _rate_of(told: object) -> float:
    assert isinstance(told, dict)
    return float(told["chunks"] / told["took_s"])


def _forget(server: Server, tree: Path) -> None:
    """Delete the tree's documents, so that it can be indexed again."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        body = {"ids": [str(path) for path in sorted(tree.rglob("*.py"))]}
        client.request("DELETE", "/v1/collections/default/documents", json=body).raise_for_status()


def _draw(results: Results, out: Path) -> None:
    def plot(pyplot: Any) -> Any:
        figure, axis = pyplot.subplots(figsize=(8, 3.6))
        for (phase, seen), colour in zip(results.phases.items(), (drawing.THEIRS, *drawing.PALETTE), strict=False):
            ordered = sorted(seen.latencies_ms)
            left = [1 - place / len(ordered) for place in range(len(ordered))]
            axis.plot(ordered, left, label=phase, color=colour, linewidth=2)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("ms from the scheduled send")
        axis.set_ylabel("share of searches slower")
        axis.legend(frameon=False)
        return figure

    drawing.save(out / "interference.svg", plot)
