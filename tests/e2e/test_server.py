"""A real server: kill -9, drain, two processes on one directory, bad input over the wire."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import await_searches, command, environment, penstock, penstock_json


def documents(first, count):
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    return [
        {"id": f"doc-{n}", "text": " ".join(words[(n * k) % 10] for k in range(1, 9)) + f" number{n}"}
        for n in range(first, first + count)
    ]


def test_what_was_acknowledged_survives_kill_9_in_the_middle_of_indexing(serve):
    server = serve()
    acknowledged = set()

    def writer(share):
        with server.client() as client:
            for batch in range(40):
                body = {"documents": documents(share * 1000 + batch * 10, 10)}
                try:
                    answer = client.post("/v1/collections/default/documents", json=body)
                except httpx.TransportError:
                    return
                acknowledged.update(one["id"] for one in answer.json()["documents"] if one["status"] == "indexed")

    with server.client() as client:
        client.put("/v1/collections/default").raise_for_status()
    writers = [threading.Thread(target=writer, args=(share,)) for share in range(3)]
    for thread in writers:
        thread.start()
    while len(acknowledged) < 150 and any(thread.is_alive() for thread in writers):
        writers[0].join(0.02)
    server.kill()
    for thread in writers:
        thread.join()
    assert 150 <= len(acknowledged) < 1200
    again = serve()
    with again.client() as client:
        listed, after = set(), ""
        while after is not None:
            page = client.get("/v1/collections/default/documents", params={"after": after} if after else {}).json()
            listed |= {one["id"] for one in page["documents"] if one["hash"]}
            after = page["next"]
        assert acknowledged <= listed
        found = client.post("/v1/search", json={"query": "number15 alpha"}).json()
        assert found["hits"]


def test_sigterm_drains_and_leaves_no_traceback(serve):
    server = serve()
    with server.client() as client:
        client.put("/v1/collections/default")
        answers = []

        def slow_request():
            answers.append(client.post("/v1/collections/default/documents", json={"documents": documents(0, 300)}))

        running = threading.Thread(target=slow_request)
        running.start()
        while client.get("/v1/status").json()["in_flight"] < 2 and running.is_alive():
            running.join(0.01)
        server.process.send_signal(signal.SIGTERM)
        refused = None
        while running.is_alive() and refused is None:
            try:
                answer = httpx.get(f"{server.url}/v1/collections", timeout=10)
            except httpx.TransportError:
                break
            refused = answer if answer.status_code == 503 else None
        running.join()
    output, _ = server.process.communicate(timeout=60)
    assert answers[0].status_code == 200
    assert answers[0].json()["indexed"] == 300
    assert refused is not None
    assert refused.headers["retry-after"]
    assert refused.json()["code"] == "draining"
    assert server.process.returncode == 0
    assert "Traceback" not in output


def test_commands_work_through_a_running_server(serve, tree):
    server = serve()
    assert penstock_json("index", tree, "--data-dir", server.data_dir)["indexed"] == 5
    hits = penstock_json("search", "parse a JSON string", "--data-dir", server.data_dir)["hits"]
    assert hits[0]["path"] == "pkg/decoder.py"
    with server.client() as client:
        assert client.get("/v1/collections/default").json()["documents"] == 5


def test_a_second_server_on_the_same_directory_is_refused_with_the_first_ones_name(serve):
    server = serve()
    second = penstock("serve", "--port", "0", "--data-dir", server.data_dir)
    assert second.returncode == 2
    assert str(server.process.pid) in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_named(serve):
    server = serve()
    port = server.url.rpartition(":")[2]
    other = penstock("serve", "--port", port, "--data-dir", server.data_dir.parent / "other")
    assert other.returncode == 2
    assert port in other.stderr


def test_a_body_one_byte_too_large_is_refused_while_it_streams(serve):
    server = serve()
    line = json.dumps({"id": "a", "text": "x" * 1000}).encode() + b"\n"

    def endless():
        for _ in range(10_000_001 // len(line) + 1):
            yield line

    with server.client() as client:
        client.put("/v1/collections/default")
        path = "/v1/collections/default/documents"
        kind = {"content-type": "application/x-ndjson"}
        told = client.post(path, content=b" " * 10_000_001, headers=kind)
        assert told.status_code == 413
        assert told.json()["code"] == "body_too_large"
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as raw:
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n"
        raw.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        for piece in endless():
            raw.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        raw.settimeout(30)
        status = raw.recv(64)
    assert status.startswith(b"HTTP/1.1 413")
    with server.client() as client:
        assert client.get("/readyz").status_code == 200


def test_the_store_process_may_die_without_losing_anything(serve):
    server = serve()
    with server.client() as client:
        client.put("/v1/collections/default")
        client.post("/v1/collections/default/documents", json={"documents": documents(0, 50)}).raise_for_status()
        os.kill(child_of(server.process.pid, "edge.process"), signal.SIGKILL)
        await_searches(client, "alpha")
        assert client.get("/v1/collections/default").json()["documents"] == 50


def test_killing_the_server_ends_its_children(serve):
    server = serve()
    store = child_of(server.process.pid, "edge.process")
    server.kill()
    again = serve()
    assert child_of(again.process.pid, "edge.process") != store
    assert not runs(store)


def runs(pid):
    """Return whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def child_of(pid, words):
    """Return the child of a process whose command line contains the words."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
                line = (directory / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if parent == pid and words in line:
                return int(directory.name)
    raise AssertionError(f"process {pid} has no child {words}")


@pytest.mark.skipif(sys.platform != "linux", reason="a full disk is made with a small tmpfs")
def test_a_full_disk_is_told_and_loses_nothing(models, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "none", small], check=False).returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        _fill_and_check(small, models)
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def _fill_and_check(small, models):
    environment_with_model = environment()
    data = small / "data"
    data.mkdir()
    (data / "models").symlink_to(models)
    process = subprocess.Popen(
        command("serve", "--port", "0", "--data-dir", data),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment_with_model,
    )
    try:
        url = process.stdout.readline().split("listens on ")[1].split()[0]
        with httpx.Client(base_url=url, timeout=60) as client:
            client.put("/v1/collections/default").raise_for_status()
            client.post("/v1/collections/default/documents", json={"documents": documents(0, 20)}).raise_for_status()
            (small / "ballast").write_bytes(b"x" * 90_000_000)
            full = client.post("/v1/collections/default/documents", json={"documents": documents(100, 20)})
            assert full.status_code == 507
            assert full.json()["code"] == "disk_full"
            assert client.post("/v1/search", json={"query": "alpha"}).status_code == 200
            (small / "ballast").unlink()
            again = client.post("/v1/collections/default/documents", json={"documents": documents(100, 20)})
            assert again.json()["indexed"] == 20
            assert client.get("/v1/collections/default").json()["documents"] == 40
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
