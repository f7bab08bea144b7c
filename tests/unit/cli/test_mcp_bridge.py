"""Parts of the bridge that need neither a server nor a pipe."""

import io
import json
import subprocess
import sys

import pytest

from penstock.cli.mcp_bridge import (
    BridgeMessage,
    ServerAddress,
    StdioBridge,
    _events,
    _header_value,
    check_key,
    check_url,
)
from penstock.kernel.errors import Invalid, Unavailable
from penstock.stores.lock import LockHolder

VERSION = "io.modelcontextprotocol/protocolVersion"


def unreachable() -> LockHolder:
    raise Unavailable("no server runs here", dependency="server", code="server_down")


def bridged(*lines: str | bytes) -> list[dict]:
    """Return what a bridge without a server answers to lines."""
    source = io.BytesIO(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    sink = io.BytesIO()
    StdioBridge(ServerAddress(unreachable), source, sink).run()
    return [json.loads(line) for line in sink.getvalue().splitlines()]


def test_without_a_server_a_request_is_answered_with_what_to_do():
    told = bridged('{"jsonrpc": "2.0", "id": 7, "method": "initialize"}')
    assert [(one["id"], one["error"]["data"]["code"]) for one in told] == [(7, "server_down")]
    assert told[0]["error"]["message"] == "server_down: no server runs here"


def test_without_a_server_the_call_of_a_tool_has_an_error_that_a_model_sees():
    (told,) = bridged('{"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"name": "search"}}')
    assert (told["id"], told["result"]["isError"]) == ("a", True)
    assert told["result"]["structuredContent"] | {"retry_after_ms": 2000} == told["result"]["structuredContent"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("junk", -32700),
        ("[" * 100_000, -32600),
        (b"\xff\xfe", -32700),
        ("[1]", -32600),
        ('{"id": {}}', -32600),
        ("x" * 1_048_577, -32600),
    ],
    ids=["junk", "nested", "bytes", "batch", "id", "long"],
)
def test_what_is_no_message_is_answered_and_the_next_one_too(line, code):
    told = bridged(line, '{"jsonrpc": "2.0", "id": 1, "method": "ping"}')
    assert [(one["id"], one["error"]["code"]) for one in told] == [(None, code), (1, -32000)]


def test_notifications_answers_and_blank_lines_are_not_answered():
    lines = (
        "",
        '{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        '{"jsonrpc": "2.0", "id": 1, "result": {}}',
    )
    cancelled = '{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}'
    assert bridged(*lines, cancelled, '{"jsonrpc": "2.0", "method": "notifications/cancelled"}') == []


def test_headers_say_what_the_body_does():
    bridge = StdioBridge(ServerAddress(unreachable), io.BytesIO(), io.BytesIO())
    params = {"_meta": {VERSION: "2026-07-28"}, "name": "größe"}
    said = bridge._headers(BridgeMessage("tools/call", 1, params), "psk_x")
    assert said["MCP-Protocol-Version"] == "2026-07-28"
    assert (said["Mcp-Method"], said["Mcp-Name"]) == ("tools/call", "=?base64?Z3LDtsOfZQ==?=")
    assert said["Authorization"] == "Bearer psk_x"
    assert "MCP-Protocol-Version" not in bridge._headers(BridgeMessage("tools/list", 1))
    bridge._note_version(BridgeMessage("initialize", 1), b'{"result": {"protocolVersion": "2025-06-18"}}')
    assert bridge._headers(BridgeMessage("tools/list", 1))["MCP-Protocol-Version"] == "2025-06-18"
    assert "MCP-Protocol-Version" not in bridge._headers(BridgeMessage("initialize", 1))


@pytest.mark.parametrize("text", ["a\r\nX: y", " a", "", "日本", "=?base64?x?="])
def test_what_a_header_cannot_hold_is_encoded(text):
    assert _header_value(text).startswith("=?base64?")
    assert _header_value("penstock://default/a b") == "penstock://default/a b"


def test_events_are_read_with_their_comments_passed_over():
    stream = io.BytesIO(b': ping\r\n\r\nevent: message\r\ndata: {"a": 1}\r\n\r\ndata: {"b":\ndata: 2}\n\ndata:\n\n')
    assert list(_events(stream)) == [b'{"a": 1}', b'{"b":\n2}']


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://x", "http://", "http://u:p@x/", "http://x/?key=1", "http://x:0"]
)
def test_a_url_that_cannot_be_used_or_has_a_secret_is_refused(url):
    with pytest.raises(Invalid):
        check_url(url)


def test_a_key_has_no_line_breaks():
    assert check_key(" psk_a\n") == "psk_a"
    with pytest.raises(Invalid):
        check_key("psk\r\nHost: evil")


def test_the_bridge_imports_little():
    heavy = {"asyncio", "httpx", "numpy", "mcp", "yaml", "rich", "starlette"}
    code = f"import sys, penstock.cli.main, penstock.cli.mcp; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
