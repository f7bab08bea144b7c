"""Official clients of other vendors against the real program: they embed, rerank, read errors and wait."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import Server, environment, penstock_json, start
from tests.e2e.vendor_clients import TEXTS
from tests.rigs import strace

#: Nothing of what these libraries report about their use.
QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "ANONYMIZED_TELEMETRY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}

HEAD = b"POST /v1/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"

#: More than a client needs to wait three times, each as long as it may be told.
RUN_S = 90


def program(name: str, url: str, cwd: Path, *before: str, **environ: str) -> dict[str, object]:
    """Run a client's program and return what it tells."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*before, sys.executable, "-m", "tests.e2e.vendor_clients", name, url],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment(), **QUIET, **environ, "HOME": str(cwd), "PYTHONPATH": f"{root}:{root / 'src'}"},
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(models, tmp_path_factory.mktemp("vendors")) as one:
        yield one


@contextlib.contextmanager
def serving(models: Path, directory: Path, limits: str = "rate_limit: 0") -> Iterator[Server]:
    (directory / "data").mkdir(exist_ok=True)
    (directory / "data" / "models").symlink_to(models)
    settings = directory / "penstock.yaml"
    settings.write_text(f"concurrency:\n  http:\n    {limits}\n")
    one = start(directory / "data", "--config", str(settings))
    yield one
    one.process.terminate()
    one.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def vectors(server: Server) -> np.ndarray:
    """Return the texts' vectors as the native route gives them."""
    with server.client() as client:
        return np.array(client.post("/v1/embed", json={"texts": TEXTS}).json()["embeddings"], np.float32)


def test_openai_embeds_lists_and_reads_errors(server, vectors, tmp_path):
    told = program("openai_sync", server.url, tmp_path)
    for name in ("vectors", "floats"):
        np.testing.assert_allclose(told[name], vectors, atol=1e-6)
    assert len(told["query"]) == vectors.shape[1]
    assert told["models"][-1] == told["model"] == "penstock"
    assert told["many"] == 2048
    # Five words, and a token before and behind each text; one word may be several.
    assert told["usage"]["prompt_tokens"] == told["usage"]["total_tokens"] >= 9
    wrong = told["wrong"]
    assert {name: one[:4] for name, one in wrong.items()} == {
        "token ids": ["BadRequestError", 400, "invalid", "input"],
        "empty list": ["BadRequestError", 400, "invalid", "input"],
        "empty text": ["BadRequestError", 400, "invalid", "input"],
        "too many": ["BadRequestError", 400, "invalid", "input"],
        "dimensions": ["BadRequestError", 400, "invalid", "dimensions"],
        "model": ["NotFoundError", 404, "model_not_found", "model"],
    }
    assert "check_embedding_ctx_length=False" in wrong["token ids"][4]


def test_openai_s_asynchronous_client_embeds(server, vectors, tmp_path):
    np.testing.assert_allclose(program("openai_async", server.url, tmp_path)["vectors"], vectors, atol=1e-6)


def test_langchain_embeds(server, vectors, tmp_path):
    told = program("langchain", server.url, tmp_path)
    np.testing.assert_allclose(told["vectors"], vectors, atol=1e-6)
    assert len(told["query"]) == vectors.shape[1]


def test_llama_index_embeds_in_two_ways_and_reranks(server, vectors, tmp_path):
    told = program("llama_index", server.url, tmp_path)
    for name in ("vectors", "tei"):
        np.testing.assert_allclose(told[name], vectors, atol=1e-6)
    assert told["first"] == TEXTS[0]


def test_haystack_embeds_and_reranks(server, vectors, tmp_path):
    told = program("haystack", server.url, tmp_path)
    np.testing.assert_allclose(told["vectors"], vectors, atol=1e-6)
    assert told["first"] == TEXTS[0]


def test_hugging_face_embeds_and_reads_errors(server, vectors, tmp_path):
    told = program("hugging_face", server.url, tmp_path)
    np.testing.assert_allclose(told["vectors"], vectors, atol=1e-6)
    assert told["wrong"] == [422, "validation"]


def test_cohere_reranks_and_reads_errors(server, tmp_path):
    told = program("cohere", server.url, tmp_path)
    ((first, relevance),) = told["ranked"]
    assert first == 0
    assert 0.3 < relevance <= 1
    assert told["older"] == [0, 1]
    assert told["wrong"][0][:2] == ["NotFoundError", 404]
    assert told["wrong"][1][:2] == ["BadRequestError", 400]


