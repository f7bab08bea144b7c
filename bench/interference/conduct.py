"""``python -m bench interference``: every phase in turn, round after round.

Searches come in an open loop at a fixed rate, each one new to the server, and are counted from their scheduled send.
Beside them ``penstock index`` writes into the same collection as fast as it can, or the store's optimiser builds a new
generation.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.corpus import DATA, fresh
from bench.interference import results as found
from bench.interference.results import BEFORE, IDLE, INDEXING, OPTIMISING, Results, Seen
from bench.interference.searches import Searches, Stretch
from bench.report import Report, median, percentile, tell
from bench.search import stage
from bench.search.stage import Places
from bench.serving import Server, serving
from bench.tree import index, plant
from bench.worker import Worker
from penstock.client import Client

#: Nothing is remembered: what is searched and what is indexed has to be embedded in every round.
SETTINGS: Final = {"EMBED_CACHE_SIZE": "0", "SPARSE_CACHE_SIZE": "0"}
#: The optimiser begins so long after the last write, and for a collection of this size.
QUIET_S: Final = 5.0
OPTIMISE_POINTS_MAX: Final = 10_000
#: It has begun after so long, and has ended after so long.
BEGIN_S_MAX: Final = 60.0
END_S_MAX: Final = 600.0
POLL_S: Final = 0.05


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
        places, corpus = await stage.set_up(place, chunks, data)
        copy, tree = places.root / "data-interference", places.root / "tree"
        shutil.rmtree(copy, ignore_errors=True)
        stack.callback(shutil.rmtree, copy, ignore_errors=True)
        shutil.copytree(places.data, copy)
        plant(tree, files)
        server = stack.enter_context(serving(copy, SETTINGS))
        callers = stack.enter_context(Worker("bench.calling"))
        searches = Searches(server, callers, fresh(corpus.queries, 2), rate, seconds)
        results = Results(rate, chunks)
        stage.settle(server)
        searches.beside(None)  # warms up
        for number in range(1, rounds + 1):
            _round(searches, results, tree)
            _optimise(searches, results, places)
            tell(f"round {number} of {rounds} done")
    report = Report("interference", results.figures())
    if out is not None:
        report.save(out, results.plain())
        found.draw(results, out)
    return report


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


def _optimise(searches: Searches, results: Results, places: Places) -> None:
    """Let a server find a filled collection that was never optimised, and search while it makes good for that."""
    copy = places.root / "data-optimise"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(places.raw, copy)
    with serving(copy, {**SETTINGS, **stage.NEVER}) as server:
        stage.settle(server)
        _note(results, BEFORE, searches.on(server).beside(None)[0])
    points = min(OPTIMISE_POINTS_MAX, results.chunks)
    rule = {"STORE_OPTIMIZE_POINTS": str(points), "STORE_OPTIMIZE_QUIET": f"{QUIET_S:g}s"}
    with serving(copy, {**SETTINGS, **rule}) as server:
        _wait(server, present=True, seconds_max=BEGIN_S_MAX)
        stretches, _ = searches.on(server).beside(lambda: _wait(server, present=False, seconds_max=END_S_MAX))
        _note(results, OPTIMISING, stretches)
    shutil.rmtree(copy, ignore_errors=True)


def _wait(server: Server, *, present: bool, seconds_max: float) -> None:
    """Wait until the optimiser runs, or until it does no more.

    Raises:
        TimeoutError: That did not come true.
    """
    until_s = time.monotonic() + seconds_max
    while time.monotonic() < until_s:
        if ("optimiser" in server.cpu_s()) is present:
            return
        time.sleep(POLL_S)
    raise TimeoutError("the optimiser did not begin" if present else "the optimiser did not end")


def _note(results: Results, phase: str, stretches: list[Stretch]) -> None:
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
    with Client(server.url) as client:
        client.delete_documents(ids=[str(path) for path in sorted(tree.rglob("*.py"))])
