"""The generator: vegeta, an open loop of foreign make, in processes of its own on the callers' core."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from bench.report import tell
from bench.storm.plan import DEADLINE_MS

MODULE: Final = "github.com/tsenart/vegeta/v12@v12.13.0"
#: Sockets and goroutines of one generator.
CONNECTIONS: Final = 2_000
WORKERS_MAX: Final = 5_000
WORKERS: Final = 200
#: A new connection keeps its port for a minute: four generators, each with an address that is used once in a while.
PROCESSES: Final = 4
ADDRESSES: Final = 200
#: What an answer names that has given up nothing because of load.
UNDEGRADED: Final = frozenset({"query_truncated"})


class Missing(Exception):
    """The generator is neither there nor can it be built."""


class Answer(msgspec.Struct, frozen=True):
    """What became of one request.

    Attributes:
        at_s: When it was sent, in seconds of the day's clock.
        code: Its status; 0 for no answer before the deadline.
        ms: How long it took.
        rung: What a degraded answer gave up, with commas between; empty for a whole one.
        returns: Whether it says when to come back.
        error: Of no answer.
    """

    at_s: float
    code: int
    ms: float
    rung: str = ""
    returns: bool = False
    error: str = ""


class _Body(msgspec.Struct):
    degraded: list[str] = []


class _Result(msgspec.Struct):
    code: int
    timestamp: datetime
    latency: int
    error: str = ""
    body: bytes | None = None
    headers: dict[str, list[str]] | None = None


_RESULT: Final = msgspec.json.Decoder(_Result)
_BODY: Final = msgspec.json.Decoder(_Body)


def read_answer(line: bytes) -> Answer:
    """Return an answer from a line of ``vegeta encode --to json``."""
    one = _RESULT.decode(line)
    rung = ""
    if one.code == 200 and one.body:
        rung = ",".join(what for what in _BODY.decode(one.body).degraded if what not in UNDEGRADED)
    returns = any(name.lower() == "retry-after" for name in one.headers or {})
    ms = one.latency / 1e6
    if ms > DEADLINE_MS:
        # The generator gives up late where its core is busy: for its caller this was no answer.
        return Answer(one.timestamp.timestamp(), 0, ms, error=one.error[-80:] or "answered after the deadline")
    return Answer(one.timestamp.timestamp(), one.code, ms, rung, returns, one.error[-80:])


def find_vegeta(given: Path | None, place: Path) -> Path:
    """Return the generator's program: the one given, on the path, built before, or built now.

    Args:
        given: From ``--vegeta``.
        place: Where it is built.

    Raises:
        Missing: Saying what to do.
    """
    if given is not None:
        if not given.is_file():
            raise Missing(f"--vegeta: there is no file {given}")
        return given.resolve()
    if found := shutil.which("vegeta"):
        return Path(found)
    built = place / "bin" / "vegeta"
    if built.is_file():
        return built
    go = shutil.which("go")
    if go is None:
        raise Missing("bench storm needs vegeta: put it on PATH, name it with --vegeta FILE, or install Go to build it")
    tell(f"building {MODULE} (once)")
    done = subprocess.run(
        [go, "install", MODULE],
        check=False,
        env={**os.environ, "GOBIN": str(built.parent)},
        capture_output=True,
        text=True,
    )
    if done.returncode or not built.is_file():
        why = done.stderr.strip().splitlines()[-1:] or ["no reason told"]
        raise Missing(f"go install {MODULE} failed: {why[0]}; put vegeta on PATH or name it with --vegeta FILE")
    return built


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Let what is started within run on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(slots=True)
class Attack:
    """A load that runs.

    Attributes:
        processes: The generators.
        files: Their results.
    """

    vegeta: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def wait(self) -> None:
        """Wait for the end."""
        for process in self.processes:
            if process.wait():
                raise RuntimeError(f"vegeta ended with {process.returncode}")

    def answers(self) -> list[Answer]:
        """Wait for the end; return what became of the requests, in the order in which they were sent."""
        self.wait()
        command = [str(self.vegeta), "encode", "--to", "json", *map(str, self.files)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as encoding:
            assert encoding.stdout is not None
            found = [read_answer(line) for line in encoding.stdout]
        for file in self.files:
            file.unlink()
            file.with_suffix(".json").unlink()
        return sorted(found, key=lambda one: one.at_s)


class Generator:
    """Starts attacks.

    Args:
        vegeta: The program.
        place: Where targets and results lie.
        core: Where it runs.
    """

    def __init__(self, vegeta: Path, place: Path, core: int) -> None:
        self._vegeta = vegeta
        self._place = place
        self._core = core
        self._count = 0
        self._address = 0
        place.mkdir(parents=True, exist_ok=True)

    def prepared(
        self,
        targets: Iterator[str],
        rate: float,
        seconds: float,
        *,
        keep: bool = True,
        timeout_ms: int = DEADLINE_MS,
        repeated: int = 0,
    ) -> Sequence[list[str]]:
        """Write the targets of an attack; return its commands.

        Args:
            targets: Requests; as many are taken as are asked.
            rate: Requests a second.
            seconds: How long.
            keep: Whether connections are kept.
            timeout_ms: When a caller gives up.
            repeated: So many targets are asked again and again; 0: each once.
        """
        commands, processes = [], 1 if keep else PROCESSES
        for _ in range(processes):
            self._count += 1
            name, each = self._place / f"attack-{self._count}", rate / processes
            wanted = repeated or int(each * seconds) + 10
            name.with_suffix(".json").write_text("\n".join(islice(targets, wanted)) + "\n")
            command = [str(self._vegeta), "attack", "-format=json", *(() if repeated else ("-lazy",))]
            command += ["-targets", str(name.with_suffix(".json")), "-output", str(name.with_suffix(".bin"))]
            command += ["-rate", f"{round(each * 1000)}/1000s", "-duration", f"{seconds:g}s"]
            command += ["-timeout", f"{timeout_ms}ms", f"-keepalive={str(keep).lower()}"]
            command += ["-connections", str(CONNECTIONS), "-workers", str(WORKERS), "-max-workers", str(WORKERS_MAX)]
            if not keep:
                self._address = self._address % ADDRESSES + 1
                command += ["-laddr", f"127.0.1.{self._address}"]
            commands.append(command)
        return commands

    def start(self, commands: Sequence[Sequence[str]]) -> Attack:
        """Start what has been prepared."""
        attack = Attack(self._vegeta)
        with pinned(self._core):
            for command in commands:
                attack.processes.append(subprocess.Popen(command))
                attack.files.append(Path(command[command.index("-output") + 1]))
        return attack
