"""Configurations of agents' clients: where each has its file, and what it wants to know of a server. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.cli.mcp_bridge import KEY_VARIABLE
from penstock.kernel.errors import Invalid

#: Name of our entry in a client's configuration.
ENTRY: Final = "penstock"

#: The input by which VS Code asks for a key; it keeps the answer where it keeps secrets.
_INPUT: Final = {
    "type": "promptString",
    "id": "penstock-api-key",
    "description": "API key of the Penstock server",
    "password": True,
}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AgentServer:
    """The way to a server.

    Attributes:
        command: Command line of the bridge.
        url: URL of MCP on the server; empty for the bridge.
        keyed: Whether the client is to hand over the key.
    """

    command: tuple[str, ...]
    url: str = ""
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Directories and environment by which configurations are found.

    Attributes:
        project: Directory of the project.
        home: The user's home directory.
        environ: The environment: some clients have a directory of their own by it.
        system: ``linux`` or ``darwin``.
    """

    project: Path
    home: Path
    environ: Mapping[str, str]
    system: str = "linux"


@dataclass(frozen=True, slots=True)
class AgentClient:
    """A client of MCP.

    Attributes:
        title: Its name for people.
        project_file: File of a project's configuration, relative to it.
        user_file: Returns the file of the user's configuration.
        container: The object that holds servers by their names.
        entry: Makes our entry.
        beside: Makes members of the file beside the container; a list there is extended.
        toml: Whether the file is TOML and not JSON.
    """

    title: str
    project_file: str
    user_file: Callable[[Surroundings], Path]
    container: str
    entry: Callable[[AgentServer], Json]
    beside: Callable[[AgentServer], Json] = lambda _: {}
    toml: bool = False

    def path(self, scope: str, around: Surroundings) -> Path:
        """Return the file of a scope, ``project`` or ``user``."""
        path = around.project / self.project_file if scope == "project" else self.user_file(around)
        commented = path.with_suffix(".jsonc")
        return commented if not path.exists() and commented.exists() else path


def _bearer(reference: str) -> Json:
    return {"headers": {"Authorization": f"Bearer {reference}"}}


def _claude_code(server: AgentServer) -> Json:
    reference = f"${{{KEY_VARIABLE}}}"
    if server.url:
        return {"type": "http", "url": server.url, **(_bearer(reference) if server.keyed else {})}
    entry: Json = {"type": "stdio", "command": server.command[0], "args": [*server.command[1:]]}
    return entry | ({"env": {KEY_VARIABLE: reference}} if server.keyed else {})


def _cursor(server: AgentServer) -> Json:
    reference = f"${{env:{KEY_VARIABLE}}}"
    if server.url:
        return {"url": server.url, **(_bearer(reference) if server.keyed else {})}
    entry: Json = {"command": server.command[0], "args": [*server.command[1:]]}
    return entry | ({"env": {KEY_VARIABLE: reference}} if server.keyed else {})


def _vscode(server: AgentServer) -> Json:
    reference = f"${{input:{_INPUT['id']}}}"
    if server.url:
        return {"type": "http", "url": server.url, **(_bearer(reference) if server.keyed else {})}
    entry: Json = {"type": "stdio", "command": server.command[0], "args": [*server.command[1:]]}
    return entry | ({"env": {KEY_VARIABLE: reference}} if server.keyed else {})


def _vscode_inputs(server: AgentServer) -> Json:
    return {"inputs": [_INPUT]} if server.keyed else {}


def _codex(server: AgentServer) -> Json:
    if server.url:
        return {"url": server.url, **({"bearer_token_env_var": KEY_VARIABLE} if server.keyed else {})}
    entry: Json = {"command": server.command[0], "args": [*server.command[1:]]}
    return entry | ({"env_vars": [KEY_VARIABLE]} if server.keyed else {})


def _opencode(server: AgentServer) -> Json:
    reference = f"{{env:{KEY_VARIABLE}}}"
    if server.url:
        return {"type": "remote", "url": server.url, "enabled": True, **(_bearer(reference) if server.keyed else {})}
    entry: Json = {"type": "local", "command": [*server.command], "enabled": True}
    return entry | ({"environment": {KEY_VARIABLE: reference}} if server.keyed else {})


def _xdg(around: Surroundings) -> Path:
    said = Path(around.environ.get("XDG_CONFIG_HOME", ""))
    return said if said.is_absolute() else around.home / ".config"


def _vscode_file(around: Surroundings) -> Path:
    base = around.home / "Library/Application Support" if around.system == "darwin" else _xdg(around)
    return base / "Code/User/mcp.json"


def _codex_file(around: Surroundings) -> Path:
    said = Path(around.environ.get("CODEX_HOME", ""))
    return (said if said.is_absolute() else around.home / ".codex") / "config.toml"


CLIENTS: Final[dict[str, AgentClient]] = {
    "claude-code": AgentClient(
        "Claude Code", ".mcp.json", lambda around: around.home / ".claude.json", "mcpServers", _claude_code
    ),
    "cursor": AgentClient(
        "Cursor", ".cursor/mcp.json", lambda around: around.home / ".cursor/mcp.json", "mcpServers", _cursor
    ),
    "vscode": AgentClient("VS Code", ".vscode/mcp.json", _vscode_file, "servers", _vscode, _vscode_inputs),
    "codex": AgentClient("Codex", ".codex/config.toml", _codex_file, "mcp_servers", _codex, toml=True),
    "opencode": AgentClient(
        "OpenCode", "opencode.json", lambda around: _xdg(around) / "opencode/opencode.json", "mcp", _opencode
    ),
}

#: The skill for agents that have no MCP, and its file; Claude Code's place is read by others too.
SKILL: Final = "skill"
SKILL_FILE: Final = ".claude/skills/penstock/SKILL.md"


def mcp_url(url: str) -> str:
    """Return the URL of MCP on a server.

    Raises:
        Invalid: It is none.
    """
    if not url.startswith(("http://", "https://")):
        raise Invalid(f"{url!r} is no URL of a server, such as http://127.0.0.1:8080", field="url")
    return url if url.endswith("/mcp") else f"{url.rstrip('/')}/mcp"
