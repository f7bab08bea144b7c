"""``/mcp`` behind the gate, over fakes: both eras of the protocol, what it refuses, and what it offers to whom."""

import asyncio
import functools
import json
from dataclasses import replace

import jsonschema
import pytest

from penstock.http.gate import Gate
from penstock.http.mcp import endpoint
from penstock.http.request_context import request_state
from penstock.kernel.access import Principal, Scope
from penstock.kernel.errors import Rejected
from tests.fakes.api import Api, Caller

VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
ACCEPT = {"Accept": "application/json, text/event-stream"}
READ_TOOLS = ["search", "find_related", "read", "list_collections", "index_status"]


def threaded(test):
    """Make a test of an ``async def`` on a real loop: the SDK is imported in a thread."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


def request(method, params, *, modern):
    """Return body and headers of a request in one of the eras."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | ({"_meta": META} if modern else {})}
    named = {"Mcp-Name": params["name"]} if modern and "name" in params else {}
    head = {"MCP-Protocol-Version": VERSION, "Mcp-Method": method, **named}
    if not modern:
        head = {"MCP-Protocol-Version": "2025-11-25"}
    return body, ACCEPT | head


class Agent:
    """A caller of ``/mcp`` with a principal."""

    def __init__(self, api, principal=None, *, modern=True):
        self.api, self.modern = api, modern
        routes = api.routes

        async def application(scope, receive, send):
            if principal is not None:
                request_state(scope).principal = principal
            await routes(scope, receive, send)

        self.gate = Gate(application, api.settings.http, api.metrics)

    async def post(self, body, headers=ACCEPT):
        return await Caller(self.gate).ask("POST", "/mcp", body, headers)

    async def ask(self, method, params=None, headers=None):
        body, head = request(method, params or {}, modern=self.modern)
        return (await self.post(body, head | (headers or {}))).json

    async def call(self, tool, headers=None, **arguments):
        return (await self.ask("tools/call", {"name": tool, "arguments": arguments}, headers))["result"]


async def with_documents(name="default", api=None, **texts):
    api = await (api or Api()).with_collection(name)
    documents = [{"id": key, "text": text, "path": f"src/{key}.py"} for key, text in texts.items()]
    if documents:
        answer = await api.ask("POST", f"/v1/collections/{name}/documents", {"documents": documents})
        assert answer.json["indexed"] == len(documents)
    return api


eras = pytest.mark.parametrize("modern", [True, False], ids=["2026-07-28", "initialize"])


@eras
@threaded
async def test_the_tools_that_read_are_listed_in_their_order(modern):
    agent = Agent(await with_documents(), modern=modern)
    listed = (await agent.ask("tools/list"))["result"]
    assert [tool["name"] for tool in listed["tools"]] == READ_TOOLS
    assert all(tool["annotations"]["readOnlyHint"] for tool in listed["tools"])
    assert all(tool["outputSchema"]["type"] == tool["inputSchema"]["type"] == "object" for tool in listed["tools"])
    assert all(tool["inputSchema"]["additionalProperties"] is False for tool in listed["tools"])
    if modern:
        assert (listed["ttlMs"], listed["cacheScope"]) == (300_000, "private")


@threaded
async def test_the_handshake_of_the_older_era_is_answered():
    agent = Agent(Api(), modern=False)
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    result = (await agent.ask("initialize", params))["result"]
    assert (result["protocolVersion"], result["serverInfo"]["name"]) == ("2025-06-18", "penstock")
    assert "`search` first" in result["instructions"]


@eras
@threaded
async def test_a_search_gives_records_and_text(modern):
    agent = Agent(await with_documents(one="def one(): ...", two="def two(): ..."), modern=modern)
    result = await agent.call("search", query="one", limit=1)
    found, text = result["structuredContent"], result["content"][0]["text"]
    hit = found["hits"][0]
    assert (hit["path"], hit["start_line"], hit["collection"]) == ("src/one.py", 1, "default")
    assert f"## src/one.py:1-{hit['end_line']}" in text
    assert "def one(): ..." in text
    assert (found["degraded"], found["truncated"], found["omitted"]) == ([], False, 0)
    assert found["freshness"][0] | {"indexed_at": ""} == {
        "collection": "default",
        "indexed_at": "",
        "pending": 0,
        "coverage": 1.0,
        "watched": False,
    }
    assert result["content"][1]["uri"] == "penstock://default/one#L1-1"


