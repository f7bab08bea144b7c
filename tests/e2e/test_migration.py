"""``penstock migrate``: there and back, interrupted, refused; the real engine and a Qdrant server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import command, environment, start
from tests.e2e.test_qdrant_server import qdrant
from tests.fakes.endpoint import loopback
from tests.fakes.qdrant import FakeQdrant, Listening

DOCUMENTS = 300


def configured(directory: Path, model: str, url: str = "", key: str = "", backend: str = "edge") -> Path:
    """Write a settings file."""
    file = directory / f"{backend}.yaml"
    server = (
        f"concurrency:\n  qdrant: {{url: '{url}', api_key: '{key}', prefix: 'e2e-{os.getpid()}-'}}\n" if url else ""
    )
    file.write_text(
        f"models:\n  dense: {{kind: openai, url: {model}, model: tiny, api_key: k, dim: 8}}\n"
        f"store: {{backend: {backend}, optimize_points: 0}}\n{server}"
    )
    return file


def filled(directory: Path, file: Path, documents: int = DOCUMENTS) -> None:
    """Index documents into the data directory."""
    server = start(directory / "data", "--config", str(file))
    with server.client() as client:
        client.put("/v1/collections/c").raise_for_status()
        for first in range(0, documents, 100):
            batch = [
                {"id": f"d{n}", "text": f"Document {n} tells of word{n % 7} and word{n % 11}.", "metadata": {"n": n}}
                for n in range(first, min(documents, first + 100))
            ]
            answer = client.post("/v1/collections/c/documents", json={"documents": batch}).json()
            assert answer["indexed"] == len(batch), answer
    assert server.terminate()[0] == 0


def migrate(directory: Path, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("migrate", *arguments, "--data-dir", directory / "data", "--config", file),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )


def test_a_collection_is_moved_there_and_back_and_found_at_each_place(tmp_path):
    with qdrant() as (url, key, _), loopback() as model:
        edge = configured(tmp_path, model, url, key)
        filled(tmp_path, edge)
        there = migrate(tmp_path, edge, "c", "--to", "qdrant", "--json")
        assert there.returncode == 0, there.stderr
        told = json.loads(there.stdout)
        assert (told["documents"], told["chunks"], told["same"]) == (DOCUMENTS, DOCUMENTS, True), told
        back = migrate(tmp_path, edge, "c", "--to", "edge", "--as", "d")
        assert back.returncode == 0, back.stdout + back.stderr
        assert f"d: {DOCUMENTS} chunks of {DOCUMENTS} documents are in" in back.stdout
        found = []
        for backend, name in (("edge", "c"), ("edge", "d"), ("qdrant", "c")):
            server = start(tmp_path / "data", "--config", str(configured(tmp_path, model, url, key, backend)))
            with server.client() as client:
                body = {"query": "word3 and word5", "limit": 5, "strict": True}
                answer = client.post(f"/v1/collections/{name}/search", json=body).json()
                # Of texts found equally well the engine chooses some: their scores are the same, not their ids.
                found.append([round(hit["score"], 4) for hit in answer["hits"]])
                if backend == "qdrant":
                    client.delete("/v1/collections/c").raise_for_status()
            assert server.terminate()[0] == 0
        assert found[0] == found[1]
        assert len(found[2]) == 5


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_migration_says_so_and_goes_on(tmp_path):
    fake = FakeQdrant()
    with loopback() as model, Listening(fake) as door:
        edge = configured(tmp_path, model, door.url)
        filled(tmp_path, edge)
        fake.hang_after = 2
        running = subprocess.Popen(
            command("migrate", "c", "--to", "qdrant", "--data-dir", tmp_path / "data", "--config", edge),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # The write that hangs must not reach its own limit before the interruption comes.
            env=environment() | {"STORE_TIMEOUT": "120s"},
        )
        assert fake.hanging.wait(60)
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
        assert running.returncode == 130, errors
        assert "Run the same command again" in errors
        assert "Traceback" not in output + errors
        fake.hang_after = None
        again = migrate(tmp_path, edge, "c", "--to", "qdrant")
        assert again.returncode == 0, again.stdout + again.stderr
        assert "256 of them had been moved before." in again.stdout
        assert not list((tmp_path / "data" / "migrations").iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("absent", "--to", "qdrant"), "there is no collection 'absent'"),
        (("../c", "--to", "qdrant"), "there is no collection '../c'"),
        (("c", "--to", "qdrant", "--as", "a/b"), "a collection's name is"),
        (("c", "--to", "edge"), "there is no collection 'c'"),
    ],
)
def test_what_cannot_be_moved_is_told(tmp_path, arguments, said):
    with loopback() as model, Listening(FakeQdrant()) as door:
        edge = configured(tmp_path, model, door.url)
        filled(tmp_path, edge, 3)
        done = migrate(tmp_path, edge, *arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_a_migration_wants_a_server_s_address_and_the_directory_for_itself(tmp_path):
    with loopback() as model:
        alone = configured(tmp_path, model)
        done = migrate(tmp_path, alone, "c", "--to", "qdrant")
        assert done.returncode == 2
        assert "QDRANT_URL" in done.stderr
        server = start(tmp_path / "data", "--config", str(alone))
        done = migrate(tmp_path, configured(tmp_path, model, "http://127.0.0.1:9"), "c", "--to", "qdrant")
        assert done.returncode == 2
        assert "is held by process" in done.stderr
        assert server.terminate()[0] == 0
