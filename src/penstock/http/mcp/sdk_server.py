"""The official SDK's server over the tools. Imports the SDK: some half a second, so never on the event loop."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import mcp_types as types
import msgspec
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from sse_starlette.sse import AppStatus
from starlette.requests import Request

from penstock import __version__
from penstock.core.core import Core
from penstock.http.mcp.call import ToolCall
from penstock.http.mcp.freshness import FreshnessCache
from penstock.http.mcp.reading import read
from penstock.http.mcp.records import ReadArguments, SearchAnswer, answer_schema, object_schema
from penstock.http.mcp.resources import URI_TEMPLATE, address_of, parse_uri
from penstock.http.mcp.tools import INSTRUCTIONS, TOOLS, AgentTool, ToolOutcome, call_tool, offered_tools
from penstock.http.operations import Operations
from penstock.http.request_context import request_state
from penstock.kernel.errors import PenstockError

#: Milliseconds for which a client may keep the list of tools. It depends on the caller's key.
LIST_TTL_MS: Final = 300_000

#: Characters of a result that Claude Code takes before it writes it to a file.
_RESULT_CHARACTERS: Final = {"anthropic/maxResultSizeChars": 100_000}

#: The oldest revision that knows links in results.
_LINKS_SINCE: Final = "2025-06-18"

Scope = dict[str, Any]


class McpServer:
    """MCP over the core: one SDK server for all requests, which holds nothing between them.

    Args:
        core: The core that does the work.
        operations: Operations of the API.
    """

    def __init__(self, core: Core, operations: Operations) -> None:
        # At the first request the SDK's streams would end with the server's signal; here the gate drains requests.
        AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]
        for name in ("mcp.server.streamable_http_manager", "mcp.server.streamable_http"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._core, self._operations = core, operations
        deps = core.deps
        self._freshness = FreshnessCache(core.store, deps.source_watches, deps.clock)
        self._listed = {tool.name: _sdk_tool(tool) for tool in TOOLS}
        self._schemas = {tool.name: self._listed[tool.name].input_schema for tool in TOOLS}
        hint = CacheHint(LIST_TTL_MS, "private")
        self._server: Server[Any] = Server(
            "penstock",
            version=__version__,
            title="Penstock",
            instructions=INSTRUCTIONS,
            cache_hints={"tools/list": hint, "resources/templates/list": hint, "server/discover": hint},
            get_tool_input_schema=self._schemas.get,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
        )
        # No spans: nothing leaves the machine.
        self._server.middleware.clear()

    async def handle(self, scope: Scope, receive: Any, send: Any, *, stream: bool) -> None:
        """Answer one message.

        A manager of the SDK lives as long as the request, so a cancellation ends all that it has started.

        Args:
            scope: The request's ASGI scope.
            receive: Gives its body, then its disconnect.
            send: Takes the answer.
            stream: Whether the answer may be a stream of events, which carries progress.
        """
        manager = StreamableHTTPSessionManager(self._server, stateless=True, json_response=not stream)
        async with manager.run():
            await manager.handle_request(scope, receive, send)

    async def _list_tools(self, ctx: ServerRequestContext[Any, Any], _: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[self._listed[tool.name] for tool in _offered(ctx)])

    async def _call_tool(
        self, ctx: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = next((one for one in _offered(ctx) if one.name == params.name), None)
        if tool is None:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown tool: {params.name[:100]}")
        outcome = await call_tool(tool, params.arguments, self._call(ctx))
        return _sdk_result(outcome, links=ctx.protocol_version >= _LINKS_SINCE)

    def _call(self, ctx: ServerRequestContext[Any, Any]) -> ToolCall:
        request: Request = ctx.request  # type: ignore[assignment]  # every message comes by HTTP
        return ToolCall(self._core, self._operations, self._freshness, request, ctx.session.report_progress)

    async def _list_resources(self, _ctx: Any, _params: Any) -> types.ListResourcesResult:
        # Documents are found, not listed: there may be millions.
        return types.ListResourcesResult(resources=[])

    async def _list_templates(self, _ctx: Any, _params: Any) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(
            name="document",
            uri_template=URI_TEMPLATE,
            description="Lines of an indexed document; `#L1-20` names them.",
            mime_type="text/plain",
        )
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def _read_resource(
        self, ctx: ServerRequestContext[Any, Any], params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri, call = str(params.uri), self._call(ctx)
        try:
            address = parse_uri(uri)
            asked = ReadArguments(
                path=address.id,
                collection=address.collection,
                start_line=address.start_line,
                end_line=address.end_line,
            )
            answer, _ = await read(call, asked)
        except PenstockError as error:
            call.note_denied(error, "resources/read")
            raise MCPError(code=types.INVALID_PARAMS, message=f"{error.code}: {error.detail}") from None
        contents = types.TextResourceContents(uri=uri, mime_type="text/plain", text=answer.text)
        return types.ReadResourceResult(contents=[contents])


def _offered(ctx: ServerRequestContext[Any, Any]) -> Sequence[AgentTool]:
    request: Request = ctx.request  # type: ignore[assignment]  # every message comes by HTTP
    return offered_tools(request_state(request.scope).principal)


def _sdk_tool(tool: AgentTool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=object_schema(tool.arguments, takes_null=False),
        output_schema=answer_schema(tool.answer),
        annotations=types.ToolAnnotations(
            title=tool.title,
            read_only_hint=not tool.writes,
            destructive_hint=tool.destroys,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        _meta=_RESULT_CHARACTERS,
    )


def _sdk_result(outcome: ToolOutcome, *, links: bool) -> types.CallToolResult:
    content: list[Any] = [types.TextContent(text=outcome.text)]
    if links and isinstance(outcome.record, SearchAnswer):
        content += _links(outcome.record)
    return types.CallToolResult(
        content=content, structured_content=msgspec.to_builtins(outcome.record), is_error=outcome.failed
    )


def _links(answer: SearchAnswer) -> list[types.ResourceLink]:
    return [
        types.ResourceLink(uri=address_of(hit).uri(), name=hit.path or hit.id, mime_type="text/plain")
        for hit in answer.hits
    ]