@threaded
async def test_hits_left_out_for_the_budget_come_with_the_cursor():
    texts = {f"d{number}": f"word {'x' * 900}{number}" for number in range(6)}
    agent = Agent(await with_documents(**texts))
    seen, arguments = [], {"query": "word", "limit": 6, "max_tokens": 1200}
    whole = (await agent.call("search", query="word", limit=6))["structuredContent"]
    for _ in range(6):
        answer = (await agent.call("search", **arguments))["structuredContent"]
        seen += [hit["id"] for hit in answer["hits"]]
        if not answer["omitted"]:
            break
        assert answer["truncated"]
        assert 1 <= len(answer["hits"]) < 6
        arguments["cursor"] = answer["cursor"]
    assert seen == [hit["id"] for hit in whole["hits"]]


@threaded
async def test_a_hit_larger_than_the_budget_is_cut_not_left_out():
    agent = Agent(await with_documents(long="word\n" + "line of text\n" * 2_000))
    result = await agent.call("search", query="word", max_tokens=500)
    hit = result["structuredContent"]["hits"][0]
    assert hit["cut"]
    assert hit["snippet"].startswith("word\nline of text")
    assert len(json.dumps(result["structuredContent"])) < 500 * 4


@threaded
async def test_a_document_is_read_by_lines_and_goes_on_with_the_cursor():
    text = "\n".join(f"line {number} {'x' * 40}" for number in range(1, 201))
    agent = Agent(await with_documents(long=text))
    part = (await agent.call("read", path="src/long.py", start_line=3, end_line=5))["structuredContent"]
    assert part["text"] == "\n".join(text.split("\n")[2:5])
    assert (part["start_line"], part["end_line"], part["cursor"]) == (3, 5, None)
    pieces, arguments = [], {"path": "long", "max_tokens": 800}
    while True:
        answer = (await agent.call("read", **arguments))["structuredContent"]
        pieces.append(answer["text"])
        if answer["cursor"] is None:
            break
        arguments["cursor"] = answer["cursor"]
    assert "\n".join(pieces) == text
    assert len(pieces) > 3


@threaded
async def test_what_is_like_a_document_is_found_without_it():
    agent = Agent(await with_documents(one="def one(): ...", two="def two(): ..."))
    for more in ({}, {"line": 1}):
        found = (await agent.call("find_related", path="src/one.py", **more))["structuredContent"]
        assert [hit["id"] for hit in found["hits"]] == ["two"]


@threaded
async def test_collections_and_sources_are_told():
    agent = Agent(await with_documents(one="def one(): ..."))
    await agent.api.ask("PUT", "/v1/sources/s", {"root": {"host": "h", "path": "/p"}, "run": {"indexed": 1}})
    listed = (await agent.call("list_collections"))["structuredContent"]
    assert [(one["name"], one["documents"]) for one in listed["collections"]] == [("default", 1)]
    status = (await agent.call("index_status"))["structuredContent"]
    assert (status["ready"], status["rung"], status["sources"][0]["name"]) == (True, "full", "s")
    assert status["freshness"][0]["indexed_at"] == status["sources"][0]["completed_at"] != ""


@threaded
async def test_a_resource_is_what_a_link_leads_to():
    agent = Agent(await with_documents(one="first\nsecond\nthird"))
    body, head = request("resources/read", {"uri": "penstock://default/one#L2-3"}, modern=False)
    contents = (await agent.post(body, head)).json["result"]["contents"]
    assert contents[0]["text"] == "second\nthird"
    body, head = request("resources/read", {"uri": "file:///etc/passwd"}, modern=False)
    assert (await agent.post(body, head)).json["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "field"),
    [
        ("search", {"query": "x", "max_tokens": 10**6}, "invalid", "max_tokens"),
        ("search", {"query": " "}, "invalid", "query"),
        ("search", {"query": "x", "limit": "5"}, "invalid", "limit"),
        ("search", {"query": "x", "surprise": 1}, "invalid", "surprise"),
        ("search", {}, "invalid", "query"),
        ("search", {"query": "x", "cursor": "../.."}, "invalid_cursor", "cursor"),
        ("search", {"query": "x", "cursor": "0." + "A" * 32}, "invalid_cursor", "cursor"),
        ("search", {"query": "x", "collections": ["nope"]}, "collection_not_found", "collection"),
        ("read", {"path": "nope"}, "document_not_found", "path"),
        ("read", {"path": "one", "start_line": 99}, "invalid", "start_line"),
        ("read", {"path": "one", "start_line": 9, "end_line": 2}, "invalid", "end_line"),
        ("read", {"path": "one", "cursor": "x"}, "invalid_cursor", "cursor"),
        ("list_collections", {"cursor": "-1"}, "invalid_cursor", "cursor"),
    ],
    ids=str,
)
@threaded
async def test_wrong_arguments_are_an_error_that_names_them(tool, arguments, code, field):
    agent = Agent(await with_documents(one="def one(): ..."))
    result = await agent.call(tool, **arguments)
    told = result["structuredContent"]
    assert (result["isError"], told["code"], told["field"], told["retry_after_ms"]) == (True, code, field, None)
    assert told["detail"] in result["content"][0]["text"]
    # Clients of the other official SDK compare errors with the schema too.
    listed = {one["name"]: one["outputSchema"] for one in (await agent.ask("tools/list"))["result"]["tools"]}
    jsonschema.validate(told, listed[tool])


