"""The real program with its points on a Qdrant server: well, not there, silent, with another key."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Server, penstock, penstock_json, start
from tests.fakes.endpoint import loopback
from tests.fakes.qdrant import FakeQdrant, Listening, refusal

SECRET = "k3y-of-the-server"
DOCUMENTS = [
    {"id": "a", "path": "a.md", "text": "The decoder parses a string of JSON."},
    {"id": "b", "path": "b.md", "text": "A proxy passes a request on."},
]


@contextmanager
def qdrant() -> Iterator[tuple[str, str, Listening | None]]:
    """Yield address and key of the server at ``QDRANT_URL``, or of one of our own."""
    if url := os.environ.get("QDRANT_URL"):
        yield url, os.environ.get("QDRANT_API_KEY", ""), None
        return
    with Listening(FakeQdrant(key=SECRET)) as door:
        yield door.url, SECRET, door


def configured(directory: Path, model: str, qdrant: str, key: str = "", prefix: str = "") -> Path:
    """Write a settings file: models at one address, points at another."""
    file = directory / "penstock.yaml"
    one = f"url: {model}, model: tiny, api_key: k"
    prefix = f", prefix: '{prefix}'" if prefix else ""
    secret = f", api_key: '{key}'" if key else ""
    file.write_text(
        f"models:\n  dense: {{kind: openai, {one}, dim: 8}}\nstore:\n  backend: qdrant\n"
        f"concurrency:\n  qdrant: {{url: '{qdrant}'{secret}{prefix}}}\n"
    )
    return file


def refused(directory: Path, file: Path) -> str:
    """Start a server that cannot start; return what it says, on one line."""
    began_s = time.monotonic()
    done = penstock("serve", "--port", "0", "--data-dir", directory / "data", "--config", file)
    assert done.returncode == 2, done.stderr
    assert time.monotonic() - began_s < 5
    return " ".join(done.stderr.split())


def ended(server: Server) -> str:
    code, output = server.terminate()
    assert code == 0, output
    return output


def test_documents_are_indexed_found_and_deleted_on_the_server(tmp_path):
    with qdrant() as (url, key, door), loopback() as model:
        file = configured(tmp_path, model, url, key, f"e2e-{os.getpid()}-")
        server = start(tmp_path / "data", "--config", str(file))
        with server.client() as client:
            assert client.put("/v1/collections/c").json()["dim"] == 8
            indexed = client.post("/v1/collections/c/documents", json={"documents": DOCUMENTS}).json()
            assert indexed["indexed"] == 2, indexed
            found = client.post("/v1/collections/c/search", json={"query": "string of JSON", "strict": True}).json()
            assert found["hits"][0]["id"] == "a"
            assert found["degraded"] == []
            told = client.get("/v1/status").text + client.get("/metrics").text
            assert 'dependency_calls_total{dependency="store",outcome="calls"}' in told
            assert SECRET not in told
        assert SECRET not in ended(server)
        # Another process, another data directory: the same points.
        other = start(tmp_path / "other", "--config", str(file))
        with other.client() as client:
            assert client.get("/v1/collections/c").json()["documents"] == 2
            assert client.delete("/v1/collections/c").status_code in (200, 204)
        ended(other)
        if door is not None:
            assert door.most <= 64, "two servers, 32 each, never at once"


def test_a_server_that_is_not_there_ends_the_start_with_its_address(tmp_path):
    said = refused(tmp_path, configured(tmp_path, "http://127.0.0.1:9", "http://127.0.0.1:9"))
    assert "QDRANT_URL): http://127.0.0.1:9" in said


def test_a_server_that_accepts_and_never_answers_ends_the_start(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        said = refused(tmp_path, configured(tmp_path, "http://127.0.0.1:9", url))
    assert f"{url} has not answered within 2 s" in said


@pytest.mark.parametrize("key", ["", "another"])
def test_a_server_that_wants_another_key_ends_the_start_and_names_the_setting(tmp_path, key):
    with Listening(FakeQdrant(key=SECRET)) as door:
        said = refused(tmp_path, configured(tmp_path, "http://127.0.0.1:9", door.url, key))
    assert "set concurrency.qdrant.api_key (QDRANT_API_KEY)" in said


def test_the_server_is_named_as_missing_when_it_is_chosen_without_an_address(tmp_path):
    file = tmp_path / "penstock.yaml"
    file.write_text("store:\n  backend: qdrant\n")
    assert "store.backend: qdrant needs concurrency.qdrant.url (QDRANT_URL)" in refused(tmp_path, file)


def test_a_server_that_goes_away_is_known_though_nobody_asks_for_anything(tmp_path):
    fake = FakeQdrant()
    with loopback() as model, Listening(fake) as first:
        file = configured(tmp_path, model, first.url)
        extra = tmp_path / "breaker.yaml"
        extra.write_text(file.read_text() + "  breaker: {failures: 2, timeout: 500ms, successes: 1}\n")
        server = start(tmp_path / "data", "--config", str(extra))
        with server.client() as client:

            def ready(wanted: int) -> None:
                until_s = time.monotonic() + 30
                while client.get("/readyz").status_code != wanted:
                    assert time.monotonic() < until_s
                    time.sleep(0.05)

            first.shut()
            ready(503)
            assert "the vector store does not answer" in client.get("/readyz").text
            assert "breaker_open" in client.get("/v1/alerts").text
            with Listening(fake, port=int(first.url.rpartition(":")[2])):
                ready(200)
        server.kill()
        server.process.communicate()


def test_a_server_that_goes_away_degrades_readiness_and_comes_back_by_itself(tmp_path):
    fake = FakeQdrant()
    with loopback() as model, Listening(fake) as first:
        file = configured(tmp_path, model, first.url)
        extra = tmp_path / "breaker.yaml"
        extra.write_text(file.read_text() + "  breaker: {failures: 2, timeout: 500ms, successes: 1}\n")
        server = start(tmp_path / "data", "--config", str(extra))
        with server.client() as client:
            client.put("/v1/collections/c").raise_for_status()
            first.shut()
            for _ in range(4):
                assert client.get("/v1/collections/c").status_code == 503
            until_s = time.monotonic() + 20
            while (ready := client.get("/readyz")).status_code != 503:  # which is told once a second
                assert time.monotonic() < until_s
            assert "the vector store does not answer" in ready.text
            with Listening(fake, port=int(first.url.rpartition(":")[2])):
                until_s = time.monotonic() + 20
                while client.get("/v1/collections/c").status_code != 200:
                    assert time.monotonic() < until_s
                while client.get("/readyz").status_code != 200:
                    assert time.monotonic() < until_s
        server.kill()
        server.process.communicate()


@pytest.mark.parametrize("through_server", [False, True])
def test_an_index_run_over_a_busy_store_waits_and_ends_with_none_failed(tmp_path, through_server):
    tree, fake, writes = tmp_path / "tree", FakeQdrant(), 0
    tree.mkdir()
    for number in range(40):
        (tree / f"{number}.md").write_text(f"Page {number} is about the number {number}.\n")

    async def busy(method: str, path: str, _headers: dict[str, str]) -> httpx.Response | None:
        """Refuse the first thirty writes, and every other one after."""
        nonlocal writes
        if method == "PUT" and path.endswith("/points"):
            writes += 1
            if writes <= 30 or writes % 2:
                return refusal(429, "too many requests")
        return None

    fake.hook = busy
    with loopback() as model, Listening(fake) as door:
        file = configured(tmp_path, model, door.url)
        server = start(tmp_path / "data", "--config", str(file)) if through_server else None
        told = penstock_json("index", tree, "--data-dir", tmp_path / "data", "--config", file)
        assert (told["indexed"], told["failed"], told["errors"]) == (40, 0, [])
        assert writes > 60
        if server is not None:
            ended(server)


def test_a_node_of_three_that_dies_under_load_costs_no_request_and_is_told(tmp_path):
    one = FakeQdrant()
    nodes = [FakeQdrant(beside=one) for _ in range(3)]
    with loopback() as model, Listening(nodes[0]) as first, Listening(nodes[1]) as second, Listening(nodes[2]) as third:
        file = configured(tmp_path, model, f"{first.url},{second.url},{third.url}")
        server = start(tmp_path / "data", "--config", str(file))
        with server.client() as client:
            client.put("/v1/collections/c").raise_for_status()
            indexed = client.post("/v1/collections/c/documents", json={"documents": DOCUMENTS}).json()
            assert indexed["indexed"] == 2, indexed
            codes = []
            for n in range(60):
                if n == 20:
                    second.shut()
                began_s = time.monotonic()
                codes.append(client.post("/v1/collections/c/search", json={"query": f"string {n}"}).status_code)
                assert time.monotonic() - began_s < 2
            assert codes == [200] * 60
            until_s = time.monotonic() + 10
            while f"{second.url} is left alone" not in (status := client.get("/v1/status").text):
                assert time.monotonic() < until_s, status
            metrics = client.get("/metrics").text
            assert f'circuit_breaker_state{{dependency="store {second.url}"}} 2' in metrics
            assert client.get("/readyz").status_code == 200
            with Listening(FakeQdrant(beside=one), port=int(second.url.rpartition(":")[2])):
                until_s = time.monotonic() + 10
                while f"{second.url} is left alone" in (status := client.get("/v1/status").text):
                    assert time.monotonic() < until_s, status
        server.kill()
        server.process.communicate()
