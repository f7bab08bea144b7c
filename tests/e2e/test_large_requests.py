"""Large requests on a real server: what they cost others, and what memory is left of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .conftest import Server

#: Memory is back within this time (H6), and so close to what it was.
BACK_S = 30
BACK_TIMES = 1.2

BODY = 9_900_000


def resident(pid: int) -> int:
    """Return what a process takes up beside mapped files, in bytes."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def stalled(url: str) -> socket.socket:
    """Send most of a large body, and nothing more."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    assert host is not None
    connection = socket.create_connection((host, port or 80), timeout=30)
    head = f"POST /v1/embed HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {BODY + 99}"
    connection.sendall(f"{head}\r\n\r\n".encode() + b'{"texts":["' + b"a" * (BODY - 11))
    return connection


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    running = serve()
    with running.client() as client:
        client.put("/v1/collections/default")
        client.post("/v1/embed", json={"texts": ["warm"]})
    return running


def test_memory_comes_back_after_bodies_that_stall_and_requests_of_ten_megabytes(server: Server) -> None:
    pid = server.process.pid
    before = resident(pid)
    with ExitStack() as stack, server.client() as client:
        for _ in range(20):
            stack.enter_context(stalled(server.url))
        peak = resident(pid)
        texts = ["ab " * (BODY // 3)]
        assert client.post("/v1/embed", json={"texts": texts}).json()["truncated"] == [0]
        assert client.post("/v1/rerank", json={"query": "(" * BODY, "texts": ["a"]}).json()["query_truncated"]
    assert peak > before + 150_000_000
    until_s = time.monotonic() + BACK_S
    while resident(pid) > BACK_TIMES * before and time.monotonic() < until_s:
        time.sleep(0.5)
    assert resident(pid) <= BACK_TIMES * before, (before, peak, resident(pid))


def test_many_long_texts_are_answered_and_searches_pass_them(server: Server) -> None:
    texts = [f"word{number} " + "lorem ipsum dolor sit amet " * 370 for number in range(60)]
    with server.client() as client, ThreadPoolExecutor(2) as threads:
        asked = [
            threads.submit(client.post, "/v1/embed", json={"texts": texts}, timeout=240),
            threads.submit(client.post, "/v1/rerank", json={"query": "lorem", "texts": texts}, timeout=240),
        ]
        took_s = []
        while not all(one.done() for one in asked):
            began_s = time.monotonic()
            assert client.post("/v1/search", json={"query": f"hello {began_s}"}).status_code == 200
            took_s.append(time.monotonic() - began_s)
            time.sleep(0.02)  # a quick machine would be over the client's rate
        whole_s = sum(took_s)
        embedded, ranked = (one.result().json() for one in asked)
    assert (len(embedded["embeddings"]), len(ranked["results"])) == (60, 60)
    assert embedded["truncated"] == ranked["truncated"] == list(range(60))
    # One search takes a small part of what the texts take, though both want the same model.
    assert max(took_s) < max(1.0, whole_s / 4)