@threaded
async def test_without_a_name_the_only_collection_is_meant_and_several_are_named():
    api = await with_documents("alone", one="def one(): ...")
    agent = Agent(api)
    assert (await agent.call("search", query="one"))["structuredContent"]["hits"][0]["collection"] == "alone"
    await api.with_collection("other")
    told = (await agent.call("search", query="one"))["structuredContent"]
    assert (told["code"], "alone, other" in told["detail"]) == ("collection_not_found", True)
    both = (await agent.call("search", query="one", collections=["alone", "other"]))["structuredContent"]
    assert [one["collection"] for one in both["freshness"]] == ["alone", "other"]


@eras
@threaded
async def test_overload_is_an_error_with_a_time_and_never_an_empty_list(modern):
    api = await with_documents(one="def one(): ...")

    async def refuse(*_):
        raise Rejected("too much work of this kind is waiting", code="topic_full", retry_after_s=2.5)

    api.bus.request = refuse
    result = await Agent(api, modern=modern).call("search", query="one")
    told = result["structuredContent"]
    assert (result["isError"], told["code"], told["retry_after_ms"], told["rung"]) == (True, "topic_full", 2500, "full")
    assert "hits" not in told
    assert result["content"][0]["text"] == "topic_full: too much work of this kind is waiting; retry in 2.5 s"


@threaded
async def test_a_call_over_its_deadline_is_an_error_with_a_time():
    api = await with_documents(one="def one(): ...")
    api.embedder.delay_s = 30
    result = await Agent(api).call("search", {"X-Request-Timeout-Ms": "1"}, query="one")
    assert (result["isError"], result["structuredContent"]["code"]) == (True, "timeout")
    assert result["structuredContent"]["retry_after_ms"] == 1000


@eras
@threaded
async def test_a_caller_that_hangs_up_stops_the_work(modern):
    api = await with_documents(one="def one(): ...")
    stopped, begun = asyncio.Event(), asyncio.Event()

    async def endless(*_):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    api.bus.request = endless
    agent = Agent(api, modern=modern)
    body, head = request("tools/call", {"name": "search", "arguments": {"query": "one"}}, modern=modern)
    caller = Caller(agent.gate)
    calling = asyncio.create_task(caller.call("POST", "/mcp", body, head))
    await begun.wait()
    caller.gone.set()
    await asyncio.wait_for(stopped.wait(), 5)
    await asyncio.wait_for(calling, 5)
    assert agent.gate.traffic.client_gone == 1
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    ("status", "code", "body", "headers"),
    [
        (404, -32601, {"method": "nope"}, {"Mcp-Method": "nope"}),
        (400, -32020, {"method": "tools/list"}, {"Mcp-Method": "server/discover"}),
        (400, -32020, {"method": "tools/list"}, {}),
        (
            400,
            -32022,
            {"method": "tools/list", "params": {"_meta": {**META, next(iter(META)): "2099-01-01"}}},
            {"MCP-Protocol-Version": "2099-01-01", "Mcp-Method": "tools/list"},
        ),
        (
            400,
            -32602,
            {"method": "tools/call", "params": {"_meta": META, "name": "rm", "arguments": {}}},
            {"Mcp-Method": "tools/call", "Mcp-Name": "rm"},
        ),
        (
            400,
            -32602,
            {"method": "tools/call", "params": {"_meta": META, "name": "forget_source", "arguments": {"name": "s"}}},
            {"Mcp-Method": "tools/call", "Mcp-Name": "forget_source"},
        ),
        (400, -32600, [{"method": "tools/list"}], {}),
        (400, -32700, '{"jsonrpc', {}),
        (400, -32700, "[" * 2_000, {}),
    ],
    ids=["method", "header", "no header", "version", "tool", "hidden tool", "batch", "junk", "nested"],
)
@threaded
async def test_what_is_no_message_of_the_protocol_is_refused_as_it_says(status, code, body, headers):
    if isinstance(body, dict):
        body = {"jsonrpc": "2.0", "id": 1, "params": {"_meta": META}, **body}
    body = body if isinstance(body, str) else json.dumps(body)
    answer = await Agent(Api()).post(body, ACCEPT | {"MCP-Protocol-Version": VERSION} | headers)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


