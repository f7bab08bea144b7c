"""A real server while it is hammered: its store hangs, thousands hold connections, it is told to end."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import Server, penstock, start
from tests.e2e.test_server import child_of, documents

CLIENTS = 40
#: Connections that do nothing, where the limit of open files allows as many (both ends have one of their own).
IDLE_CONNECTIONS = 10_000
DRAIN_S = 20

SETTINGS = f"""
concurrency:
  http: {{rate_limit: 0, header_timeout: 60s, drain_timeout: {DRAIN_S}s}}
  search: {{queue_size: 200}}
  timeouts: {{search: 4s, store: 2s}}
  breaker: {{failures: 3, timeout: 1s}}
"""


@contextmanager
def running(models: Path, directory: Path) -> Iterator[Server]:
    """Start a server that has a few documents; end it afterwards if nobody has."""
    data = directory / "data"
    shutil.copytree(models, data / "models")
    (directory / "penstock.yaml").write_text(SETTINGS)
    server = start(data, "--config", str(directory / "penstock.yaml"))
    try:
        with server.client() as client:
            for _ in range(10):  # on a busy machine the very first may take longer than the store's short limit
                if client.put("/v1/collections/default").status_code == 200:
                    break
            body = {"documents": documents(0, 40)}
            client.post("/v1/collections/default/documents", json=body).raise_for_status()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(models, tmp_path_factory.mktemp("shared")) as one:
        yield one


@dataclass(frozen=True)
class Told:
    """One request and what came of it; status 0 if nothing came."""

    sent_s: float
    ended_s: float
    status: int
    code: str = ""
    whole: bool = True


class Crowd:
    """Clients that search again and again, each on a connection of its own for each request.

    Attributes:
        told: Every request for which a connection was had.
        refused: How many connections were not.
    """

    def __init__(self, server: Server) -> None:
        self.port = int(server.url.rpartition(":")[2])
        self.told: list[Told] = []
        self.refused = 0
        self._number = 0
        self._enough = False

    async def hammer(self) -> None:
        """Ask until it is enough, or nobody listens any more."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client())

    def stop(self) -> None:
        self._enough = True

    async def _client(self) -> None:
        while not self._enough:
            self._number += 1
            body = json.dumps({"query": f"alpha beta number{self._number}"}).encode()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.refused += 1
                return
            self.told.append(await _ask(reader, writer, body))

    def since(self, moment_s: float) -> Counter[tuple[int, str]]:
        """Count what was told to those who asked after a moment."""
        return Counter((one.status, one.code) for one in self.told if one.sent_s > moment_s)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> Told:
    head = "POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    sent_s, answer = time.monotonic(), b""
    try:
        writer.write(head.encode() + body)
        answer = await reader.read(-1)
    except OSError:
        pass
    finally:
        writer.close()
    ended_s = time.monotonic()
    if not answer:
        return Told(sent_s, ended_s, 0)
    said, _, content = answer.partition(b"\r\n\r\n")
    length = int(said.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    whole = len(content) == length
    problem = b"application/problem+json" in said
    return Told(sent_s, ended_s, int(said.split()[1]), json.loads(content)["code"] if whole and problem else "", whole)


def test_at_sigterm_under_full_load_every_accepted_request_has_its_answer_or_a_typed_refusal(models, tmp_path):
    with running(models, tmp_path) as server:
        crowd = Crowd(server)

        async def load() -> float:
            hammering = asyncio.create_task(crowd.hammer())
            while len(crowd.told) < 300:  # noqa: ASYNC110 - the load tells nobody
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            asked_s = time.monotonic()
            await asyncio.wait_for(hammering, DRAIN_S)
            return asked_s

        asked_s = asyncio.run(load())
        output, _ = server.process.communicate(timeout=DRAIN_S)
        assert server.process.returncode == 0, output
        assert time.monotonic() - asked_s < DRAIN_S
        assert "Traceback" not in output
    ended = Counter((one.status, one.code) for one in crowd.told)
    assert all(one.whole for one in crowd.told), "no answer was cut short"
    assert ended[200, ""] >= 300
    assert set(ended) <= {(200, ""), (503, "draining"), (503, "topic_full"), (503, "overloaded"), (0, "")}, ended
    assert crowd.refused == CLIENTS, "in the end nobody listens"
    # Nothing was told to nobody but those whose connection nobody took before the listener closed.
    closing_s = max(one.sent_s for one in crowd.told if one.status)
    assert [one for one in crowd.told if one.status == 0 and one.sent_s < closing_s - 0.2] == []
    assert ended[0, ""] <= CLIENTS


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a process is made to hang by SIGSTOP")
def test_a_store_that_hangs_under_load_is_told_in_typed_errors_and_forgiven_when_it_is_back(server):
    store = child_of(server.process.pid, "edge.process")
    crowd = Crowd(server)

    async def load() -> tuple[float, float]:
        hammering = asyncio.create_task(crowd.hammer())
        while len(crowd.told) < 100:  # noqa: ASYNC110 - the load tells nobody
            await asyncio.sleep(0.01)
        os.kill(store, signal.SIGSTOP)
        stopped_s = time.monotonic()
        try:
            await asyncio.sleep(3.5)
            live_s = await _live(crowd.port)
        finally:
            os.kill(store, signal.SIGCONT)
        assert live_s < 1.0, "the server itself does not hang"
        for _ in range(150):
            await asyncio.sleep(0.1)
            if crowd.since(time.monotonic() - 1)[200, ""] >= 20:
                break
        back_s = time.monotonic()
        crowd.stop()
        await hammering
        return stopped_s, back_s

    stopped_s, back_s = asyncio.run(load())
    before = Counter(one.status for one in crowd.told if one.ended_s < stopped_s)
    # The loop of a machine that has much else to do may have more than it carries.
    assert before[200] > 20, before
    assert set(before) <= {200, 503}, before
    ended = crowd.since(0)
    assert all(one.whole for one in crowd.told)
    assert all(status == 200 or code for status, code in ended), ended
    assert {status for status, _ in ended} <= {200, 503, 504}, ended
    assert ended[503, "circuit_open"] > 0, ended
    assert max(one.ended_s - one.sent_s for one in crowd.told) < 8.0
    assert crowd.since(back_s - 1)[200, ""] >= 20, "and then it answers again"
    with server.client() as client:
        status = client.get("/v1/status").json()
        assert status["ready"]
        assert {one["dependency"]: one["state"] for one in status["breakers"]}["store"] == "closed"
        assert "breaker_open" in {one["name"] for one in client.get("/v1/alerts").json()["alerts"]}


async def _live(port: int) -> float:
    """Return how long ``/livez`` takes."""
    began_s = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert (await reader.read(-1)).startswith(b"HTTP/1.1 200")
    writer.close()
    return time.monotonic() - began_s


def test_ten_thousand_idle_connections_do_not_hurt_the_others(server):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = IDLE_CONNECTIONS if hard == resource.RLIM_INFINITY else min(IDLE_CONNECTIONS, hard - 1000)
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(count)]
        client = stack.enter_context(server.client())
        times_s = []
        for number in range(40):
            began_s = time.monotonic()
            assert client.post("/v1/search", json={"query": f"gamma number{number}"}).status_code == 200
            times_s.append(time.monotonic() - began_s)
        assert sorted(times_s)[20] < 0.25
        closed = select.poll()
        for one in idle:
            closed.register(one, select.POLLIN)
        assert closed.poll(0) == [], "nobody was hung up on"


@pytest.mark.skipif(sys.platform != "linux", reason="errors name Linux paths")
def test_absurd_settings_are_all_refused_at_the_start_in_one_message(tmp_path):
    file = tmp_path / "penstock.yaml"
    file.write_text(
        "concurrency:\n"
        "  search: {workers: 0, queue_size: -5, candidates: 10, candidates_reduced: 20}\n"
        "  http: {max_concurrent: 99999999999999999999, rate_limit: -1}\n"
        "  bus: {client_share: 0, handler_timeout: 0s, publish_timeout: -1s, discipline: lifo}\n"
        "  timeouts: {search: 1000000h}\n"
        "  mystery: {answer: 42}\n"
    )
    done = penstock("serve", "--port", "70000", "--data-dir", tmp_path / "data", "--config", file)
    assert done.returncode == 2
    told = done.stderr + done.stdout
    for fault in (
        "workers",
        "queue_size",
        "max_concurrent",
        "rate_limit",
        "client_share",
        "handler_timeout",
        "publish_timeout",
        "discipline",
        "timeouts.search",
        "mystery",
        "port",
    ):
        assert fault in told, (fault, told)
    assert "Traceback" not in told
    assert not (tmp_path / "data").exists(), "nothing was begun"
