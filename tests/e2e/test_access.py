"""Keys and TLS of the real program: made, used, rotated and revoked while it runs."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.client import CallOptions, Client
from penstock.client.pinning import pinned_context
from penstock.http.authentication import OPEN_PATHS
from penstock.http.page_files import PAGE_FILES
from penstock.kernel.errors import Invalid
from penstock.stores.lock import find_lock_holder
from penstock.telemetry.audit_log import AUDIT_FILE
from tests.e2e.conftest import Server, command, environment, penstock, penstock_json, start
from tests.rigs.certificates import make_certificate

NOTICED_S = 20
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def made(data_dir: Path, name: str, *options: str) -> str:
    return str(penstock_json("keys", "create", name, *options, "--data-dir", data_dir)["secret"])


def until(check: Callable[[], bool]) -> None:
    """Wait until a running server has noticed a change."""
    until_s = time.monotonic() + NOTICED_S
    while not check():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def asked(server: Server, path: str, key: str = "", **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with server.client() as client:
        return client.request(more.pop("method", "GET"), path, headers=headers | more.pop("headers", {}), **more)


@pytest.fixture
def started(data_dir: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server with more in its environment."""
    servers: list[Server] = []

    def begin(**environ: str) -> Server:
        servers.append(start(data_dir, environ=environ))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def test_a_server_with_keys_gives_nothing_but_liveness_to_those_without(serve, data_dir):
    """Every route of the server's own description, with every method; and paths that only look open."""
    admin = made(data_dir, "admin", "--scope", "admin")
    server = serve()
    described = asked(server, "/openapi.json", admin).json()["paths"]
    assert len(described) > 20
    opened = set()
    with server.client() as client:
        for path in [*described, "/mcp", "/nothing"]:
            plain = path.replace("{", "").replace("}", "")
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
                answer = client.request(method, plain, json={})
                if answer.status_code != 401:
                    opened.add((plain, method, answer.status_code))
                else:
                    assert answer.headers["www-authenticate"].startswith("Bearer")
        # The page is where people sign in; it is the same on every server.
        assert {path for path, _, _ in opened} == OPEN_PATHS | {"/"}
        assert client.get("/").content == PAGE_FILES["/"].data
        assert {(method, status) for _, method, status in opened} == {
            *(("GET", 200), ("HEAD", 200), ("OPTIONS", 204)),
            *((method, status) for method in ("POST", "PUT", "DELETE", "PATCH") for status in (405,)),
        }
        for path in (
            *("/livez%2f..%2fv1%2fsearch", "/livez/..%2Fv1/status", "/readyz/../v1/status", "//livez"),
            *(
                "/assets/",
                "/assets/../v1/status",
                "/assets/%2e%2e/v1/status",
                "/assets/app.js/../../v1/status",
                "/flow/",
            ),
        ):
            sent = client.build_request("GET", server.url)
            sent.url = sent.url.copy_with(raw_path=path.encode())
            assert client.send(sent).status_code == 401


def test_keys_take_effect_while_the_server_runs(serve, data_dir, tree):
    server = serve()
    assert asked(server, "/v1/status").status_code == 200
    reader = made(data_dir, "reader")
    until(lambda: asked(server, "/v1/status").status_code == 401)
    # The owner of the data directory needs none.
    assert penstock("index", tree, "--data-dir", data_dir).returncode == 0
    assert penstock("search", "decode", "--data-dir", data_dir).returncode == 0
    assert asked(server, "/v1/search", reader, method="POST", json={"query": "decode"}).status_code == 200
    assert asked(server, "/v1/collections/default", reader, method="DELETE").status_code == 403
    rotated = str(penstock_json("keys", "rotate", "reader", "--data-dir", data_dir)["secret"])
    until(lambda: asked(server, "/v1/status", rotated).status_code == 200)
    assert asked(server, "/v1/status", reader).status_code == 200
    assert penstock("keys", "revoke", "reader", "--yes", "--data-dir", data_dir).returncode == 0
    until(lambda: asked(server, "/v1/status", reader).status_code == 401)
    assert asked(server, "/v1/status", rotated).status_code == 401
    assert asked(server, "/v1/status").status_code == 401
    events = [json.loads(line)["event"] for line in (data_dir / AUDIT_FILE).read_text().splitlines()]
    assert {"key_created", "key_rotated", "key_revoked", "refused"} <= set(events)


def test_the_first_key_over_http_closes_the_server_and_others_count_at_once(serve, data_dir):
    server = serve()
    first = {"name": "first", "scope": "admin", "close_server": True}
    admin = asked(server, "/v1/keys", method="POST", json=first).json()["secret"]
    assert asked(server, "/v1/keys").status_code == 401
    made = asked(server, "/v1/keys", admin, method="POST", json={"name": "ci"}).json()
    assert asked(server, "/v1/status", made["secret"]).status_code == 200
    rotated = asked(server, f"/v1/keys/{made['key']['id']}/rotate", admin, method="POST", json={"grace_s": 0}).json()
    assert asked(server, "/v1/status", made["secret"]).json()["code"] == "key_expired"
    assert asked(server, "/v1/status", rotated["secret"]).status_code == 200
    assert asked(server, f"/v1/keys/{rotated['key']['id']}", admin, method="DELETE").status_code == 200
    assert asked(server, "/v1/status", rotated["secret"]).status_code == 401
    told = asked(server, "/v1/keys", admin).json()
    listed = penstock_json("keys", "list", "--data-dir", data_dir)["keys"]
    assert [key["id"] for key in told["keys"]] == [key["id"] for key in listed]
    own = asked(server, f"/v1/keys/{told['own']}", admin, method="DELETE")
    assert (own.status_code, own.json()["code"]) == (409, "last_admin_key")
    told_events = [json.loads(line)["event"] for line in (data_dir / AUDIT_FILE).read_text().splitlines()]
    assert {"key_created", "key_rotated", "key_revoked"} <= set(told_events)


