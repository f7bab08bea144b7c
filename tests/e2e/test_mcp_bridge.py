"""``penstock mcp``: the bridge as an agent starts it, with servers that start, hang, restart and are not there."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.processes import children, role_of
from tests.e2e.conftest import command, environment, penstock, start

#: The goal is a bridge of 40 MB; it is some 25.
MEMORY_KB_MAX = 32_000


class Bridge:
    """A running ``penstock mcp``."""

    def __init__(self, *arguments: str | Path, **environ: str) -> None:
        self.process = subprocess.Popen(
            command("mcp", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment() | environ,
        )

    def send(self, method: str, id: int | None = None, **params: Any) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if id is None else {"id": id})
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        return json.loads(self.process.stdout.readline())

    def call(self, tool: str, id: int = 1, **arguments: Any) -> dict[str, Any]:
        self.send("tools/call", id, name=tool, arguments=arguments)
        answer = self.receive()
        assert answer["id"] == id, answer
        return answer["result"]

    def memory_kb(self) -> int:
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1])

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@pytest.fixture
def bridge(data_dir):
    running = Bridge("--data-dir", data_dir)
    yield running
    running.end()


def at_work(url: str) -> int:
    topics = httpx.get(f"{url}/v1/status").json()["topics"]
    return next(one["running"] for one in topics if one["name"] == "search.request")


def until(holds, within_s: float = 20) -> None:
    end_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_bridge_starts_before_its_server_and_outlives_it(bridge, data_dir, tree):
    began_s = time.monotonic()
    told = bridge.call("search", query="decode")
    assert time.monotonic() - began_s < 3
    assert (told["isError"], told["structuredContent"]["code"]) == (True, "server_down")
    assert f"penstock serve --data-dir {data_dir}" in told["content"][0]["text"]
    for _ in range(2):
        server = start(data_dir)
        try:
            assert penstock("index", tree, "--data-dir", data_dir).returncode == 0
            told = bridge.call("search", query="decode a JSON string")
            assert told["structuredContent"]["hits"], told
        finally:
            assert server.terminate()[0] == 0
        assert bridge.call("search", query="decode")["structuredContent"]["code"] == "server_down"
    assert bridge.memory_kb() < MEMORY_KB_MAX
    bridge.process.stdin.close()
    assert (bridge.process.wait(10), bridge.process.stderr.read()) == (0, b"")


def test_a_cancelled_call_stops_on_the_server_and_is_not_answered(bridge, data_dir, tree):
    server = start(data_dir)
    try:
        assert penstock("index", tree, "--data-dir", data_dir).returncode == 0
        store = next(pid for pid in children(server.process.pid) if role_of(pid) == "store")
        os.kill(store, signal.SIGSTOP)
        try:
            bridge.send("tools/call", 1, name="search", arguments={"query": "hangs", "collections": ["default"]})
            until(lambda: at_work(server.url) == 1)
            bridge.send("notifications/cancelled", requestId=1)
            until(lambda: at_work(server.url) == 0)
            # A client that goes away is a cancellation too.
            other = Bridge("--data-dir", data_dir)
            other.send("tools/call", 1, name="search", arguments={"query": "hangs too", "collections": ["default"]})
            until(lambda: at_work(server.url) == 1)
            other.process.stdout.close()
            other.process.stdin.close()
            assert other.process.wait(10) == 0
            until(lambda: at_work(server.url) == 0)
            other.end()
        finally:
            os.kill(store, signal.SIGCONT)
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
        bridge.send("ping", 2)
        assert bridge.receive() == {"jsonrpc": "2.0", "id": 2, "result": {}}
        assert httpx.get(f"{server.url}/v1/status").json()["traffic"]["client_gone"] == 2
    finally:
        server.terminate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_quietly(bridge, number, interruptible):
    bridge.call("search", query="x")
    bridge.process.send_signal(number)
    assert (bridge.process.wait(10), bridge.process.stderr.read()) == (0, b"")


def test_a_url_with_a_key_is_refused_and_the_key_of_the_environment_is_not_shown():
    done = penstock("mcp", "--url", "http://psk_secret@localhost:1")
    assert (done.returncode, "PENSTOCK_API_KEY" in done.stderr, "psk_secret" in done.stderr) == (2, True, False)
    keyed = Bridge("--url", "http://127.0.0.1:9", PENSTOCK_API_KEY="psk_secret")
    assert keyed.call("search", query="x")["structuredContent"]["code"] == "server_down"
    keyed.end()
