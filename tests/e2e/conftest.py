"""The real program: processes on free loopback ports, stopped by the ids they were started with."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from penstock.models.model_source import find_source
from penstock.models.prepare import prepare_model
from penstock.stores.lock import find_lock_holder

START_S = 60


@dataclass
class Server:
    """A running ``penstock serve``."""

    process: subprocess.Popen[str]
    url: str
    data_dir: Path

    def client(self) -> httpx.Client:
        """Return an HTTP client of this server."""
        return httpx.Client(base_url=self.url, timeout=60)

    def kill(self) -> None:
        """End the server as a crash would."""
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> tuple[int, str]:
        """Ask the server to end; return its exit code and what it wrote."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the prepared model, made once."""
    directory = tmp_path_factory.mktemp("models")
    prepare_model(find_source(), directory)
    return directory


@pytest.fixture
def data_dir(tmp_path: Path, models: Path) -> Path:
    """Return a data directory that has its model already."""
    directory = tmp_path / "data"
    shutil.copytree(models, directory / "models")
    return directory


def environment() -> dict[str, str]:
    """Return a clean environment: no setting of the machine may change what is tested."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "COLUMNS": "100"}


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of a penstock command."""
    return [sys.executable, "-m", "penstock", *map(str, arguments)]


def penstock(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a penstock command to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env=environment(), timeout=240, check=False
    )


def penstock_json(*arguments: str | Path, cwd: Path | None = None) -> dict[str, object]:
    """Run a penstock command with ``--json`` and return its object."""
    done = penstock(*arguments, "--json", cwd=cwd)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def start(data_dir: Path, *arguments: str, environ: Mapping[str, str] = MappingProxyType({})) -> Server:
    """Start a server on a free port, with more in its environment, and wait until it listens."""
    process = subprocess.Popen(
        command("serve", "--port", "0", "--data-dir", data_dir, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment() | dict(environ),
    )
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and process.poll() is None:
        held = find_lock_holder(data_dir)
        if held is not None and held.pid == process.pid and held.url:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{held.url}/readyz").status_code == 200:
                    return Server(process, held.url, data_dir)
    process.kill()
    output, _ = process.communicate()
    raise AssertionError(f"the server did not start:\n{output}")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let what a test starts hear SIGINT: a job in the background of a shell ignores it, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def await_searches(client: httpx.Client, query: str) -> None:
    """Search until it is answered; until then nothing but refusals for a while may come."""
    for _ in range(50):
        answer = client.post("/v1/search", json={"query": query})
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 200:
            return
    raise AssertionError("searches are not answered again")


@pytest.fixture
def serve(data_dir: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts servers on the data directory; all are ended afterwards."""
    started: list[Server] = []

    def begin(*arguments: str) -> Server:
        server = start(data_dir, *arguments)
        started.append(server)
        return server

    yield begin
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a small source tree."""
    root = tmp_path / "tree"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "decoder.py").write_text(
        '"""Decode JSON."""\n\n\nclass Decoder:\n    def decode(self, text):\n'
        '        """Parse a JSON string into Python objects."""\n        return self.scan(text)\n'
    )
    (root / "pkg" / "proxy.py").write_text(
        '"""Proxies."""\n\n\ndef send_through_proxy(request, proxy):\n'
        '    """Send an HTTP request through a proxy."""\n    return proxy.open(request)\n'
    )
    (root / "README.md").write_text("# A tree\n\nAbout trees and their leaves.\n\n## Install\n\nPlant it.\n")
    (root / ".gitignore").write_text("*.log\n!keep.log\n")
    (root / "noise.log").write_text("noise\n")
    (root / "keep.log").write_text("kept after all\n")
    (root / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (root / "package-lock.json").write_text("{}\n")
    return root
