"""A server whose collections are spread over two store processes."""

import os
import signal
from pathlib import Path

from tests.e2e.conftest import await_searches, penstock_json
from tests.e2e.test_server import documents


def store_processes(pid):
    """Return the store processes of a server, in the order of their shards."""
    found = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
                line = (directory / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if parent == pid and "penstock.stores.backends.edge.process" in line:
                found[line[3]] = int(directory.name)
    return [found[name] for name in sorted(found)]


def test_two_store_processes_are_one_store_and_one_that_dies_loses_nothing(serve, tmp_path):
    config = tmp_path / "two.yaml"
    config.write_text("store:\n  shards: 2\n")
    server = serve("--config", str(config))
    with server.client() as client:
        client.put("/v1/collections/default").raise_for_status()
        path = "/v1/collections/default/documents"
        client.post(path, json={"documents": documents(0, 50)}).raise_for_status()
        described = client.get("/v1/collections/default").json()
        assert (described["documents"], described["shards"]) == (50, 2)
        assert len(client.post("/v1/search", json={"query": "alpha", "limit": 50}).json()["hits"]) == 50
        first, second = store_processes(server.process.pid)
        os.kill(second, signal.SIGKILL)
        await_searches(client, "beta")
        assert client.get("/v1/collections/default").json()["documents"] == 50
        assert store_processes(server.process.pid)[0] == first
    saved = tmp_path / "saved.snapshot"
    penstock_json("snapshot", "--output", saved, "--data-dir", server.data_dir)
    assert server.terminate()[0] == 0

    # What was spread stays so, whatever is set now.
    again = serve()
    with again.client() as client:
        assert client.get("/v1/collections/default").json()["documents"] == 50
        client.request("DELETE", path, json={"ids": [f"doc-{n}" for n in range(25)]}).raise_for_status()
        assert client.get("/v1/collections/default").json()["documents"] == 25
        penstock_json("restore", saved, "--force", "--data-dir", server.data_dir)
        assert client.get("/v1/collections/default").json()["documents"] == 50
