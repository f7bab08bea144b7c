"""Documents that are found by words at once and by meaning later, whatever is killed in between."""

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from bench.processes import children
from tests.e2e.conftest import penstock_json

#: Times that the server, or its store process, is killed.
KILLS = 4
DOCUMENTS = 120
WORDS = ["heron", "kestrel", "plover", "siskin", "wagtail", "dunlin"]


def text_of(number, version=0):
    bird = f"The {WORDS[number % 6]} number {number}, ringed as tag{number},"
    return "\n\n".join(f"{bird} has note {part} of version {version}." for part in range(3))


def body(numbers, version=0):
    return {
        "documents": [{"id": f"d{n}", "text": text_of(n, version), "path": f"birds/d{n}.md"} for n in numbers],
        "wait": "words",
    }


def patiently(client, method, path, **asked):
    """Ask again while a store that was killed comes back: until then what needs it is refused with 503."""
    until = time.monotonic() + 30
    while (answer := client.request(method, path, **asked)).status_code == 503:
        assert time.monotonic() < until, answer.text
        time.sleep(0.05)
    return answer.raise_for_status().json()


def by_words(client, query, limit=1):
    asked = {"query": query, "weights": {"dense": 0}, "limit": limit, "rerank": False}
    return [hit["text"] for hit in patiently(client, "POST", "/v1/collections/c/search", json=asked)["hits"]]


def pending(client):
    return patiently(client, "GET", "/v1/collections/c")["pending"]


def until_embedded(client, within_s=120.0):
    until = time.monotonic() + within_s
    while left := pending(client):
        assert time.monotonic() < until, f"{left} chunks have no vectors"
        time.sleep(0.1)


@pytest.fixture(params=[1, 2])
def begin(request, serve, tmp_path):
    """Return a function that starts servers of so many store processes."""
    config = tmp_path / "shards.yaml"
    config.write_text(f"store:\n  shards: {request.param}\n")
    return lambda: serve("--config", str(config))


def test_words_are_found_at_once_and_meaning_follows(serve):
    with serve().client() as client:
        client.put("/v1/collections/c").raise_for_status()
        told = client.post("/v1/collections/c/documents", json=body(range(100))).json()
        assert (told["searchable"], told["indexed"], told["failed"]) == (100, 0, 0)
        assert {one["status"] for one in told["documents"]} == {"searchable"}
        assert "kestrel number 97," in by_words(client, "kestrel number 97")[0]
        both = client.post("/v1/collections/c/search", json={"query": "kestrel number 97"}).json()
        assert "kestrel number 97," in both["hits"][0]["text"]
        assert 0 <= both["coverage"] < 1
        until_embedded(client)
        both = client.post("/v1/collections/c/search", json={"query": "kestrel number 97"}).json()
        assert ("coverage" in both, both["degraded"]) == (False, [])
        by_meaning = {"query": "kestrel number 97", "weights": {"sparse": 0}, "limit": 50}
        assert len(client.post("/v1/collections/c/search", json=by_meaning).json()["hits"]) == 50
        again = client.post("/v1/collections/c/documents", json=body(range(100))).json()
        assert again["unchanged"] == 100


def test_vectors_are_the_same_whichever_way_they_come(serve):
    with serve().client() as client:
        for name, wait in (("c", "words"), ("d", "vectors")):
            client.put(f"/v1/collections/{name}").raise_for_status()
            asked = body(range(12)) | {"wait": wait}
            client.post(f"/v1/collections/{name}/documents", json=asked).raise_for_status()
        until_embedded(client)
        asked = {"query": "a bird with a note", "limit": 30}
        one, other = (client.post(f"/v1/collections/{name}/search", json=asked).json()["hits"] for name in "cd")
        assert [(hit["id"], hit["score"]) for hit in one] == [(hit["id"], hit["score"]) for hit in other]


@pytest.mark.parametrize("wait", ["word", "", 1, ["words"], True])
def test_a_wait_that_is_none_is_refused(serve, wait):
    with serve().client() as client:
        client.put("/v1/collections/c").raise_for_status()
        told = client.post("/v1/collections/c/documents", json=body([1]) | {"wait": wait})
        assert (told.status_code, told.json()["field"]) == (422, "wait")
        lines = '{"id": "a", "text": "one"}\n'
        head = {"content-type": "application/x-ndjson"}
        told = client.post("/v1/collections/c/documents?wait=words", content=lines, headers=head).json()
        assert told["searchable"] == 1
        assert client.post("/v1/collections/c/documents?wait=w", content=lines, headers=head).status_code == 422


def kill_store(server):
    """Kill every store process of a server."""
    for pid in children(server.process.pid):
        with contextlib.suppress(OSError):
            if b"edge.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("what", ["server", "store"])
def test_no_kill_loses_words_or_vectors(begin, what):
    """The server or its store is killed while words are written, vectors made, and documents replaced and deleted."""
    luck, told = random.Random(14), dict[int, int]()
    server = begin()
    with server.client() as client:
        client.put("/v1/collections/c").raise_for_status()
    for round_ in range(KILLS):
        numbers = luck.sample(range(DOCUMENTS), 60)

        def write(url=server.url, numbers=numbers, version=round_):
            try:
                with httpx.Client(base_url=url, timeout=30) as client:
                    for first in range(0, len(numbers), 10):
                        some = numbers[first : first + 10]
                        answer = client.post("/v1/collections/c/documents", json=body(some, version))
                        if answer.is_success:
                            told.update(
                                (n, version)
                                for n, one in zip(some, answer.json()["documents"], strict=True)
                                if one["status"] in ("searchable", "unchanged")
                            )
            except httpx.HTTPError:
                pass

        writing = threading.Thread(target=write)
        writing.start()
        time.sleep(luck.uniform(0.05, 1.5))
        if what == "store":
            kill_store(server)
            writing.join()
        else:
            server.kill()
            writing.join()
            server = begin()
        with server.client() as client:
            for number in luck.sample(sorted(told), min(5, len(told))):
                assert f"tag{number}," in by_words(client, f"tag{number}")[0]
    with server.client() as client:
        until_embedded(client)
        listed = client.get("/v1/collections/c/documents").json()["documents"]
        assert {f"d{number}" for number in told} <= {one["id"] for one in listed}
        answer = client.post(
            "/v1/collections/c/documents", json=body(range(DOCUMENTS), KILLS) | {"wait": "vectors"}
        ).json()
        assert answer["failed"] == 0
        info = client.get("/v1/collections/c").json()
        assert (info["documents"], info["chunks"], info["pending"]) == (DOCUMENTS, DOCUMENTS, 0)
        by_meaning = {"query": "plover", "weights": {"sparse": 0}, "limit": 1000}
        assert len(client.post("/v1/collections/c/search", json=by_meaning).json()["hits"]) == DOCUMENTS


def test_the_command_waits_for_vectors_and_an_interrupted_run_is_gone_on_with_by_the_server(data_dir, tmp_path, serve):
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(60):
        (root / f"d{number}.md").write_text(text_of(number))
    told = penstock_json("index", root, "--data-dir", data_dir)
    assert (told["indexed"], told["pending"]) == (60, 0)
    assert 0 < told["searchable_s"] <= told["took_s"]
    (only,) = penstock_json("collections", "list", "--data-dir", data_dir)["collections"]
    assert only["pending"] == 0
