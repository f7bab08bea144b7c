"""The real program with its models on another server, with one that is not there, and with another than before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Server, penstock, start
from tests.fakes.endpoint import KEY, loopback

DOCUMENTS = [
    {"id": "a", "path": "a.md", "text": "The decoder parses a string of JSON."},
    {"id": "b", "path": "b.md", "text": "A proxy passes a request on."},
]


def configured(directory: Path, url: str, model: str = "tiny", *, crossed: bool = True) -> Path:
    """Write a settings file whose models are at ``url``."""
    file = directory / f"{model}.yaml"
    one = f"url: {url}, model: {model}, api_key: {KEY}"
    rerank = f"  rerank: {{kind: cohere, {one}}}\n" if crossed else ""
    file.write_text(f"models:\n  dense: {{kind: openai, {one}}}\n  sparse: {{kind: tei, {one}}}\n{rerank}")
    return file


@pytest.fixture
def endpoint() -> Iterator[str]:
    with loopback() as url:
        yield url


def ended(server: Server) -> str:
    code, output = server.terminate()
    assert code == 0, output
    return output


def test_documents_are_indexed_and_found_by_models_of_another_server(tmp_path, endpoint):
    server = start(tmp_path / "data", "--config", str(configured(tmp_path, endpoint)), "--log-level", "debug")
    with server.client() as client:
        assert client.put("/v1/collections/c").json()["dim"] == 8
        indexed = client.post("/v1/collections/c/documents", json={"documents": DOCUMENTS}).json()
        assert indexed["indexed"] == 2, indexed
        found = client.post("/v1/collections/c/search", json={"query": "string of JSON", "strict": True}).json()
        assert found["hits"][0]["id"] == "a"
        assert found["degraded"] == []
        status = client.get("/v1/status")
        models = {one["part"]: one for one in status.json()["models"]}
        assert {part: one["name"] for part, one in models.items()} == {
            "dense": "openai/tiny",
            "sparse": "tei/tiny",
            "rerank": "cohere/tiny",
        }
        assert models["dense"]["url"] == f"{endpoint}/v1/embeddings"
        told = status.text + client.get("/metrics").text
        assert 'dependency_calls_total{dependency="embed",outcome="calls"}' in told
    output = ended(server)
    assert KEY not in told + output
    # Started with another model, it neither writes nor searches what the first one made, and names both.
    other = start(tmp_path / "data", "--config", str(configured(tmp_path, endpoint, "other")))
    with other.client() as client:
        for path, body in (
            ("search", {"query": "string"}),
            ("documents", {"documents": [{"id": "c", "text": "more"}]}),
        ):
            refused = client.post(f"/v1/collections/c/{path}", json=body)
            assert (refused.status_code, refused.json()["code"]) == (409, "collection_conflict"), refused.text
            assert "openai/tiny (8-d) with tei/tiny" in refused.json()["detail"]
            assert "openai/other (8-d) with tei/other" in refused.json()["detail"]
    ended(other)


def test_a_model_s_server_that_is_not_there_is_told_within_five_seconds(tmp_path):
    began_s = time.monotonic()
    file = configured(tmp_path, "http://127.0.0.1:9", crossed=False)
    done = penstock("serve", "--port", "0", "--data-dir", tmp_path / "data", "--config", file)
    assert done.returncode == 2, done.stderr
    assert "models.dense: http://127.0.0.1:9/v1/embeddings" in done.stderr
    assert "set models.dense.dim to start without it" in " ".join(done.stderr.split())
    assert KEY not in done.stderr
    # The program's own start is part of it, on a machine that may have other work.
    assert time.monotonic() - began_s < 15
