"""Signals to a real server and everything that it has started."""

import json
import os
import signal
import socket
import time
from pathlib import Path

from tests.e2e.conftest import await_searches


def below(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += below(int(child))
    return found


def documents(count: int) -> dict[str, object]:
    return {"documents": [{"id": str(n), "text": f"def f{n}(): pass\n", "path": f"{n}.py"} for n in range(count)]}


def test_a_hangup_ends_neither_the_server_nor_what_it_has_started(serve, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("server: {log_level: info, log_format: json}\n")
    server = serve("--config", str(settings))
    with server.client() as client:
        client.put("/v1/collections/default")
        # The first document starts the chunkers.
        assert client.post("/v1/collections/default/documents", json=documents(3)).status_code == 200
        processes = below(server.process.pid)
        assert len(processes) >= 3
        settings.write_text("server: {log_level: debug, log_format: json}\n")
        for pid in processes * 2:
            os.kill(pid, signal.SIGHUP)
        assert client.post("/v1/collections/default/documents", json=documents(6)).status_code == 200
        await_searches(client, "def f5")
        assert set(below(server.process.pid)) >= set(processes)
        settings.write_text("server: {log_level: loud}\n")
        server.process.send_signal(signal.SIGHUP)
        await_searches(client, "def f4")
    code, output = server.terminate()
    assert code == 0
    told = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert ("SIGHUP: the log level was read again", "debug") in {(one["message"], one.get("level_")) for one in told}
    assert "SIGHUP: the settings cannot be read, the log level stays" in output


def test_a_stalled_upload_does_not_delay_the_end(serve):
    server = serve()
    port = int(server.url.rpartition(":")[2])
    head = (
        "POST /v1/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as stalled:
        stalled.sendall(head.encode() + b"{")
        with server.client() as client:
            client.get("/livez")
        began_s = time.monotonic()
        code, output = server.terminate()
        assert time.monotonic() - began_s < 20
        stalled.settimeout(5)
        assert stalled.recv(64).startswith(b"HTTP/1.1 503")
    assert (code, "Traceback" in output) == (0, False)
