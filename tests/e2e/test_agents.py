"""Agents: the official SDK's own client against a real server, in both eras of the protocol."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from bench.processes import children, role_of
from tests.e2e.conftest import Server, command, environment, penstock, penstock_json, start

READ_TOOLS = ["search", "find_related", "read", "list_collections", "index_status"]
ERAS = {"auto": "2026-07-28", "legacy": "2025-11-25"}
THIRTY = 30
MODERN = {"protocolVersion": ERAS["auto"], "clientCapabilities": {}}

eras = pytest.mark.parametrize("mode", ERAS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Server]:
    """Return a server with a small tree, whose vectors are made."""
    place = tmp_path_factory.mktemp("agents")
    (place / "data").mkdir()
    (place / "data" / "models").symlink_to(models)
    tree = place / "tree"
    (tree / "src").mkdir(parents=True)
    (tree / "src" / "fusion.py").write_text(
        'def rrf(rankings, k=60):\n    """Fuse several rankings by reciprocal rank."""\n    return sorted(rankings)\n'
    )
    (tree / "src" / "breaker.py").write_text(
        'class Breaker:\n    """Circuit breaker that opens after failures."""\n\n    def open(self):\n        ...\n'
    )
    running = start(place / "data", environ={"PENSTOCK_RATE_LIMIT": "0"})
    assert penstock("index", "--data-dir", place / "data", tree).returncode == 0
    yield running
    running.kill()
    running.process.communicate()


async def session(client: Client) -> None:
    """List tools, search, read what was found, find what is like it."""
    assert [tool.name for tool in (await client.list_tools()).tools] == READ_TOOLS
    found = await client.call_tool("search", {"query": "fuse rankings", "limit": 1})
    assert found.structured_content is not None
    hit = found.structured_content["hits"][0]
    assert hit["path"].endswith("src/fusion.py")
    assert found.structured_content["freshness"][0]["pending"] == 0
    assert found.content[1].uri.startswith("penstock://default/")
    read = await client.call_tool("read", {"path": hit["id"], "start_line": 1, "end_line": 2})
    assert "def rrf(rankings, k=60):" in read.content[0].text
    related = await client.call_tool("find_related", {"path": hit["path"]})
    assert [one["path"] for one in related.structured_content["hits"]] == ["src/breaker.py"]
    linked = await client.read_resource(found.content[1].uri)
    assert linked.contents[0].text.startswith("def rrf")
    status = await client.call_tool("index_status", {})
    assert status.structured_content["ready"]
    greedy = await client.call_tool("search", {"query": "x", "max_tokens": 10**6})
    assert (greedy.is_error, greedy.structured_content["field"]) == (True, "max_tokens")
    with pytest.raises(MCPError, match="Unknown tool"):
        await client.call_tool("forget_source", {"name": "tree"})


@eras
def test_an_agents_session_over_http(server, mode):
    async def run():
        async with Client(f"{server.url}/mcp", mode=mode) as client:
            assert client.protocol_version == ERAS[mode]
            await session(client)

    asyncio.run(run())


@eras
def test_an_agents_session_over_stdio(server, mode):
    line = command("mcp", "--data-dir", server.data_dir)
    bridge = StdioServerParameters(command=line[0], args=line[1:], env=environment())

    async def run():
        async with Client(bridge, mode=mode) as client:
            assert client.protocol_version == ERAS[mode]
            await session(client)

    asyncio.run(run())


def test_thirty_agents_that_start_at_once_are_all_answered(server):
    async def one(number: int) -> float:
        began_s = time.monotonic()
        async with Client(f"{server.url}/mcp", mode=list(ERAS)[number % 2]) as client:
            found = await client.call_tool("search", {"query": f"circuit breaker {number}"})
            assert found.structured_content["hits"], found.structured_content
        return time.monotonic() - began_s

    async def run():
        return await asyncio.gather(*map(one, range(THIRTY)))

    assert max(asyncio.run(run())) < 30


def test_a_call_over_its_deadline_is_told_as_an_error(server):
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    message["params"] = {"name": "search", "arguments": {"query": "a query that no cache knows"}}
    head = {"Accept": "application/json", "X-Request-Timeout-Ms": "1"}
    result = httpx.post(f"{server.url}/mcp", json=message, headers=head).json()["result"]
    assert (result["isError"], result["structuredContent"]["code"]) == (True, "timeout")


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Origin": "http://evil.example"}, b"{}", 403),
        ({"Host": "evil.example"}, b"{}", 421),
        ({}, b"x" * 300_000, 413),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({}, b"[" * 2_000, 400),
        ({}, b"[{}, {}]", 400),
        ({"MCP-Protocol-Version": "1999-01-01"}, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', 400),
    ],
    ids=["origin", "host", "large", "type", "nested", "batch", "version"],
)
def test_what_is_no_message_is_refused_in_the_form_of_json_rpc(server, headers, content, status):
    head = {"Content-Type": "application/json", "Accept": "application/json"} | headers
    answer = httpx.post(f"{server.url}/mcp", content=content, headers=head)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] < 0


def test_a_client_that_closes_in_the_middle_stops_the_work(server):
    def at_work() -> tuple[int, int]:
        status = httpx.get(f"{server.url}/v1/status").json()
        topics = {one["name"]: one for one in status["topics"]}
        return topics["search.request"]["running"], status["traffic"]["client_gone"]

    _, before = at_work()
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    arguments = {"query": "what nobody has asked before", "collections": ["default"]}
    message["params"] = {"name": "search", "arguments": arguments}
    store = next(pid for pid in children(server.process.pid) if role_of(pid) == "store")
    os.kill(store, signal.SIGSTOP)
    try:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/mcp", json=message, headers={"Accept": "application/json"}, timeout=0.3)
        until_s = time.monotonic() + 20
        while at_work() != (0, before + 1):
            assert time.monotonic() < until_s, (before, at_work())
            time.sleep(0.1)
    finally:
        os.kill(store, signal.SIGCONT)


def test_a_key_that_may_write_indexes_and_forgets(data_dir, tmp_path):
    tree = tmp_path / "srv" / "tree"
    tree.mkdir(parents=True)
    (tree / "a.py").write_text("def first(): return 1\n")
    made = [penstock_json("keys", "create", "writer", "--scope", "write", "--data-dir", data_dir)["secret"]]
    made.append(penstock_json("keys", "create", "reader", "--data-dir", data_dir)["secret"])
    # A stream may last longer than a response has to be read.
    server = start(data_dir, environ={"INDEX_ROOTS": str(tmp_path / "srv"), "HTTP_WRITE_TIMEOUT": "1"})

    @asynccontextmanager
    async def client(secret: str) -> AsyncIterator[Client]:
        head = {"Authorization": f"Bearer {secret}"}
        async with (
            httpx2.AsyncClient(headers=head, timeout=60) as http,
            Client(streamable_http_client(f"{server.url}/mcp", http_client=http)) as opened,
        ):
            yield opened

    async def run():
        told: list[str] = []

        async def progress(_done: float, _of: float | None, text: str | None) -> None:
            told.append(text or "")

        async with client(made[0]) as writer, client(made[1]) as reader:
            assert [tool.name for tool in (await reader.list_tools()).tools] == READ_TOOLS
            assert len((await writer.list_tools()).tools) == len(READ_TOOLS) + 2
            done = await writer.call_tool("index_source", {"path": str(tree)}, progress_callback=progress)
            assert (done.structured_content["state"], done.structured_content["documents"]) == ("watching", 1)
            found = await reader.call_tool("search", {"query": "first"})
            assert found.structured_content["freshness"][0]["watched"]
            with pytest.raises(MCPError, match="Unknown tool"):
                await reader.call_tool("forget_source", {"name": "tree"})
            assert (await writer.call_tool("forget_source", {"name": "tree"})).structured_content["deleted"] == 1
        assert told

    try:
        asyncio.run(run())
        acts = [json.loads(line) for line in (data_dir / "audit.log").read_text().splitlines()]
        assert [(one["event"], one["outcome"]) for one in acts if "MCP" in one["event"]] == [
            ("MCP forget_source tree", "ok")
        ]
    finally:
        server.terminate()


@eras
def test_a_client_that_closes_while_it_indexes_ends_the_watch(data_dir, tmp_path, mode):
    tree = tmp_path / "srv" / "tree"
    tree.mkdir(parents=True)
    for number in range(2_000):
        (tree / f"f{number}.py").write_text(f"def f{number}(): return {number}\n" * 20)
    key = penstock_json("keys", "create", "writer", "--scope", "write", "--data-dir", data_dir)["secret"]
    server = start(data_dir, environ={"INDEX_ROOTS": str(tmp_path / "srv")})
    head = {"Authorization": f"Bearer {key}", "Accept": "application/json, text/event-stream"}
    meta = {"progressToken": "p"}
    if mode == "auto":
        meta |= {f"io.modelcontextprotocol/{name}": value for name, value in MODERN.items()}
        names = {"Mcp-Method": "tools/call", "Mcp-Name": "index_source"}
    else:
        names = {}
    params = {"name": "index_source", "arguments": {"path": str(tree)}, "_meta": meta}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}

    def watches() -> list[object]:
        return [one["watch"] for one in httpx.get(f"{server.url}/v1/sources", headers=head).json()["sources"]]

    try:
        posted = head | names | {"MCP-Protocol-Version": ERAS[mode]}
        with httpx.stream("POST", f"{server.url}/mcp", headers=posted, json=message, timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert "notifications/progress" in next(line for line in answer.iter_lines() if line.startswith("data"))
            assert watches() != [None]
        until_s = time.monotonic() + 20
        while watches() != [None]:
            assert time.monotonic() < until_s
            time.sleep(0.1)
    finally:
        server.terminate()