@threaded
async def test_the_gate_and_the_bounds_hold_for_messages():
    agent = Agent(Api())
    ask = Caller(agent.gate).ask
    foreign = await ask("POST", "/mcp", "{}", {"Origin": "http://evil.example"})
    assert (foreign.status, foreign.json["id"], foreign.json["error"]["code"]) == (403, None, -32600)
    assert (await Caller(agent.gate).ask("POST", "/mcp", "{}", {"Host": "evil.example"})).status == 421
    assert (await Caller(agent.gate).ask("POST", "/mcp", "{}", {"Content-Type": "text/plain"})).status == 415
    assert (await Caller(agent.gate).ask("GET", "/mcp")).status == 405
    assert (await agent.post("x" * (endpoint.MESSAGE_BYTES_MAX + 1))).status == 413
    crowded = await agent.post('{"params": [' + "[]," * 20_000 + "[]]}")
    assert (crowded.status, crowded.json["error"]["data"]["code"]) == (422, "invalid")
    chunked = await Caller(agent.gate).ask("POST", "/mcp", "x" * 300_000, chunked=True)
    assert chunked.status == 413


WRITER = Principal("k", "writer", Scope.WRITE, ("team-*",))


@threaded
async def test_a_key_sees_its_collections_alone():
    api = await with_documents("team-a", one="def one(): ...")
    await with_documents("secret", api, two="def two(): ...")
    agent = Agent(api, replace(WRITER, scope=Scope.SEARCH))
    listed = (await agent.call("list_collections"))["structuredContent"]
    assert [one["name"] for one in listed["collections"]] == ["team-a"]
    assert (await agent.call("search", query="one"))["structuredContent"]["hits"][0]["collection"] == "team-a"
    for tool, arguments in (
        ("search", {"query": "two", "collections": ["secret"]}),
        ("search", {"query": "two", "collections": ["team-a", "secret"]}),
        ("read", {"path": "two", "collection": "secret"}),
        ("find_related", {"path": "two", "collection": "secret"}),
        ("index_status", {"collection": "secret"}),
    ):
        told = await agent.call(tool, **arguments)
        assert (told["isError"], told["structuredContent"]["code"]) == (True, "collection_not_allowed")
    status = (await agent.call("index_status"))["structuredContent"]
    assert [one["collection"] for one in status["freshness"]] == ["team-a"]
    body, head = request("resources/read", {"uri": "penstock://secret/two"}, modern=False)
    assert "collection_not_allowed" in (await agent.post(body, head)).json["error"]["message"]


@threaded
async def test_a_key_that_may_write_is_offered_the_tools_that_write():
    api = await with_documents("team-a")
    agent = Agent(api, WRITER)
    listed = {tool["name"]: tool for tool in (await agent.ask("tools/list"))["result"]["tools"]}
    assert list(listed) == [*READ_TOOLS, "index_source", "forget_source"]
    assert listed["index_source"]["annotations"]["readOnlyHint"] is False
    assert listed["forget_source"]["annotations"]["destructiveHint"] is True
    refused = await agent.call("index_source", path="/etc", collection="team-a")
    assert refused["structuredContent"]["code"] == "root_not_allowed"
    documents = [{"id": "s:a.py", "text": "one", "path": "a.py", "source": "s"}]
    await api.ask("POST", "/v1/collections/team-a/documents", {"documents": documents})
    deleted = (await agent.call("forget_source", name="s", collection="team-a"))["structuredContent"]
    assert deleted["deleted"] == 1
    other = await agent.call("forget_source", name="s", collection="other")
    assert other["structuredContent"]["code"] == "collection_not_allowed"


@threaded
async def test_an_absent_library_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(endpoint.importlib.util, "find_spec", lambda _: None)
    answer = await Agent(Api()).post("{}")
    assert (answer.status, answer.json["error"]["data"]["code"]) == (501, "mcp_not_installed")
    assert "pip install 'penstock[mcp]'" in answer.json["error"]["message"]


@threaded
async def test_a_refusal_of_the_gate_tells_a_client_of_mcp_when_to_try_again():
    agent = Agent(Api())
    agent.gate.traffic.draining = True
    error = (await agent.post("{}")).json["error"]
    assert (error["code"], error["data"]["code"]) == (-32000, "draining")
    assert error["data"]["retry_after_ms"] >= 5000
    assert error["message"].startswith("draining: the server is shutting down; retry in ")
