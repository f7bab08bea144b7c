"""The server, each command and a worker, watched: nothing leaves the machine, nothing is written elsewhere (A1)."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from penstock.cli.main import COMMANDS
from tests.e2e.conftest import command, environment
from tests.rigs import redis, strace

#: Libraries that report usage begin about ten seconds after they were loaded.
WATCHED_S = 15

#: Where anybody may write: it is nowhere. Python keeps its compiled modules beside the modules.
NOWHERE = ("/dev/null", "/dev/tty", "/proc/self/")
COMPILED = "__pycache__"


@dataclass
class Place:
    """A user's home, a directory for what is temporary, a data directory; all else is watched."""

    root: Path
    data: Path
    temporary: Path
    home: Path = field(init=False)
    _number: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.home = self.root / "home"
        self.home.mkdir()
        self.editor.write_text("#!/bin/sh\n")
        self.editor.chmod(0o755)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of whatever is watched."""
        return environment() | {"HOME": str(self.home), "TMPDIR": str(self.temporary), "VISUAL": str(self.editor)}

    @property
    def editor(self) -> Path:
        """An editor that does nothing."""
        return self.root / "code"

    def log(self) -> Path:
        """Return a new file for what is seen."""
        return self.root / f"strace-{next(self._number)}"

    def run(self, *arguments: str | Path, out: Path | None = None, code: int = 0) -> str:
        """Run a command of Penstock under watch; assert that it kept to itself; return what it printed."""
        returned, said, watched = strace.run(command(*arguments), self.environ, self.root, self.log())
        assert returned == code, said
        self.check(watched, out)
        return said

    def check(self, watched: strace.Watched, out: Path | None = None) -> None:
        """Assert that nothing was reached or written that nobody asked for."""
        assert watched.reached == set()
        allowed = [self.data, self.temporary, *([out] if out else [])]
        assert [path for path in sorted(watched.written) if not _is_within(path, allowed)] == []
        assert list(self.home.iterdir()) == []


def _is_within(path: Path, allowed: list[Path]) -> bool:
    if str(path).startswith(NOWHERE) or COMPILED in path.parts:
        return True
    return any(path.is_relative_to(place) for place in allowed)


@pytest.fixture
def place(tmp_path: Path, data_dir: Path) -> Iterator[Place]:
    """Return a place; what was temporary there must be gone in the end."""
    strace.needed()
    # Not below tmp_path: the address of a socket in it has a hundred characters at most.
    with tempfile.TemporaryDirectory(prefix="penstock-") as temporary:
        yield Place(tmp_path, data_dir, Path(temporary))
        assert list(Path(temporary).iterdir()) == []


@contextlib.contextmanager
def running(place: Place, *arguments: str | Path, ready: str, environ: dict[str, str] | None = None) -> Iterator[None]:
    """Run a server or a worker under watch until the block ends, at least ``WATCHED_S``."""
    log = place.log()
    process = subprocess.Popen(
        [*strace.watching(log), *command(*arguments)],
        env=place.environ | (environ or {}),
        cwd=place.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = ""
        while ready not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        until_s = time.monotonic() + WATCHED_S
        yield
        time.sleep(max(0.0, until_s - time.monotonic()))
    finally:
        os.kill(strace.watched_pid(process), signal.SIGTERM)
        process.communicate(timeout=60)
    place.check(strace.seen(log, place.root))


def test_a_server_and_the_commands_beside_it_keep_to_themselves(place, tree):
    saved, args = place.root / "saved.snapshot", ("--data-dir", place.data)
    with running(place, "serve", "--port", "0", *args, ready="listens on"):
        place.run("index", tree, *args)
        assert "decode" in place.run("search", "decode a JSON string", *args)
        assert "decode" in place.run("search", "decode a JSON string", "-C", "3", "--heading", "--open", *args)
        place.run("status", *args)
        place.run("top", "--once", *args)
        place.run("snapshot", "--output", saved, *args, out=saved)
        place.run("restore", saved, "--force", *args)
        place.run("snapshots", "list", *args)
        with running(place, "watch", *args, ready="watching"):
            pass
        place.run("mcp", *args)
        place.run("keys", "create", "reader", *args)
        place.run("keys", "rotate", "reader", *args)
        place.run("keys", "list", *args)
        place.run("keys", "revoke", "reader", "--yes", *args)
        place.run("agents", "show", "codex", "--http", *args)
        place.run("config", *args)
        place.run("--help")


def test_commands_without_a_server_keep_to_themselves(place, tree):
    args = ("--data-dir", place.data)
    saved = place.root / "saved.snapshot"
    place.run("index", tree, *args)
    place.run("search", "decode a JSON string", *args)
    place.run("index", tree, "--dry-run", *args)
    place.run("status", *args)
    place.run("sources", *args)
    place.run("collections", "list", *args)
    place.run("renew", *args)
    place.run("tasks", "list", *args)
    place.run("snapshot", "--output", saved, *args, out=saved)
    place.run("restore", saved, "--force", *args)
    place.run("snapshots", "list", *args)
    place.run("forget", tree.name, "--yes", *args)
    place.run("migrate", "default", "--to", "qdrant", *args, code=2)
    place.run("dlq", "list", *args, code=2)
    place.run("top", "--once", *args, code=2)


def test_measuring_keeps_to_itself(place):
    benchmark = place.root / "benchmark"
    (benchmark / "qrels").mkdir(parents=True)
    (benchmark / "corpus.jsonl").write_text(json.dumps({"_id": "d", "title": "", "text": "a chunk of text"}) + "\n")
    (benchmark / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "text"}) + "\n")
    (benchmark / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    place.run("eval", benchmark, "--data-dir", place.data)
    place.run("check-model", "--data-dir", place.data)
    place.run("prepare-model", "--data-dir", place.data)


def test_completing_keeps_to_itself(place):
    place.run("completion", "bash")


def test_a_worker_keeps_to_itself(place):
    redis.needed()
    environ = {"BUS_BACKEND": "redis", "REDIS_URL": redis.shared().url, "BUS_PREFIX": f"test-{uuid.uuid4().hex[:8]}"}
    with running(place, "worker", "--pool", "embed", "--data-dir", place.data, ready="works for", environ=environ):
        pass


def test_without_a_data_directory_only_the_users_own_is_made(place, tree):
    returned, said, watched = strace.run(command("status"), place.environ, place.root, place.log())
    assert (returned, list(place.home.iterdir())) == (0, []), said
    place.check(watched)


def test_every_command_is_watched():
    source = Path(__file__).read_text()
    assert [name for name in COMMANDS if f'"{name}"' not in source] == []


def test_a_watched_command_that_talks_or_writes_is_seen(place):
    script = (
        "import socket, os\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))\n"
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'', ('::1', 53))\n"
        "os.mkdir('made'); open('made/w', 'w'); os.rename('made/w', 'made/grün'); open('/etc/hostname')\n"
    )
    returned, said, watched = strace.run([command()[0], "-c", script], place.environ, place.root, place.log())
    assert returned == 0, said
    assert watched.reached == {"192.0.2.1:9", "::1:53"}
    made = place.root / "made"
    assert watched.written >= {made, made / "w", made / "grün"}
    assert Path("/etc/hostname") not in watched.written
