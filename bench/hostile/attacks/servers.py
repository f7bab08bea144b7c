"""What is done to a server from beside: signals, a frozen store, files that are gone or damaged, very many collections.

Each attack has a server of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from bench.hostile.attack import Attack, Got
from bench.hostile.target import Target, head
from bench.hostile.watch import anonymous_mb
from bench.processes import children, role_of
from bench.serving import Server, serving

SETTINGS: Final = {"PENSTOCK_RATE_LIMIT": "0", "PENSTOCK_LOG_LEVEL": "error"}
#: Within this the readiness follows what happened.
NOTICED_S: Final = 20.0
RETURNED_S: Final = 30.0
RETURNED_TIMES: Final = 1.2
COLLECTIONS: Final = 1_000
#: What the promise about many collections says.
START_S_MAX: Final = 10.0
PER_COLLECTION_MB: Final = 1.0

Served = tuple[Target, Server]


@contextlib.contextmanager
def lone(target: Target) -> Iterator[Path]:
    """Yield an empty data directory that has the model."""
    with tempfile.TemporaryDirectory(prefix="penstock-hostile-") as directory:
        shutil.copytree(target.data_dir / "models", Path(directory) / "data" / "models")
        yield Path(directory) / "data"


@contextlib.contextmanager
def served(directory: Path, log: Path | None = None) -> Iterator[Target]:
    """Yield a server on a data directory.

    Args:
        directory: The data directory.
        log: Where it writes its log; in the data directory by default.
    """
    with serving(directory, SETTINGS, log) as server:
        yield Target(server.port, server.pid, directory)


def _ready(target: Target, wanted: int, within_s: float = NOTICED_S) -> bool:
    """Wait until ``/readyz`` says what is wanted; return whether it did."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if target.ask("GET", "/readyz", timeout_s=5).status == wanted:
            return True
        time.sleep(0.2)
    return False


def _store(target: Target) -> int:
    """Return the store's process, 0 if there is none."""
    return next((one for one in children(target.pid) if role_of(one) == "store"), 0)


def _hangup(target: Target) -> Got:
    with lone(target) as directory, served(directory) as server:
        store = _store(server)
        for one in (server.pid, store):
            os.kill(one, signal.SIGHUP)
        time.sleep(1.0)
        answer = server.index("default", {"id": "a", "text": "still there"})
        return Got(
            f"an index request {answer}, the store's process {'the same' if _store(server) == store else 'another'}",
            answer.status == 200,
        )


def _stalled(target: Target) -> Got:
    """A server that is to end while an upload stands still."""
    with lone(target) as directory, served(directory) as server, server.connected() as raw:
        raw.sendall(head("POST", "/v1/embed", "Content-Type: application/json", "Content-Length: 1000") + b"x")
        time.sleep(0.2)
        began_s = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        while time.monotonic() - began_s < NOTICED_S and _lives(server.pid):
            time.sleep(0.05)
        took_s = time.monotonic() - began_s
        return Got(f"ended after {took_s:.1f} s", took_s < 5)


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def _frozen(target: Target) -> Got:
    with lone(target) as directory, served(directory) as server:
        store = _store(server)
        os.kill(store, signal.SIGSTOP)
        noticed = _ready(server, 503)
        os.kill(store, signal.SIGCONT)
        back = _ready(server, 200, 60)
        return Got(f"not ready: {noticed}; ready again: {back}", noticed and back)


def _gone(target: Target) -> Got:
    with lone(target) as directory, served(directory) as server:
        server.index("default", {"id": "a", "text": "alpha"})
        shutil.rmtree(directory, ignore_errors=True)
        answer = server.index("default", {"id": "b", "text": "beta"})
        said = b'"indexed"' in answer.body.split(b'"documents"')[-1].split(b"]")[0]
        noticed = _ready(server, 503)
        return Got(f"an index request {answer}, not ready: {noticed}", noticed and not said)


def _damaged(harm: Callable[[Path], object], target: Target) -> Got:
    """One collection is harmed while the server is down; the other one serves, and the harmed one can be deleted."""
    with lone(target) as directory:
        with served(directory) as server:
            for name in ("good", "bad"):
                server.index(name, *({"id": str(n), "text": f"{name} document {n}"} for n in range(20)))
        harm(directory / "collections" / "bad")
        with served(directory) as server:
            good = server.search({"query": "document"}, "good")
            bad = server.search({"query": "document"}, "bad")
            listed = [
                one
                for one in json.loads(server.ask("GET", "/v1/collections").body)["collections"]
                if one["name"] == "bad"
            ]
            deleted = server.ask("DELETE", "/v1/collections/bad")
            again = server.index("bad", {"id": "new", "text": "new"})
            said = f"the other {good}, itself {bad}, {len(listed)} listed, deleted {deleted}, made again {again}"
            kept = (good.status, deleted.status, again.status, len(listed)) == (200, 200, 200, 1) and bad.status != 500
            return Got(said, kept)


def _segment(root: Path) -> Path:
    return next(one for one in sorted(root.rglob("*")) if one.name == "segment.json")


def _truncate(root: Path) -> None:
    for one in root.rglob("*"):
        if one.is_file() and "segments" in one.parts and one.suffix != ".json":
            os.truncate(one, 0)