def test_another_penstock_has_its_models_there(server, vectors, tmp_path):
    kinds = {"dense": "openai", "sparse": "tei", "rerank": "cohere"}
    each = (f"  {part}: {{kind: {kind}, url: {server.url}, model: penstock}}\n" for part, kind in kinds.items())
    settings = tmp_path / "penstock.yaml"
    settings.write_text("models:\n" + "".join(each))
    other = start(tmp_path / "data", "--config", str(settings))
    try:
        with other.client() as client:
            embedded = client.post("/v1/embed", json={"texts": TEXTS}).json()
            np.testing.assert_allclose(embedded["embeddings"], vectors, atol=1e-6)
            assert client.put("/v1/collections/c").status_code == 200
            documents = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]
            done = client.post("/v1/collections/c/documents", json={"documents": documents}).json()
            assert done["indexed"] == len(TEXTS), done
            found = client.post("/v1/collections/c/search", json={"query": "decode JSON", "strict": True}).json()
            assert (found["hits"][0]["id"], found["degraded"]) == ("0", [])
    finally:
        other.process.terminate()
        other.process.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai_sync", "cohere", "langchain", "llama_index", "haystack", "hugging_face"])
def test_no_client_reaches_anything_but_the_server(server, tmp_path, name):
    strace.needed()
    program(name, server.url, tmp_path, *strace.watching(tmp_path / "log"))
    assert strace.seen(tmp_path / "log", tmp_path).reached == frozenset()


@pytest.fixture(scope="module")
def locked(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """Return a server with keys, and a key that may search."""
    directory = tmp_path_factory.mktemp("locked")
    made = penstock_json("keys", "create", "reader", "--scope", "search", "--data-dir", directory / "data")
    with serving(models, directory) as one:
        yield one, str(made["secret"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai_async", "cohere", "langchain", "llama_index", "haystack", "hugging_face"])
def test_each_client_sends_its_key(locked, tmp_path, name):
    server, key = locked
    assert program(name, server.url, tmp_path, CLIENT_KEY=key)


@pytest.mark.slow
def test_a_wrong_key_is_told_as_each_client_knows_it(locked, tmp_path):
    told = program("wrong_keys", locked[0].url, tmp_path)
    assert {name: one[0] for name, one in told.items()} == {
        "openai": "AuthenticationError",
        "cohere": "UnauthorizedError",
        "hugging_face": "HfHubHTTPError",
    }
    assert all("key" in one[1] for one in told.values()), told


# Overload: the clients wait by themselves, as long as they are told


@pytest.fixture(scope="module")
def limited(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that takes a request a second from each client."""
    with serving(models, tmp_path_factory.mktemp("limited"), "rate_limit: 1\n    rate_burst: 1") as one:
        yield one


@pytest.mark.slow
def test_openai_comes_back_when_its_rate_allows(limited, tmp_path):
    told = program("openai_retries", limited.url, tmp_path)
    assert told["answered"] == 4
    assert told["code"] == "rate_limited"
    assert 1 <= int(told["after"]) <= 120
    assert refusals(limited, "rate_limited") >= 3


@pytest.mark.slow
def test_cohere_comes_back_when_its_rate_allows(limited, tmp_path):
    before = refusals(limited, "rate_limited")
    assert program("cohere_retries", limited.url, tmp_path)["answered"] == 8
    assert refusals(limited, "rate_limited") > before


@pytest.mark.slow
def test_openai_comes_back_when_a_place_is_free(models, tmp_path):
    with serving(models, tmp_path, "max_concurrent: 1\n    rate_limit: 0") as one, held(one):
        assert program("openai_once", one.url, tmp_path)["answered"] == 1
        assert refusals(one, "too_many_requests_in_flight") >= 1


@contextlib.contextmanager
def held(server: Server) -> Iterator[None]:
    """Hold a place in flight by a body that does not come, until a request was refused."""
    host, port = server.url.removeprefix("http://").split(":")
    ended = threading.Event()

    def release() -> None:
        while not ended.wait(0.05) and not refusals(server, "too_many_requests_in_flight"):
            pass
        one.close()

    with socket.create_connection((host, int(port))) as one:
        one.sendall(HEAD)
        thread = threading.Thread(target=release)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def refusals(server: Server, code: str) -> int:
    with server.client() as client:
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            answer = client.get("/v1/status")
            if answer.status_code == 200:
                return answer.json()["traffic"]["refused"].get(code, 0)
    raise AssertionError("the status was not answered")
