"""``python -m bench distributed``: of each carrier, ours and the bare client in turns, then more workers.

A broker that this machine has not is named, and the rest is measured.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench.distributed import results as found
from bench.distributed.results import BARE, OURS, Crowd, Pair, Results
from bench.distributed.system import Burst
from bench.report import Report, median, tell
from bench.worker import Worker

CALLERS: Final = (1, 16, 64)
SLOTS: Final = 64
#: Work that only waits: so long, so many at once in each process, asked for by several times as many.
WAIT_S: Final = 0.1
WAITING_SLOTS: Final = 8
WORKERS: Final = (1, 2, 4)
WAITING_CALLERS: Final = 96
WARM_S: Final = 1.0
READY_S_MAX: Final = 30.0
POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: Turns of each system.
        seconds: Length of a burst.
        callers: Numbers of callers.
        workers: Numbers of worker processes.
    """

    rounds: int = 5
    seconds: float = 1.0
    callers: tuple[int, ...] = CALLERS
    workers: tuple[int, ...] = WORKERS


QUICK: Final = Effort(1, 0.3, (1, 16), (1, 2))


class Lacking(Exception):
    """This machine has no such broker; says what lacks."""


@contextmanager
def _redis(directory: Path) -> Iterator[str]:
    from tests.rigs import redis  # noqa: PLC0415 - of the clone only, like the next

    if (why := redis.available()) is not None:
        raise Lacking(why)
    with redis.redis(directory / "redis", persistent=False) as server:
        yield server.url


@contextmanager
def _kafka(directory: Path) -> Iterator[str]:
    from tests.rigs import kafka  # noqa: PLC0415

    if (why := kafka.missing()) is not None:
        raise Lacking(why)
    with kafka.kafka(directory / "kafka") as cluster:
        yield cluster.bootstrap


#: Runs a broker that keeps its data in a directory, and says where it is.
Running = Callable[[Path], AbstractContextManager[str]]
BROKERS: Final[Mapping[str, Running]] = {"redis": _redis, "kafka": _kafka}


async def run(*, quick: bool = False, out: Path | None = None, brokers: Mapping[str, Running] = BROKERS) -> Report:
    """Measure over memory, Redis and Kafka.

    Args:
        quick: One short round.
        out: Where ``distributed.json`` and the plot go; nowhere by default.
        brokers: What runs each of them.
    """
    effort, results = QUICK if quick else Effort(), Results()
    # Workers are asked line by line, which waits: so a thread of its own, and the brokers end with that.
    await asyncio.to_thread(_all, effort, brokers, results)
    report = Report("distributed", results.figures(), results.peers())
    if out is not None:
        report.save(out, msgspec.to_builtins(results))
        found.draw(results, out)
    return report


def _all(effort: Effort, brokers: Mapping[str, Running], results: Results) -> None:
    results.pairs += Stage("memory", "-", effort).pairs(answerers=0)
    for carrier, running in brokers.items():
        with ExitStack() as stack:
            temporary = tempfile.TemporaryDirectory(prefix="penstock-distributed-", ignore_cleanup_errors=True)
            try:
                address = stack.enter_context(running(Path(stack.enter_context(temporary))))
            except Lacking as why:
                results.lacking[carrier] = str(why)
                tell(f"{carrier} is not measured: {why}")
                continue
            stage = Stage(carrier, address, effort)
            results.pairs += stage.pairs(answerers=1)
            results.crowds += stage.crowds()


class Stage:
    """One carrier, and what is measured over it.

    Args:
        carrier: ``memory``, ``redis`` or ``kafka``.
        address: Where it is.
        effort: How much is measured.
    """

    def __init__(self, carrier: str, address: str, effort: Effort) -> None:
        self._carrier, self._address, self._effort = carrier, address, effort

    def pairs(self, answerers: int) -> list[Pair]:
        """Let ours and the bare client take turns, each asking in one process and answering in another."""
        effort, carrier = self._effort, self._carrier
        pairs = [Pair(carrier, callers, [], []) for callers in effort.callers]
        with ExitStack() as stack:
            askers = {}
            for which in (BARE, OURS):
                name = f"bench{secrets.token_hex(4)}"
                for _ in range(answerers):
                    stack.enter_context(self._end("answer", which, name)).ask(do="start")
                asker = askers[which] = stack.enter_context(self._end("ask", which, name))
                asker.ask(do="start")
                _await(asker, answerers)
                _burst(asker, max(effort.callers), WARM_S)
            for number in range(effort.rounds):
                for pair in pairs:
                    pair.bare.append(_burst(askers[BARE], pair.callers, effort.seconds))
                    pair.ours.append(_burst(askers[OURS], pair.callers, effort.seconds))
                tell(f"{carrier}: round {number + 1} of {effort.rounds} done")
        return pairs

    def crowds(self) -> list[Crowd]:
        """Ask one worker process, then more: their work only waits."""
        effort, name = self._effort, f"bench{secrets.token_hex(4)}"
        crowds: list[Crowd] = []
        with ExitStack() as stack:
            workers: list[Worker] = []
            asker = stack.enter_context(self._end("ask", OURS, name))
            asker.ask(do="start")
            for count in effort.workers:
                while len(workers) < count:
                    workers.append(stack.enter_context(self._end("answer", OURS, name, WAITING_SLOTS, WAIT_S)))
                    workers[-1].ask(do="start")
                _await(asker, count)
                _until_all_work(asker, workers)
                before = _handled(workers)
                bursts = [_burst(asker, WAITING_CALLERS, 2 * effort.seconds) for _ in range(effort.rounds)]
                shares = [after - one for after, one in zip(_handled(workers), before, strict=True)]
                ideal = count * WAITING_SLOTS / WAIT_S
                crowds.append(Crowd(self._carrier, count, ideal, bursts, shares))
                tell(f"{self._carrier}: {count} workers, {crowds[-1].rate:.0f} of {ideal:.0f} requests/s")
        return crowds

    def _end(self, role: str, which: str, name: str, slots: int = SLOTS, wait_s: float = 0.0) -> Worker:
        system = f"{self._carrier}/{which}"
        return Worker("bench.distributed.end", role, system, self._address, name, str(slots), str(wait_s))


def _burst(asker: Worker, callers: int, seconds: float) -> Burst:
    return msgspec.convert(asker.ask(do="burst", callers=callers, seconds=seconds), Burst)


def _handled(workers: list[Worker]) -> list[int]:
    return [worker.ask(do="count")["handled"] for worker in workers]


def _await(asker: Worker, answerers: int) -> None:
    """Wait until so many answer.

    Raises:
        TimeoutError: They do not.
    """
    until_s = time.monotonic() + READY_S_MAX
    while not asker.ask(do="ready", answerers=answerers)["ready"]:
        if time.monotonic() > until_s:
            raise TimeoutError(f"{answerers} should answer, and do not")
        time.sleep(POLL_S)


def _until_all_work(asker: Worker, workers: list[Worker]) -> None:
    """Ask until every worker has its part: a group takes a while to share anew.

    Raises:
        TimeoutError: One of them gets nothing.
    """
    until_s = time.monotonic() + READY_S_MAX
    while True:
        before = _handled(workers)
        _burst(asker, WAITING_CALLERS, WARM_S)
        parts = [after - one for after, one in zip(_handled(workers), before, strict=True)]
        if min(parts) > median(parts) / 2:
            return
        if time.monotonic() > until_s:
            raise TimeoutError(f"the workers handled {parts}")
