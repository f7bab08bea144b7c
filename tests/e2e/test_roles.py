"""One Penstock in several processes over a real Redis: servers, workers, and what becomes of both."""

import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Server, command, environment, penstock
from tests.rigs import redis

START_S = 60


@dataclass
class Worker:
    """A running ``penstock worker``."""

    process: subprocess.Popen[str]

    def terminate(self) -> tuple[int, str]:
        """Ask it to end; return its exit code and what it wrote."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a file of settings for a Redis that runs."""
    file = tmp_path / "penstock.yaml"
    file.write_text(
        "concurrency:\n"
        f"  bus: {{backend: redis, prefix: test-{uuid.uuid4().hex[:8]}, lease: 2s}}\n"
        f"  redis: {{url: '{redis.shared().url}'}}\n"
    )
    return file


@pytest.fixture
def work(data_dir: Path, config: Path) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts workers; all are ended afterwards."""
    started: list[Worker] = []

    def begin(pools: str, *arguments: str) -> Worker:
        process = subprocess.Popen(
            command("worker", "--pool", pools, "--data-dir", data_dir, "--config", config, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        assert process.stdout is not None
        started.append(Worker(process))
        said = ""
        while "works for" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        return started[-1]

    yield begin
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.communicate()


def search(server: Server, query: str) -> dict[str, object]:
    with server.client() as client:
        answer = client.post("/v1/collections/code/search", json={"query": query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def documents(count: int) -> list[dict[str, str]]:
    return [{"id": f"d{n}", "text": f"Document {n} tells of topic{n} and of rivers.\n" * 20} for n in range(count)]


def test_a_server_and_workers_make_one_penstock_and_no_accepted_work_is_lost(
    serve: Callable[..., Server], work: Callable[[str], Worker], config: Path
) -> None:
    first, second = work("embed,sparse"), work("embed,sparse,chunk,rerank")
    server = serve("--role", "api", "--pool", "search,index", "--config", str(config))
    answers: list[int] = []

    def index() -> None:
        with server.client() as client:
            client.put("/v1/collections/code")
            for part in range(5):
                sent = documents(50)[10 * part : 10 * part + 10]
                answers.append(
                    client.post("/v1/collections/code/documents", json={"documents": sent}).json()["indexed"]
                )

    indexing = threading.Thread(target=index)
    indexing.start()
    until_s = time.monotonic() + START_S
    while not answers and time.monotonic() < until_s:
        time.sleep(0.05)
    first.process.kill()  # in the middle of it
    third = work("embed,sparse,chunk,rerank")
    code, _ = second.terminate()  # and one that says goodbye
    assert code == 0
    indexing.join(START_S)
    assert answers == [10] * 5
    found = search(server, "which document tells of topic7")
    assert found["hits"][0]["id"] == "d7"
    assert found["degraded"] == []
    assert third.terminate()[0] == 0
    # Without workers the answer says what it lacks, or is refused; it is there at once either way.
    began_s = time.monotonic()
    with server.client() as client:
        answer = client.post("/v1/collections/code/search", json={"query": "rivers", "timeout_ms": 3000})
    assert answer.status_code in (200, 503, 504)
    assert time.monotonic() - began_s < 5
    assert server.terminate()[0] == 0


def test_a_worker_tells_how_it_is_and_nothing_else_where_a_port_is_given(
    work: Callable[..., Worker], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    worker = work("sparse", "--port", str(port))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/livez").status_code == 200
        # Nobody searches: that is no lack of one who only encodes.
        assert client.get("/readyz").json() == {"ready": True, "reasons": []}
        assert client.get("/healthz").status_code == 200
        told = client.get("/metrics").text
        assert 'worker_pool_limit{pool="sparse"}' in told
        assert 'circuit_breaker_state{dependency="redis"} 0' in told
        (open_,) = re.findall(r'^dependency_connections{dependency="redis"} (\d+)', told, re.MULTILINE)
        assert 1 <= int(open_) <= 20
        for method, path in (("POST", "/v1/search"), ("GET", "/v1/status"), ("GET", "/docs")):
            answer = client.request(method, path, json={"query": "x"})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        again = penstock("worker", "--pool", "sparse", "--port", str(port), "--data-dir", tmp_path / "other")
        assert again.returncode == 2
        assert f"port {port} on 127.0.0.1 is in use" in again.stderr
    assert worker.terminate()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["serve", "--port", "0", "--role", "api"], "", "BUS_BACKEND"),
        (["worker", "--pool", "embed"], "", "BUS_BACKEND"),
        (["worker", "--pool", "embedding"], "", "no pool embedding"),
        (["serve", "--port", "0", "--pool", "embed"], "", "--role api"),
        (["serve", "--port", "0", "--role", "api"], "concurrency: {bus: {backend: redis}}", "STORE_BACKEND"),
        (["worker", "--pool", "search"], "concurrency: {bus: {backend: redis}}", "STORE_BACKEND"),
        (
            ["worker", "--pool", "embed"],
            "concurrency: {bus: {backend: redis}, redis: {url: 'redis://127.0.0.1:1/0'}}",
            "redis cannot be asked",
        ),
        (
            ["worker", "--pool", "embed"],
            "concurrency: {bus: {backend: kafka}, kafka: {bootstrap: '127.0.0.1:1'}}",
            "Kafka at 127.0.0.1:1: the broker cannot be reached",
        ),
        (
            ["worker", "--pool", "embed"],
            "concurrency: {bus: {backend: kafka}, kafka: {sasl: PLAIN, user: me}}",
            "PLAIN needs a user and a password",
        ),
        (
            ["serve", "--port", "0"],
            "concurrency: {bus: {backend: redis}, redis: {url: 'redis://127.0.0.1?max_connections=99'}}",
            "has no option 'max_connections'",
        ),
        (
            ["serve", "--port", "0"],
            "concurrency: {bus: {backend: redis}, redis: {url: 'http://127.0.0.1:1'}}",
            "no address of a Redis",
        ),
    ],
)
def test_what_cannot_work_is_told_at_the_start(
    arguments: list[str], settings: str, said: str, data_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(settings)
    began_s = time.monotonic()
    done = penstock(*arguments, "--data-dir", data_dir, "--config", file)
    assert done.returncode == 2
    assert said in done.stderr
    assert time.monotonic() - began_s < 5
