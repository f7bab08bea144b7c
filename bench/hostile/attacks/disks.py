"""Disks that are full, read-only, or somebody else's. They need root, and are left out without."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import ROOT
from bench.hostile.attack import Attack, Got
from bench.hostile.attacks.servers import lone, served
from bench.hostile.target import Target

#: The size of the disk that gets full: the model takes some 100 MB.
DISK: Final = "420M"
#: Another user.
NOBODY: Final = 65_534
#: Root without its right to open everybody's files.
BOUND: Final = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all")
#: Refusals that say that it is not the request's fault and that another try may succeed.
LATER: Final = frozenset({500, 503, 507})


@contextlib.contextmanager
def _mounted(target: Target) -> Iterator[Path]:
    """Yield a data directory on a small disk of its own."""
    with lone(target) as directory:
        disk, image = directory.parent / "disk", str(directory.parent / "image")
        disk.mkdir()
        for command in (
            ("truncate", "--size", DISK, image),
            ("mkfs.ext4", "-q", "-F", "-m", "0", image),
            ("mount", "-o", "loop", image, str(disk)),
        ):
            subprocess.run(command, check=True)
        try:
            shutil.copytree(directory / "models", disk / "data" / "models")
            yield disk / "data"
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65_536)
            file.flush()
    return ballast


def _full(target: Target) -> Got:
    """Writes are refused while the disk is full, reads go on; afterwards all is as before."""
    with _mounted(target) as directory:
        with served(directory) as server:
            server.index("c", {"id": "first", "text": "alpha"})
            ballast = _fill(directory.parent)
            written = [server.index("c", {"id": f"d{n}", "text": "beta " * 3_000}) for n in range(20)]
            read = server.search({"query": "alpha"}, "c")
            made = server.ask("POST", "/v1/snapshots")
            ballast.unlink()
            after = server.index("c", {"id": "after", "text": "gamma"})
        refused = sorted({str(one) for one in written})
        kept = read.status == 200 and after.status == 200 and made.status in {200, 503, 507}
        kept = kept and not any(one.status == 500 for one in written)
        return Got(f"writes {', '.join(refused)}; a search {read}; a snapshot {made}; with room again {after}", kept)


def _full_start(target: Target) -> Got:
    with _mounted(target) as directory:
        with served(directory) as server:
            server.index("c", {"id": "first", "text": "alpha"})
        ballast = _fill(directory.parent)
        with served(directory, log=directory.parent.parent / "serve.log") as server:
            read = server.search({"query": "alpha"}, "c")
            ballast.unlink()
            after = server.index("c", {"id": "after", "text": "gamma"})
        return Got(
            f"a search {read}; with room again an index request {after}", (read.status, after.status) == (200, 200)
        )


def _full_restore(target: Target) -> Got:
    """A restore that the disk has no room for changes nothing and can be repeated."""
    with _mounted(target) as directory, served(directory) as server:
        server.index("c", *({"id": str(n), "text": f"alpha {n}"} for n in range(50)))
        made = json.loads(server.ask("POST", "/v1/snapshots").body)["name"]
        ballast = _fill(directory.parent)
        path = f"/v1/snapshots/{made}/restore"
        full = server.ask("POST", path, {"force": True})
        read = server.search({"query": "alpha"}, "c")
        ballast.unlink()
        again = server.ask("POST", path, {"force": True})
        kept = full.status in {503, 507} and (read.status, again.status) == (200, 200)
        return Got(f"{full}; a search {read}; with room again {again}", kept)


def _command(directory: Path) -> tuple[int, str]:
    """Search by command, with no more rights to files than their owner's."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}", "HOME": "/nonexistent"}
    command = [sys.executable, "-m", "penstock", "search", "alpha", "--collection", "c", "--data-dir", str(directory)]
    done = subprocess.run([*BOUND, *command], capture_output=True, text=True, env=environment, timeout=60, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode, "\n".join(lines)


def _plain(code: int, output: str) -> Got:
    """One line that says what is wrong, or the answer."""
    last = output.splitlines()[-1] if output else ""
    short = len(output.splitlines()) <= 12 and "Traceback" not in output
    return Got(f"exit {code}: {last[:110]}", short)


def _read_only(target: Target) -> Got:
    with lone(target) as directory:
        with served(directory) as server:
            server.index("c", {"id": "first", "text": "alpha"})
        subprocess.run(["mount", "--bind", str(directory), str(directory)], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(directory)], check=True)
            return _plain(*_command(directory))
        finally:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)


def _owned(target: Target) -> Got:
    """A collection that somebody else owns is damaged for this user; the others serve."""
    with lone(target) as directory:
        with served(directory) as server:
            for name in ("c", "theirs"):
                server.index(name, {"id": "first", "text": "alpha"})
        theirs = directory / "collections" / "theirs"
        for one in (theirs, *theirs.rglob("*")):
            os.chown(one, NOBODY, NOBODY)
            one.chmod(0o700 if one.is_dir() else 0o600)
        code, output = _command(directory)
        return Got(f"{_plain(code, output).said}", code == 0 and "Traceback" not in output)


def _for_root(attacks: tuple[Attack, ...]) -> tuple[Attack, ...]:
    return attacks if os.geteuid() == 0 else ()


ATTACKS: Final = _for_root(
    (
        Attack("H4", "a disk that gets full", "writes refused, reads served, all well with room", _full, watched=False),
        Attack("H4", "a start on a full disk", "reads served, all well with room", _full_start, watched=False),
        Attack(
            "H5",
            "a restore on a full disk",
            "503 or 507, nothing changed, can be repeated",
            _full_restore,
            watched=False,
        ),
        Attack(
            "H4", "a data directory that is read-only", "the answer, or a line that says why", _read_only, watched=False
        ),
        Attack("H4", "a collection of another user", "the others serve", _owned, watched=False),
    )
)
