"""A real Redis on a free loopback port, a process of its own that can be killed, frozen and started again.

``python -m tests.rigs.redis`` takes Debian's package apart into the user's cache, for machines without Redis; nothing
is installed. It serves after some fifty milliseconds.
"""

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.rigs.certificates import make_certificate
from tests.rigs.hosting import free_ports, of_this_process, skip_without

START_S = 10
PACKAGES = ("redis-server", "redis-tools", "liblzf1", "libjemalloc2")
PASSWORD = "it is a secret"


class Missing(Exception):
    """There is no Redis on this machine; the text says what lacks."""


@dataclass
class Redis:
    """One server, which may be down.

    Attributes:
        port: Where it listens, without TLS.
        directory: Where it keeps its data.
        persistent: Whether it survives a kill (an append-only file, written at each command).
        options: More of its own settings.
        tls_port: Where it listens with TLS; 0 for nowhere.
        host: The address it listens on.
        within: What comes before its command, where it is to run on a host of its own.
    """

    port: int
    directory: Path
    persistent: bool = True
    options: tuple[str, ...] = ()
    tls_port: int = 0
    host: str = "127.0.0.1"
    within: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://{self.host}:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it serves."""
        server, environment = _server()
        kept = ["--appendonly", "yes", "--appendfsync", "always"] if self.persistent else ["--appendonly", "no"]
        command = [*self.within, server, "--port", str(self.port), "--bind", self.host, "--dir", str(self.directory)]
        if shutil.which("setpriv"):  # it ends with this process, however that ends
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--save", "", *kept, *self.options], stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        end_s = time.monotonic() + START_S
        while not _answers(self.host, self.port):
            if self.process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"redis did not start:\n{(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash would."""
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(START_S)

    def freeze(self) -> None:
        """Let it accept connections and answer nothing."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)


def available() -> str | None:
    """Return why there can be no Redis here; ``None`` where there can."""
    try:
        _server()
    except Missing as why:
        return str(why)
    return None


def needed() -> None:
    """Skip the test where there can be no Redis."""
    skip_without(available())


@functools.cache
def shared() -> Redis:
    """Return this process's one server, which starts at the first use and ends with the process.

    Tests that share it use names of their own. Where there can be no server, the test is skipped.
    """
    needed()
    return of_this_process("redis", lambda directory: redis(directory, persistent=False))


async def crash(broker: Any) -> None:
    """End one instance of ours as if its process had been killed."""
    for lane in (broker._commands, broker._blocking, *(reader._blocking for reader in broker._readers)):
        await lane.close()
    broker._readers.clear()
    await broker._pool.disconnect()


@contextlib.contextmanager
def redis(
    directory: Path, *, persistent: bool = True, options: tuple[str, ...] = (), tls: bool = False
) -> Iterator[Redis]:
    """Run a server.

    Args:
        directory: Where it keeps its data; made if it is not there.
        persistent: Whether it survives a kill.
        options: More of its own settings.
        tls: Whether it listens with TLS as well, with a certificate of its own (``directory / "certificate.pem"``).

    Raises:
        Missing: There is no Redis.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port, tls_port = free_ports(2)
    if tls:
        make_certificate(directory)
        certificate, key = directory / "certificate.pem", directory / "key.pem"
        options += ("--tls-port", str(tls_port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
        options += ("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no")
    server = Redis(port, directory, persistent, options, tls_port if tls else 0)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _answers(host: str, port: int) -> bool:
    """Return whether it answers at all; one that wants a password says so."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1) as link:
        link.sendall(b"PING\r\n")
        said = link.recv(64)
        return said.startswith((b"+PONG", b"-NOAUTH"))
    return False


def _home() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "penstock-tests" / "redis"


@functools.cache
def _server() -> tuple[str, dict[str, str]]:
    """Return the command and its environment: the machine's own, or what was taken out of the package.

    Raises:
        Missing: There is none.
    """
    found = shutil.which("redis-server")
    if found is not None:
        return found, dict(os.environ)
    kept = _home() / "usr" / "bin" / "redis-server"
    if not kept.exists():
        raise Missing("no Redis: install redis-server, or run `python -m tests.rigs.redis`")
    libraries = next((_home() / "usr" / "lib").glob("*-linux-gnu"))
    return str(kept), {**os.environ, "LD_LIBRARY_PATH": str(libraries)}


def fetch() -> None:
    """Take Debian's packages apart into the cache."""
    home = _home()
    partly = home.with_name("redis-partly")
    shutil.rmtree(partly, ignore_errors=True)
    partly.mkdir(parents=True)
    subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=sys.stderr)
    subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=partly, check=True, stdout=sys.stderr)
    for package in partly.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(partly)], check=True)
        package.unlink()
    shutil.rmtree(home, ignore_errors=True)
    partly.rename(home)


if __name__ == "__main__":
    if available() is not None:
        fetch()
        _server.cache_clear()
    sys.exit(available())
