"""A command under ``strace``: whom it and its children talk to, and which files they write."""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.hosting import skip_without

#: System calls that make, open or move files, and those that reach out or listen.
FILES = "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
TALK = "connect,bind,sendto,sendmsg,sendmmsg"

DNS = 53

_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")
_FAILED = re.compile(r"\) += -1 E")
_OPENED_TO_WRITE = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE")
_ADDRESS = re.compile(r"sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]+)\"")
_UNIX = re.compile(r"sun_path=(@?)\"([^\"]*)\"")
_AT = re.compile(r"(?:AT_FDCWD|\d+)<([^>]*)>, \"((?:[^\"\\]|\\.)*)\"")
_PATH = re.compile(r"\"((?:[^\"\\]|\\.)*)\"")
_LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.")
_RESOLVERS = re.compile(r"/(?:nscd/|systemd/resolve)")


@dataclass(frozen=True)
class Watched:
    """What a command did.

    Attributes:
        reached: Hosts it reached or tried to reach, and addresses it listened on, outside of this machine's loopback;
            and every way to ask for a host's name.
        written: Files and directories it made, opened for writing or moved.
    """

    reached: frozenset[str]
    written: frozenset[Path]


def watching(log: Path) -> list[str]:
    """Return what comes before a command that is to be watched."""
    calls = ["-e", "signal=none", "-e", f"trace={FILES},{TALK}"]
    return ["strace", "-f", "-y", "-qq", "--seccomp-bpf", *calls, "-o", str(log)]


def seen(log: Path, cwd: Path) -> Watched:
    """Read what ``strace`` has written.

    Args:
        log: Its file.
        cwd: Where the command was started, for paths that are relative to it.
    """
    reached, written = set(), set()
    with log.open(errors="replace") as lines:
        for line in lines:
            if (call := _CALL.match(line)) is None:
                continue
            name, arguments = call.groups()
            if name in TALK.split(","):
                reached.update(_reached(arguments))
            if not _FAILED.search(arguments):
                written.update(_written(name, arguments, cwd))
    return Watched(frozenset(reached), frozenset(written))


def _reached(arguments: str) -> Iterator[str]:
    for port, address in _ADDRESS.findall(arguments):
        if int(port) == DNS or not _LOOPBACK.match(address):
            yield f"{address}:{port}"
    for _, path in _UNIX.findall(arguments):
        if _RESOLVERS.search(path):
            yield path


def _written(name: str, arguments: str, cwd: Path) -> Iterator[Path]:
    if name == "bind":
        yield from (cwd / path for abstract, path in _UNIX.findall(arguments) if path and not abstract)
    elif name.startswith("open") and not _OPENED_TO_WRITE.search(arguments):
        return
    elif name not in TALK.split(","):
        at = name.endswith(("at", "at2"))
        paths = [cwd / path for path in (_paths_at(arguments) if at else _PATH.findall(arguments.partition(") = ")[0]))]
        # What a link leads to is left as it was.
        yield from (Path(_real(str(path))) for path in (paths[-1:] if "link" in name else paths))


def _paths_at(arguments: str) -> list[Path]:
    return [Path(base) / path for base, path in _AT.findall(arguments)]


def _real(text: str) -> str:
    """Return a path as it was before ``strace`` escaped it."""
    return os.fsdecode(text.encode("ascii", "replace").decode("unicode_escape").encode("latin-1"))


def watched_pid(process: subprocess.Popen[str]) -> int:
    """Return the id of the command that ``strace`` has started; signals to ``strace`` itself do not reach it."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def run(command: list[str], environ: Mapping[str, str], cwd: Path, log: Path) -> tuple[int, str, Watched]:
    """Run a command to its end; return its exit code, what it printed and what it did."""
    done = subprocess.run(
        [*watching(log), *command],
        env=dict(environ),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout, seen(log, cwd)


def needed() -> None:
    """Skip the test where nothing can be watched."""
    skip_without(_why_not())


@functools.cache
def _why_not() -> str | None:
    if shutil.which("strace") is None:
        return "no strace: install strace"
    tried = subprocess.run(["strace", "-f", "--seccomp-bpf", "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"no strace: {tried.stderr.strip()}"