def _elsewhere(root: Path) -> None:
    manifest = root / "collection.json"
    manifest.write_text(manifest.read_text().replace('"bad"', '"../../elsewhere"'))


def _no_file(root: Path) -> None:
    (root / "collection.json").unlink()
    (root / "collection.json").mkdir()


HARM: Final[dict[str, Callable[[Path], object]]] = {
    "its segments are empty": _truncate,
    "random bytes in a segment's description": lambda root: _segment(root).write_bytes(os.urandom(100)),
    "its manifest is empty": lambda root: (root / "collection.json").write_bytes(b""),
    "its manifest names another place": _elsewhere,
    "its shard is gone": lambda root: shutil.rmtree(next(one for one in root.iterdir() if one.is_dir())),
    "its manifest is a directory": _no_file,
}


def _strays(target: Target) -> Got:
    with lone(target) as directory:
        with served(directory) as server:
            server.index("good", {"id": "a", "text": "alpha"})
        for name in ("lost+found", ".Trash"):
            (directory / "collections" / name).mkdir()
        (directory / "collections" / "notes.txt").write_text("x")
        with served(directory) as server:
            answer = server.search({"query": "alpha"}, "good")
            return Got(str(answer), answer.status == 200)


def _many(target: Target) -> Got:
    with lone(target) as directory:
        with served(directory) as server:
            for number in range(COLLECTIONS):
                server.ask("PUT", f"/v1/collections/c{number}", {})
        with serving(directory, SETTINGS) as started:
            server = Target(started.port, started.pid, directory)
            before_mb = anonymous_mb(target.pid)
            mb = anonymous_mb(started.pid)
            threads = sum(
                len(list(Path(f"/proc/{one}/task").iterdir())) for one in (started.pid, *children(started.pid))
            )
            answers = {str(server.search({"query": "x"}, f"c{number}")) for number in range(0, COLLECTIONS, 50)}
            kept = started.ready_s < START_S_MAX and mb - before_mb < COLLECTIONS * PER_COLLECTION_MB and threads < 200
            said = f"ready after {started.ready_s:.1f} s, {threads} threads, {mb:.0f} MB; searches {', '.join(answers)}"
            return Got(said, kept and answers == {"200"})


def _peak(target: Target) -> Got:
    """Forty bodies of 9.9 MB that stand still, then go."""
    with lone(target) as directory, served(directory) as server:
        server.index("default", {"id": "a", "text": "alpha"})
        server.search({"query": "alpha"})
        before_mb = anonymous_mb(server.pid)
        opening = head("POST", "/v1/embed", "Content-Type: application/json", "Content-Length: 9999999")
        held: list[socket.socket] = []
        for _ in range(40):
            raw = socket.create_connection(("127.0.0.1", server.port), 5)
            with contextlib.suppress(OSError):
                raw.sendall(opening + b'{"texts":["' + b"a" * 9_900_000)
            held.append(raw)
        peak_mb = anonymous_mb(server.pid)
        for raw in held:
            raw.close()
        server.index("default", {"id": "big", "text": "word " * 400_000, "path": "a.md"})
        time.sleep(RETURNED_S)
        after_mb = anonymous_mb(server.pid)
        said = f"{before_mb:.0f} MB before, {peak_mb:.0f} at the peak, {after_mb:.0f} after {RETURNED_S:.0f} s"
        return Got(said, after_mb < RETURNED_TIMES * before_mb + 20)


def _private(target: Target) -> Got:
    """Nobody else may read the data, whatever the umask."""
    before = os.umask(0)
    try:
        with lone(target) as directory:
            with served(directory) as server:
                server.index("default", {"id": "a", "text": "alpha"})
                server.ask("POST", "/v1/snapshots")
            shown = [
                one
                for one in (directory, *directory.rglob("*"))
                if one.lstat().st_mode & 0o077 and one.name != "serve.log" and "models" not in one.parts
            ]
            names = ", ".join(sorted(one.name for one in shown)[:5])
            return Got(f"{len(shown)} that others may open {names}".strip(), not shown)
    finally:
        os.umask(before)


def _alone(row: str, name: str, expected: str, act: Callable[[Target], Got], *, quick: bool = True) -> Attack:
    return Attack(row, name, expected, act, watched=False, quick=quick)


ATTACKS: Final = (
    _alone("A5", "SIGHUP to the server and its store", "goes on", _hangup),
    _alone("H10", "SIGTERM while an upload stands still", "ended within 5 s", _stalled),
    _alone("H7", "the store's process stands still", "not ready; ready when it goes on", _frozen),
    _alone("H7", "the data directory is deleted under the server", "not ready, nothing is called indexed", _gone),
    *(
        _alone(
            "H4",
            f"a damaged collection: {name}",
            "the others serve; it is listed, and can be deleted",
            partial(_damaged, harm),
        )
        for name, harm in HARM.items()
    ),
    _alone("H4", "other directories among the collections", "serves", _strays),
    _alone("H9", f"{COLLECTIONS:,} collections", "ready in 10 s, no thread and under 1 MB each", _many, quick=False),
    _alone(
        "H6",
        "forty uploads of 9.9 MB that stand still, then end",
        "under 1.2 times the memory of before",
        _peak,
        quick=False,
    ),
    _alone("A6", "a umask of 000", "nothing that others may open", _private),
)