def test_a_key_for_some_collections_works_through_the_client(serve, data_dir, tree):
    assert penstock("index", tree, "--collection", "team-a", "--data-dir", data_dir).returncode == 0
    assert penstock("index", tree, "--collection", "other", "--data-dir", data_dir).returncode == 0
    key = made(data_dir, "team", "--collections", "team-*")
    with Client(serve().url, CallOptions(api_key=key)) as client:
        assert [one.name for one in client.list_collections()] == ["team-a"]
        assert client.search("decode", "team-a").hits
        for ask in (lambda: client.search("decode", "other"), lambda: client.search("decode", ["team-a", "other"])):
            with pytest.raises(Invalid) as caught:
                ask()
            assert (caught.value.status, caught.value.code) == (403, "collection_not_allowed")


def test_a_thousand_wrong_keys_harm_nobody(serve, data_dir):
    key = made(data_dir, "reader")
    server = serve()
    with server.client() as client:
        wrong = {"x-api-key": key[:-1] + ("A" if key[-1] != "A" else "B")}
        statuses = [client.get("/v1/status", headers=wrong).status_code for _ in range(1000)]
        assert set(statuses) == {401, 429}
        assert statuses.count(401) < 100
        assert client.get("/v1/status", headers={"x-api-key": key}).status_code == 200
    assert (data_dir / AUDIT_FILE).stat().st_size < 100_000


def test_secrets_are_nowhere_but_with_their_user(started, data_dir):
    chosen = "an administrator's key that was chosen by hand"
    key = made(data_dir, "reader")
    server = started(PENSTOCK_API_KEY=chosen, PENSTOCK_LOG_LEVEL="debug")
    assert asked(server, "/v1/snapshots", chosen).status_code == 200
    asked(server, f"/v1/search?api_key={key}", key[:-1])
    processes = [server.process.pid, *_children(server.process.pid)]
    for pid in processes[1:]:
        assert chosen.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    for pid in processes:
        assert chosen.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    shown = penstock("config", "--data-dir", data_dir)
    told = asked(server, "/metrics", chosen).text + asked(server, "/v1/status", chosen).text + shown.stdout
    _, output = server.terminate()
    kept = b"".join(path.read_bytes() for path in data_dir.glob("*.*") if path.is_file())
    for secret in (chosen, key.rpartition("_")[2]):
        assert secret not in output + told
        assert secret.encode() not in kept


def _children(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [one for child in found for one in (child, *_children(child))]


def test_a_server_beyond_loopback_starts_with_keys_alone(data_dir, tmp_path):
    made(data_dir, "admin", "--scope", "admin")
    done = penstock("serve", "--host", "192.0.2.1", "--port", "0", "--data-dir", data_dir)
    # No such address is here; without keys the start would fail before that.
    assert "--insecure" not in done.stderr


def test_tls_is_served_and_its_certificate_is_read_again(started, data_dir, tmp_path):
    place = tmp_path / "tls"
    place.mkdir()
    certificate, key = make_certificate(place)
    with _trusting(certificate):
        tls = {"PENSTOCK_TLS_CERT": str(certificate), "PENSTOCK_TLS_KEY": str(key)}
        server = started(**tls, HTTP_HEADER_TIMEOUT="500ms")
    assert server.url.startswith("https://")
    assert penstock("status", "--data-dir", data_dir).returncode == 0
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https", "http") + "/livez")
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 10) as silent:
        assert silent.recv(1) == b"", "a handshake that never begins is given up"
    before = find_lock_holder(data_dir).certificate
    certificate.write_text("half a cert")
    server.process.send_signal(signal.SIGHUP)
    assert penstock("status", "--data-dir", data_dir).returncode == 0
    make_certificate(place)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: find_lock_holder(data_dir).certificate != before)
    with httpx.Client(verify=pinned_context(find_lock_holder(data_dir).certificate)) as client:
        assert client.get(f"{server.url}/livez").status_code == 200
    assert penstock("status", "--data-dir", data_dir).returncode == 0
    with pytest.raises(httpx.ConnectError), httpx.Client(verify=pinned_context(before)) as client:
        client.get(f"{server.url}/livez")
    code, output = server.terminate()
    assert code == 0
    assert "the one before stays" in output


@contextlib.contextmanager
def _trusting(certificate: Path) -> Iterator[None]:
    """Let httpx believe a certificate for as long as a server is waited for."""
    before = httpx.get
    context = pinned_context(certificate.read_text())
    httpx.get = lambda url, **more: before(url, verify=context, **more)
    try:
        yield
    finally:
        httpx.get = before


def test_an_agent_of_the_owner_reads_without_a_key_and_writes_with_one(serve, data_dir, tree):
    assert penstock("index", tree, "--data-dir", data_dir).returncode == 0
    writer = made(data_dir, "writer", "--scope", "write")
    serve()
    offered = {}
    for key in ("", writer):
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
        search = {"name": "search", "arguments": {"query": "decode"}, "_meta": META}
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": search}
        done = subprocess.run(
            command("mcp", "--data-dir", data_dir),
            input="".join(json.dumps(one) + "\n" for one in (message, call)),
            capture_output=True,
            text=True,
            env=environment() | ({"PENSTOCK_API_KEY": key} if key else {}),
            timeout=60,
            check=True,
        )
        told = {one["id"]: one["result"] for one in map(json.loads, done.stdout.splitlines())}
        offered[key] = {tool["name"] for tool in told[1]["tools"]}
        assert "decoder.py" in told[2]["content"][0]["text"]
    assert offered[writer] - offered[""] == {"index_source", "forget_source"}
