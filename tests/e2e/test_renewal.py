"""Renewal of an older release's collection, killed again and again: searchable throughout, right in the end."""

import json
import random
import threading
import time

import httpx
import pytest

from tests.e2e.conftest import penstock_json
from tests.rigs import languages

#: Times that the server is killed, at moments of a renewal that takes some 0.3 s.
KILLS = 6
COPIES = 8

TEXTS = {f"{word} {copy}": f"{text}，第{copy}次" for text, word in languages.CHINESE for copy in range(COPIES)}


def age(data_dir):
    """Make the records of collections those of a release that knew one version of text."""
    for path in data_dir.rglob("collection.json"):
        stated = json.loads(path.read_text())
        del stated["text"], stated["renewing"]
        path.write_text(json.dumps(stated))


@pytest.fixture(params=[1, 2])
def begin(request, serve, tmp_path):
    """Return a function that starts servers of so many store processes."""
    config = tmp_path / "shards.yaml"
    config.write_text(f"store:\n  shards: {request.param}\n")
    return lambda: serve("--config", str(config))


@pytest.fixture
def aged(begin, data_dir):
    """A data directory with a collection of plain text."""
    server = begin()
    with server.client() as client:
        client.put("/v1/collections/old").raise_for_status()
    server.terminate()
    age(data_dir)
    server = begin()
    documents = [{"id": id, "text": text} for id, text in TEXTS.items()]
    with server.client() as client:
        told = client.post("/v1/collections/old/documents", json={"documents": documents}).json()
        assert told["indexed"] == len(TEXTS)
        assert client.get("/v1/collections/old").json()["text"] == 1
    server.terminate()
    return data_dir


def by_words(client, query):
    asked = {"query": query, "weights": {"dense": 0}, "limit": 50}
    return {hit["id"] for hit in client.post("/v1/collections/old/search", json=asked).json()["hits"]}


def renew_and_kill(server, after_s):
    """Ask for a renewal, and kill the server after a while; return whether it had ended."""
    ended = []

    def ask():
        try:
            with httpx.Client(base_url=server.url, timeout=30) as client:
                ended.append(client.post("/v1/collections/old/renew").is_success)
        except httpx.HTTPError:
            pass

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(after_s)
    server.kill()
    asking.join()
    return bool(ended)


def test_a_renewal_that_is_killed_is_gone_on_with(begin, aged):
    luck = random.Random(29)
    for _ in range(KILLS):
        server = begin()
        with server.client() as client:
            # What was found before is found at every moment: a whole text, by its own words.
            id = luck.choice(sorted(TEXTS))
            assert id in by_words(client, TEXTS[id])
        if renew_and_kill(server, luck.uniform(0.01, 0.3)):
            break
    server = begin()
    with server.client() as client:
        assert client.post("/v1/collections/old/renew").status_code == 200
        told = client.get("/v1/collections/old").json()
        assert (told["text"], told["renewing"], told["documents"]) == (2, False, len(TEXTS))
        for _, word in languages.CHINESE:
            assert by_words(client, word) >= {f"{word} {copy}" for copy in range(COPIES)}
    server.terminate()
    server = begin()
    with server.client() as client:
        assert client.get("/v1/collections/old").json()["text"] == 2
        assert by_words(client, "茶叶")


@pytest.mark.parametrize("begin", [1], indirect=True)
def test_the_command_renews_what_status_shows_as_old(aged):
    (old,) = penstock_json("status", "--data-dir", aged)["collections"]
    assert (old["name"], old["text"]) == ("old", 1)
    assert penstock_json("renew", "--data-dir", aged) == {"renewed": {"old": len(TEXTS)}}
    hits = penstock_json("search", "茶叶", "--collection", "old", "--data-dir", aged)["hits"]
    assert any("茶叶" in hit["text"] for hit in hits)
    assert penstock_json("renew", "--data-dir", aged) == {"renewed": {}}
    assert penstock_json("renew", "old", "--data-dir", aged) == {"renewed": {"old": 0}}
