"""``python -m bench search``: every system in turn, round after round, so that all meet the same machine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bench import exact
from bench.calling import search_bodies
from bench.corpus import DATA, Corpus, fresh
from bench.peers.contract import CANDIDATES, HITS
from bench.peers.serve import NAMES
from bench.report import Report, median, tell
from bench.search import results, stage
from bench.search.results import Results, Speed
from bench.search.stage import Neighbour, Places
from bench.serving import Server, serving
from bench.worker import Worker

PATH: Final = "/v1/search"
#: What is asked of the server: what a user gets; and both arms fused by rank and nothing more, as the peers do it.
WISHES: Final[dict[str, dict[str, Any]]] = {"default": {}, "hybrid": {"rerank": False}}
DENSE: Final[dict[str, Any]] = {"rerank": False, "weights": {"dense": 1, "sparse": 0}}
CALLERS: Final = (1, 4, 16)
BATCH: Final = 16
#: Queries that nobody asked before, for one measurement; enough for 500 a second.
FRESH_PER_SECOND: Final = 500
STARTS: Final = 5
#: Queries whose recall is looked at: some peers take a third of a second for each.
RECALLED: Final = 100
#: The share of capacity at which latency is measured in an open loop, and for how long each round.
LOAD: Final = 0.7
OPEN_S: Final = 12.0


async def run(  # noqa: PLR0913 - each is an option of the command
    *,
    chunks: int = 20_000,
    rounds: int = 3,
    seconds: float = 2.0,
    work: Path | None = None,
    out: Path | None = None,
    data: Path = DATA,
    peers: Sequence[str] = NAMES,
    python: str = sys.executable,
) -> Report:
    """Measure.

    Args:
        chunks: Size of the corpus.
        rounds: How often each system is measured; medians count.
        seconds: Length of one measurement.
        work: Kept directory for the filled server and the vectors; a temporary one by default.
        out: Where ``search.json`` and the plot go.
        data: The test collections.
        peers: Which peers.
        python: The interpreter that has the peers' libraries.
    """
    with ExitStack() as stack:
        place = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        places, corpus = await stage.set_up(place, chunks, data)
        starts_s = stage.starts(places, STARTS)
        found, absent = stack.enter_context(stage.neighbours(peers, places, python))
        course = Course(stack, places, corpus, found, seconds)
        for number in range(1, rounds + 1):
            course.round()
            tell(f"round {number} of {rounds} done")
        course.open_loop(rounds)
        outcome = Results(chunks, starts_s, course.speeds, course.recalls(), absent, course.shares())
    report = Report("search", outcome.figures(), outcome.peers())
    if out is not None:
        report.save(out, outcome.plain())
        results.draw(outcome, out)
    return report


class Course:
    """The systems, and what was measured of them so far.

    Args:
        stack: Ends what is started here.
        places: Where things are kept.
        corpus: The corpus.
        neighbours: The peers.
        seconds: Length of one measurement.
    """

    def __init__(
        self, stack: ExitStack, places: Places, corpus: Corpus, neighbours: list[Neighbour], seconds: float
    ) -> None:
        self._corpus = corpus
        self._neighbours = neighbours
        self._seconds = seconds
        self._server: Server = stack.enter_context(serving(places.data))
        self._callers = stack.enter_context(Worker("bench.calling"))
        self._house = stack.enter_context(Worker("bench.search.inprocess", str(places.copy)))
        self._fresh: Iterator[str] = fresh(corpus.queries, 1)
        self._cpu: dict[str, list[float]] = {}
        self.speeds: dict[str, list[Speed]] = {}
        stage.settle(self._server)
        for wishes in WISHES.values():  # every query once: from here on their vectors are remembered
            self._ask(self._callers, self._corpus.queries, wishes, 4, once=True, seconds=60.0)
            self._ask(self._house, self._corpus.queries, wishes, 4, once=True, seconds=60.0)

    def round(self) -> None:
        """Measure every system once."""
        for shape, wishes in WISHES.items():
            for callers in CALLERS:
                self._http(shape, "warm", callers, self._corpus.queries, wishes)
            self._through("in process", self._house, f"{shape}, warm, {CALLERS[-1]}", self._corpus.queries, wishes)
            for callers in (CALLERS[0], CALLERS[-1]):
                given = self._unasked()
                self._http(shape, "fresh", callers, given, wishes)
            for one in self._neighbours:
                if one.name.startswith("engine"):  # the same queries, right after
                    self._peer(one, f"{one.name}, embedding, {shape}", batch=BATCH, hybrid=True, texts=given)
        for one in self._neighbours:
            for hybrid in {False, bool(one.told["hybrid"])}:
                kind = "hybrid" if hybrid else "dense"
                self._peer(one, f"{one.name}, {kind}, alone", batch=1, hybrid=hybrid)
                if one.told["batches"]:
                    self._peer(one, f"{one.name}, {kind}, batch", batch=BATCH, hybrid=hybrid)

    def open_loop(self, rounds: int) -> None:
        """Measure latency at a share of capacity, with queries that nobody asked before."""
        capacity = median([one.rate for one in self.speeds["http, default, fresh, 16"]])
        for seed in range(rounds):
            rate = LOAD * capacity
            given = self._unasked(round(1.5 * rate * OPEN_S))
            order = {"port": self._server.port, "path": PATH, "bodies": search_bodies(given)}
            told = self._callers.ask(**order, rate=rate, seconds=OPEN_S, seed=seed)
            self._note(f"open loop at {LOAD:g} C", told)

    def recalls(self) -> dict[str, dict[str, float]]:
        """Return recall@10 against exact search, by system and kind."""
        corpus = self._corpus
        tell("exact search, and what everybody found of it")
        dense = exact.dense(corpus.dense, corpus.query_dense[:RECALLED], CANDIDATES)
        words = exact.sparse(corpus.sparse, corpus.query_sparse.first(RECALLED), CANDIDATES)
        both = exact.hybrid(dense, words, HITS)
        best = {"dense": dense, "hybrid": both}
        url = self._server.url
        ours = {
            kind: exact.recall(stage.found_by(url, corpus.queries[:RECALLED], wishes), best[kind], HITS)
            for kind, wishes in (("dense", DENSE), ("hybrid", WISHES["hybrid"]))
        }
        found = {"penstock": ours}
        for one in self._neighbours:
            kinds = ("dense", "hybrid") if one.told["hybrid"] else ("dense",)
            found[one.name] = {
                kind: exact.recall(
                    one.worker.ask(do="find", hybrid=kind == "hybrid", count=RECALLED)["found"], best[kind], HITS
                )
                for kind in kinds
            }
        return found

    def shares(self) -> dict[str, float]:
        """Return the processor time of one search through HTTP by process, in milliseconds."""
        return {role: median(values) for role, values in self._cpu.items()}

    def _unasked(self, count: int = 0) -> list[str]:
        return list(islice(self._fresh, count or round(FRESH_PER_SECOND * self._seconds)))

    def _http(self, shape: str, regime: str, callers: int, given: Sequence[str], wishes: dict[str, Any]) -> None:
        before = self._server.cpu_s()
        told = self._through("http", self._callers, f"{shape}, {regime}, {callers}", given, wishes)
        if callers == CALLERS[-1]:
            used = {role: value - before.get(role, 0.0) for role, value in self._server.cpu_s().items()}
            for role, value in {**used, "callers": told["cpu_s"]}.items():
                each_ms = 1000 * value / max(1, len(told["latencies_ms"]))
                self._cpu.setdefault(f"{shape}, {regime}: {role}", []).append(each_ms)

    def _through(
        self, way: str, worker: Worker, name: str, given: Sequence[str], wishes: dict[str, Any]
    ) -> dict[str, Any]:
        callers = int(name.rpartition(", ")[2])
        told = self._ask(worker, given, wishes, callers, once="fresh" in name, seconds=self._seconds)
        self._note(f"{way}, {name}", told)
        return told

    def _ask(
        self, worker: Worker, given: Sequence[str], wishes: dict[str, Any], callers: int, *, once: bool, seconds: float
    ) -> dict[str, Any]:
        bodies = search_bodies(given, wishes)
        return worker.ask(port=self._server.port, path=PATH, bodies=bodies, callers=callers, seconds=seconds, once=once)

    def _note(self, name: str, told: dict[str, Any]) -> None:
        count = len(told["latencies_ms"])
        if not count:
            raise RuntimeError(f"{name}: nothing was answered ({told['last_failure']})")
        speed = Speed(count / told["took_s"], told["latencies_ms"], told["degraded"], told["refused"])
        self.speeds.setdefault(name, []).append(speed)
        tell(f"  {name:<36}{speed.rate:8.1f}/s  p50 {median(speed.latencies_ms):6.1f} ms  degraded {speed.degraded}")

    def _peer(self, one: Neighbour, name: str, **order: Any) -> None:
        told = one.worker.ask(do="measure", seconds=self._seconds, **order)
        self.speeds.setdefault(name, []).append(Speed(told["rate"], [told["p50_ms"]], 0, 0))
        tell(f"  {name:<36}{told['rate']:8.1f}/s")
