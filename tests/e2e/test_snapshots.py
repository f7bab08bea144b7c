"""``penstock snapshot`` and ``penstock restore``: of a running server, of a stopped one, and what they refuse."""

import contextlib
import threading
from pathlib import Path

import httpx
import msgspec

from penstock.stores.backends.edge import archive, manifest
from tests.e2e.conftest import penstock, penstock_json
from tests.e2e.test_server import documents

PATH = "/v1/collections/default/documents"


def write(client, first, count):
    client.put("/v1/collections/default").raise_for_status()
    client.post(PATH, json={"documents": documents(first, count)}).raise_for_status()


def test_a_running_server_is_saved_while_it_is_written_and_searched_and_restored_elsewhere(serve, tmp_path, models):
    server, file = serve(), tmp_path / "saved.snapshot"
    done = threading.Event()
    counts = []

    def disturb():
        with server.client() as client, contextlib.suppress(httpx.TransportError):
            first = 100
            while not done.is_set():
                write(client, first, 10)
                first += 10
                counts.append(client.post("/v1/search", json={"query": "alpha"}).status_code)

    with server.client() as client:
        write(client, 0, 100)
        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        told = penstock_json("snapshot", "--output", file, "--data-dir", server.data_dir)
        done.set()
        disturbing.join()
        assert set(counts) == {200}
        assert told["collections"] == ["default"]
        assert told["bytes"] == file.stat().st_size
        before = client.get("/v1/collections/default").json()["documents"]
        assert list((server.data_dir / "snapshots").iterdir()) == []
        assert not [path for path in (server.data_dir / "collections").iterdir() if path.name.startswith(".")]

        again = penstock("restore", file, "--data-dir", server.data_dir)
        assert again.returncode == 2
        assert "'default'" in again.stderr
        write(client, 5000, 1)
        penstock_json("restore", file, "--force", "--data-dir", server.data_dir)
        assert 100 <= client.get("/v1/collections/default").json()["documents"] <= before
        assert client.post("/v1/search", json={"query": "alpha"}).json()["hits"]
        write(client, 7000, 1)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "models").symlink_to(models)
    [restored] = penstock_json("restore", file, "--data-dir", elsewhere)["collections"]
    assert restored["documents"] >= 100
    assert penstock_json("search", "number15 alpha", "--data-dir", elsewhere)["hits"]


def test_a_stopped_data_directory_is_saved_and_what_cannot_be_used_is_refused(data_dir, tmp_path, tree):
    penstock_json("index", tree, "--data-dir", data_dir)
    file = tmp_path / "saved.snapshot"
    assert penstock("snapshot", "--output", file, "--data-dir", data_dir).returncode == 0
    whole = file.read_bytes()

    over = penstock("snapshot", "--output", file, "--data-dir", data_dir)
    assert (over.returncode, "there already" in over.stderr) == (2, True)
    assert penstock("snapshot", "--output", file, "--force", "--data-dir", data_dir).returncode == 0

    assert penstock_json("snapshots", "list", "--data-dir", data_dir) == {"snapshots": []}
    (data_dir / "snapshots" / "kept.snapshot").write_bytes(whole)
    [told] = penstock_json("snapshots", "list", "--data-dir", data_dir)["snapshots"]
    assert (told["name"], told["collections"], told["bytes"]) == ("kept.snapshot", ["default"], len(whole))
    gone = penstock("snapshots", "delete", "kept.snapshot", "..", "absent", "--data-dir", data_dir)
    assert (gone.returncode, gone.stdout) == (1, "1 deleted\n")
    assert "absent: no such snapshot" in gone.stderr

    file.write_bytes(whole[:-1])
    cut = penstock("restore", file, "--force", "--data-dir", data_dir)
    assert (cut.returncode, "cut off" in cut.stderr) == (2, True)

    made_by_another(file, whole, tmp_path)
    other = penstock("restore", file, "--force", "--data-dir", data_dir)
    assert other.returncode == 2
    assert "other-model (3-d)" in other.stderr
    assert "all-MiniLM" in other.stderr
    assert penstock_json("search", "parse a JSON string", "--data-dir", data_dir)["hits"]


def made_by_another(file: Path, whole: bytes, tmp_path: Path) -> None:
    file.write_bytes(whole)
    opening = archive.read_file_header(file)
    with archive.open_file(file) as reader:
        archive.unpack(reader, tmp_path / "unpacked", archive.verify(reader))
    stated = msgspec.structs.replace(opening.collections[0], model="other-model", dim=3)
    inside = manifest.read_manifest(tmp_path / "unpacked" / stated.name)
    manifest.write_manifest(
        tmp_path / "unpacked" / stated.name, msgspec.structs.replace(inside, model="other-model", dim=3)
    )
    archive.pack(tmp_path / "unpacked", file, msgspec.structs.replace(opening, collections=[stated]))
    manifest.remove_path(tmp_path / "unpacked")


def test_a_server_neither_searches_nor_writes_what_another_model_made(serve, data_dir):
    server = serve()
    with server.client() as client:
        write(client, 0, 3)
    server.terminate()
    home = data_dir / "collections" / "default"
    stated = manifest.read_manifest(home)
    manifest.write_manifest(home, msgspec.structs.replace(stated, model="other-model"))
    again = serve()
    with again.client() as client:
        for path, body in (("/v1/search", {"query": "alpha"}), (PATH, {"documents": documents(0, 1)})):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (409, "collection_conflict")
            assert "other-model" in answer.json()["detail"]
            assert stated.model in answer.json()["detail"]
