"""One system under one scenario: a server on one core, the generator on another, both started for it alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from bench.overload.closed import answers_per_second
from bench.overload.records import Attempt, End, Job, Peer, Sent, Served, Setup, Variant
from bench.overload.scenarios import Request, Scenario
from bench.overload.workload import DEADLINE_S, Load

GOOD: Final = frozenset({End.ANSWERED, End.DEGRADED})
#: Priority of the server and the generator, alike: other work on a shared machine then disturbs less.
NICE: Final = -15
#: A trial that takes this much longer than its scenario has failed.
SPARE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One system under one scenario, as it went."""

    scenario: Scenario
    load: Load
    requests: Sequence[Request]
    sent: Sent
    served: Served

    def counted(self, since_s: float | None = None, until_s: float = float("inf")) -> list[Attempt]:
        """Return the attempts due in a stretch; all after the warm-up by default."""
        since_s = self.scenario.warm_s if since_s is None else since_s
        return [attempt for attempt in self.sent.attempts if since_s <= attempt.due_s < until_s]

    def good(self, attempt: Attempt) -> bool:
        """Whether it was answered within the deadline, counted from the scheduled send."""
        return attempt.end in GOOD and attempt.ended_s - attempt.due_s <= DEADLINE_S

    def share_good(self, attempts: Sequence[Attempt]) -> float:
        """Return the share answered in time; 1 of none."""
        return sum(map(self.good, attempts)) / len(attempts) if attempts else 1.0


def cores() -> tuple[int, int]:
    """Return the server's core and the generator's; the same one if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def settle(core: int) -> None:
    """Bind this process to a core and, where that is allowed, let it go before others on it."""
    os.sched_setaffinity(0, {core})
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)


def run(system: Variant | Peer, scenario: Scenario, load: Load, seed: int) -> Trial:
    """Run a system under a scenario; the requests are the same for the same seed.

    Raises:
        RuntimeError: One of the processes failed.
    """
    requests = scenario.requests(load.capacity, seed)
    with _serving(system, scenario.phases(), load) as (server, port):
        job = Job(port, requests, scenario.retries, scenario.budget, seed)
        generator = _start("generator", str(cores()[1]))
        told = generator.communicate(msgspec.msgpack.encode(job), timeout=scenario.end_s + SPARE_S)[0]
        if generator.returncode:
            raise RuntimeError(f"the generator ended with {generator.returncode}")
        sent = msgspec.msgpack.decode(told, type=Sent)
        served = msgspec.msgpack.decode(server.communicate(timeout=SPARE_S)[0], type=Served)
    return Trial(scenario, load, requests, sent, served)


def capacity(system: Peer, load: Load, decks: int) -> float:
    """Return C of work that computes, by a closed loop.

    Raises:
        RuntimeError: The server did not start.
    """
    with _serving(system, [], load) as (_, port):
        return answers_per_second(port, decks, 1)


@contextmanager
def _serving(
    system: Variant | Peer, phases: list[tuple[float, str]], load: Load
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a server; yield it and its port; end it."""
    variant, peer = (system, None) if isinstance(system, Variant) else (None, system)
    server = _start("server")
    try:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(msgspec.json.encode(Setup(cores()[0], load, phases, variant, peer)) + b"\n")
        server.stdin.flush()
        port = int(server.stdout.readline() or b"0")
        if not port:
            raise RuntimeError("the server did not start")
        yield server, port
    finally:
        server.kill()
        server.wait()


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"bench.overload.{module}", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
