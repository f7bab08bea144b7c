"""The example of three hosts, as the deployment page tells it: its units, its files, its Redis, on loopback.

Only addresses and passwords differ, and Qdrant is the client's local mode behind HTTP where ``QDRANT_URL`` names none.
"""

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import environment
from tests.fakes.qdrant import FakeQdrant, Listening
from tests.rigs import redis

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = DEPLOY / "three-hosts"
START_S = 60
DRAIN_S = 60


@dataclass
class Host:
    """One host's unit, started as systemd would start it.

    Attributes:
        command: What the unit runs.
        environment: Its environment.
        manager: Where it says how it stands.
        log: What it has written.
    """

    command: list[str]
    environment: dict[str, str]
    manager: socket.socket
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)
        assert self.told() == "READY=1"

    def stop(self) -> None:
        """Ask it to end, as ``KillMode=mixed`` does; it must end well, and in time."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(DRAIN_S) == 0, self.log.read_text()
        assert self.told() == "STOPPING=1"

    def told(self) -> str:
        """Return the next thing it says of itself."""
        try:
            return self.manager.recv(100).decode()
        except TimeoutError:
            raise AssertionError(self.log.read_text()) from None


@dataclass
class Site:
    """All of it."""

    api: Host
    workers: list[Host]
    url: str

    def client(self) -> httpx.Client:
        """Return a client of its API."""
        return httpx.Client(base_url=self.url, timeout=60)


def unit_command(unit: str, instance: str, options: str, config: Path, data_dir: Path) -> list[str]:
    """Return what a unit runs, with the paths of this test in the place of a host's."""
    (line,) = re.findall(r"^ExecStart=(.*)$", (DEPLOY / "systemd" / unit).read_text(), re.MULTILINE)
    line = line.replace("%I", instance).replace("$PENSTOCK_OPTIONS", options)
    line = line.replace("/etc/penstock/penstock.yaml", str(config)).replace("/var/lib/penstock", str(data_dir))
    program, *arguments = shlex.split(line)
    assert program == "/opt/penstock/.venv/bin/penstock"
    return [sys.executable, "-m", "penstock", *arguments]


def redis_options(password: str) -> tuple[str, ...]:
    """Return the example's settings of Redis as options, but for the addresses."""
    lines = (EXAMPLE / "redis.conf").read_text().replace("CHANGE-ME", password).splitlines()
    found = [line.split() for line in lines if line and not line.startswith(("#", "bind"))]
    return tuple(part for name, *rest in found for part in (f"--{name}", *rest))


@pytest.fixture
def site(tmp_path: Path, models: Path) -> Iterator[Site]:
    """Start Redis, Qdrant and the three hosts, the workers first."""
    redis.needed()
    password, key = uuid.uuid4().hex, uuid.uuid4().hex
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(redis.redis(tmp_path / "redis", options=redis_options(password)))
        url, key = os.environ.get("QDRANT_URL", ""), os.environ.get("QDRANT_API_KEY", key)
        if not url:
            url = stack.enter_context(Listening(FakeQdrant(key=key))).url
        secrets = {
            "REDIS_URL": f"redis://penstock:{password}@127.0.0.1:{bus.port}/0",
            "QDRANT_API_KEY": key,
            "QDRANT_URL": url,
            "QDRANT_PREFIX": f"e2e-{os.getpid()}-",
            "PENSTOCK_PORT": "0",
            "PENSTOCK_WORKER_HOST": "127.0.0.1",  # the example's names are those of hosts
            "PENSTOCK_WORKER_PORT": "0",
            "BUS_LEASE": "2s",
        }

        def host(name: str, unit: str, options: str = "") -> Host:
            data_dir = tmp_path / name
            shutil.copytree(models, data_dir / "models")
            manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            manager.bind(str(tmp_path / f"{name}.socket"))
            manager.settimeout(START_S)
            command = unit_command(unit, "all", options, EXAMPLE / f"{name}.yaml", data_dir)
            told = {"NOTIFY_SOCKET": str(tmp_path / f"{name}.socket")}
            return Host(command, environment() | secrets | told, manager, tmp_path / f"{name}.log")

        workers = [host(name, "penstock-worker@.service") for name in ("worker-a", "worker-b")]
        api = host("api", "penstock.service", "--role api")
        try:
            for one in (*workers, api):
                one.start()
            (address,) = re.findall(r"listens on (http://\S+)", api.log.read_text())
            yield Site(api, workers, address)
        finally:
            for one in (*workers, api):
                if one.process is not None and one.process.poll() is None:
                    one.process.kill()
                    one.process.wait(10)


def documents(part: int) -> list[dict[str, str]]:
    return [{"id": f"d{part}-{n}", "text": f"Document {n} of part {part} tells of rivers."} for n in range(10)]


def test_three_hosts_serve_and_a_worker_after_the_other_is_started_anew_under_load(site: Site) -> None:
    indexed: list[int] = []
    answers: list[int] = []
    enough = threading.Event()

    def write() -> None:
        with site.client() as client:
            while not enough.is_set():
                body = {"documents": documents(len(indexed))}
                indexed.append(client.post("/v1/collections/c/documents", json=body).json()["indexed"])

    def read() -> None:
        with site.client() as client:
            while not enough.wait(0.02):
                body = {"query": f"rivers {len(answers)}", "limit": 3}
                answers.append(client.post("/v1/collections/c/search", json=body).status_code)

    with site.client() as client:
        client.put("/v1/collections/c").raise_for_status()
        assert client.get("/readyz").status_code == 200
        load = [threading.Thread(target=one) for one in (write, read)]
        for one in load:
            one.start()
        for worker in site.workers:
            worker.stop()
            worker.start()
        enough.set()
        for one in load:
            one.join(START_S)
        assert set(indexed) == {10}, "what was accepted is indexed, whoever was away"
        assert set(answers) == {200}
        assert client.get("/v1/collections/c").json()["documents"] == 10 * len(indexed)
        client.delete("/v1/collections/c").raise_for_status()
    for host in (*site.workers, site.api):
        host.stop()


def test_an_api_without_workers_says_so_and_is_ready_again_with_them(site: Site) -> None:
    with site.client() as client:
        for worker in site.workers:
            worker.stop()
        _until(lambda: client.get("/readyz").status_code == 503)
        site.workers[0].start()
        _until(lambda: client.get("/readyz").status_code == 200)


def _until(true: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(200):
        if true():
            return
        waiting.wait(0.1)
    raise AssertionError("it did not come true")
