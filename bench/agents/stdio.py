"""An agent: a client of MCP by lines, with a process that it has started."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ANSWER_S_MAX: Final = 300.0
LINE_BYTES_MAX: Final = 1 << 24
VERSION: Final = "2026-07-28"
HANDSHAKE_VERSION: Final = "2025-11-25"
META: Final = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool.

    Attributes:
        at_s: When it began, on the monotonic clock.
        took_s: Until its answer.
        error: Code of its error, empty for none.
        answer: Its result.
    """

    at_s: float
    took_s: float
    error: str
    answer: Mapping[str, Any] = field(default_factory=dict)


class Agent:
    """An agent with a process of its own, in one of the protocol's eras."""

    def __init__(self, process: asyncio.subprocess.Process, *, modern: bool) -> None:
        self._process, self._modern, self._count = process, modern, 0

    @classmethod
    async def started(cls, command: Sequence[str], environ: Mapping[str, str], *, modern: bool = False) -> Agent:
        """Start a process and shake hands with it, where the era has that."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(environ),
            limit=LINE_BYTES_MAX,
        )
        agent = cls(process, modern=modern)
        if not modern:
            client = {"name": "bench", "version": "1"}
            params = {"protocolVersion": HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": client}
            await agent._ask("initialize", params)
            await agent._send({"method": "notifications/initialized"})
        return agent

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Call:
        """Call a tool."""
        began_s = time.monotonic()
        answer = await self._ask("tools/call", {"name": tool, "arguments": dict(arguments)})
        took_s = time.monotonic() - began_s
        result = answer.get("result", {})
        told = result.get("structuredContent") or {}
        error = str(answer["error"]["code"]) if "error" in answer else ""
        if result.get("isError"):
            error = str(told.get("code", "error"))
        return Call(began_s, took_s, error, result)

    async def _ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self._count += 1
        meta = {"_meta": META} if self._modern else {}
        await self._send({"id": self._count, "method": method, "params": {**params, **meta}})
        async with asyncio.timeout(ANSWER_S_MAX):
            while True:
                line = await self._process.stdout.readline()
                if not line:
                    return {"error": {"code": "ended"}}
                answer = json.loads(line)
                if answer.get("id") == self._count:
                    return answer

    async def _send(self, message: Mapping[str, Any]) -> None:
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        await self._process.stdin.drain()

    async def end(self) -> None:
        """End the process as a client does: by closing its input."""
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def memory_mb(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process, and its own with shared pages in parts, in megabytes."""
    found = dict.fromkeys(("Rss", "Pss"), 0.0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) / 1000
    return found["Rss"], found["Pss"]


def environment(**more: str) -> dict[str, str]:
    """Return a clean environment for what is started."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | more
