"""``penstock agents``: configurations of agents' clients, shown as a difference before they are written."""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from penstock.cli.agent_clients import (
    CLIENTS,
    ENTRY,
    SKILL,
    SKILL_FILE,
    AgentServer,
    Surroundings,
    mcp_url,
)
from penstock.cli.config_edit import edit_json, edit_toml
from penstock.cli.data_directory import VARIABLE, default_data_dir, home_directory
from penstock.cli.mcp_bridge import check_url
from penstock.cli.terminal import strip_controls
from penstock.kernel.errors import Invalid
from penstock.kernel.files import read_regular
from penstock.stores.lock import find_lock_holder

#: Suffix of the copy of a file as it was before.
BACKUP_SUFFIX: Final = ".penstock-backup"

_NAMES: Final = (*CLIENTS, SKILL)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.argument("client", type=click.Choice(_NAMES)),
            click.option(
                "--scope",
                type=click.Choice(["project", "user"]),
                default="project",
                show_default=True,
                help="The current directory's configuration, or yours for every project.",
            ),
            click.option("--http", is_flag=True, help="Ask the server itself, not through the bridge `penstock mcp`."),
            click.option("--url", metavar="URL", help="URL of the server, if it is not found by the data directory."),
            click.option("--data-dir", metavar="DIR", help="Data directory of a server on this machine."),
            click.option("--key", "keyed", is_flag=True, help="Refer to the API key in PENSTOCK_API_KEY."),
        )
    ):
        command = option(command)
    return command


@click.group("agents")
def agents() -> None:
    """Let agents search: write the configuration of a client of MCP, or a skill."""


@agents.command("show")
@_options
def show(client: str, **chosen: Any) -> int:
    """Print what `install` would put into a client's configuration, and where."""
    target = _target(client, **chosen)
    click.echo(f"# {target.path}", err=True)
    click.echo(target.edit("", True), nl=False)
    return 0


@agents.command("install")
@_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def install(client: str, *, yes: bool, **chosen: Any) -> int:
    """Put the server into a client's configuration.

    What changes is shown first. Everything else in the file stays, and a copy of it as it was lies beside it. A key is
    never written, only the name of the variable that has it.
    """
    return _apply(_target(client, **chosen), put=True, yes=yes)


@agents.command("uninstall")
@_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall(client: str, *, yes: bool, **chosen: Any) -> int:
    """Take the server out of a client's configuration."""
    return _apply(_target(client, **{**chosen, "http": False}), put=False, yes=yes)


@dataclass(frozen=True, slots=True)
class ConfigTarget:
    """A file to edit.

    Attributes:
        path: The file.
        edit: Returns the file's text after the edit, of the text before and whether our entry is to be in it.
        shared: Whether others may read a file that is made.
    """

    path: Path
    edit: Callable[[str, bool], str]
    shared: bool


def _target(client: str, *, scope: str, http: bool, url: str | None, data_dir: str | None, keyed: bool) -> ConfigTarget:
    around = Surroundings(Path.cwd(), home_directory(), os.environ, sys.platform)
    shared = scope == "project"
    if client == SKILL:
        text = Path(__file__).with_name("agent_skill.md").read_text()
        place = around.project if shared else around.home
        return ConfigTarget(place / SKILL_FILE, lambda _, put: text if put else "", shared)
    form, server = CLIENTS[client], _server(scope, http=http, url=url, data_dir=data_dir, keyed=keyed)

    def edit(before: str, put: bool) -> str:  # noqa: FBT001 - a callback
        entry = form.entry(server) if put else None
        if form.toml:
            return edit_toml(before, form.container, ENTRY, entry)
        return edit_json(before, form.container, ENTRY, entry, form.beside(server))

    return ConfigTarget(form.path(scope, around), edit, shared)


def _server(scope: str, *, http: bool, url: str | None, data_dir: str | None, keyed: bool) -> AgentServer:
    """Return the way to the server that is meant.

    Raises:
        Invalid: HTTP is wanted, and no server runs and none is named (``no_server``).
    """
    said = data_dir or os.environ.get(VARIABLE, "")
    directory = default_data_dir(said)
    if http:
        held = find_lock_holder(directory)
        found = check_url(url) if url else held.url if held is not None else ""
        if not found:
            raise Invalid(f"no server runs on {directory}; start one, or name it with --url", code="no_server")
        return AgentServer((), mcp_url(found), keyed)
    program = "penstock" if shutil.which("penstock") else str(Path(sys.argv[0]).absolute())
    line = [program, "mcp"]
    if url:
        line += ["--url", check_url(url)]
    # The user's own directory is found from wherever an agent starts.
    elif said or (scope == "user" and directory.parent == Path.cwd()):
        line += ["--data-dir", str(directory)]
    return AgentServer(tuple(line), "", keyed)


def _apply(target: ConfigTarget, *, put: bool, yes: bool) -> int:
    # A configuration may be a link into a directory of dotfiles: that file is written, and the link stays.
    path = target.path.resolve()
    before = _text(path)
    try:
        after = target.edit(before, put)
    except Invalid as error:
        detail = f"{path}: {error.detail}; put this in by hand:\n{target.edit('', True)}" if put else error.detail
        raise Invalid(detail, code=error.code) from None
    if after == before:
        click.echo(f"{path} is as it should be")
        return 0
    _show_difference(path, before, after)
    if not yes:
        if not sys.stdin.isatty():
            raise Invalid("nothing was written. Say --yes, since there is no terminal to ask on", code="not_confirmed")
        if not click.confirm(f"Write {path}?", err=True):
            raise Invalid("nothing was written", code="not_confirmed")
    if _text(path) != before:
        raise Invalid(f"{path} was changed by another program; run this again", code="config_changed")
    _write(path, before, after, shared=target.shared)
    click.echo(f"wrote {path}" if after else f"removed {path}")
    return 0


def _text(path: Path) -> str:
    try:
        return read_regular(path).decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise Invalid(f"{path} is not UTF-8", code="config_unusable") from None


def _show_difference(path: Path, before: str, after: str) -> None:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(path), str(path), lineterm="")
    for line in lines:
        colour = {"+": "green", "-": "red"}.get(line[:1])
        click.echo(click.style(strip_controls(line), fg=colour))


def _write(path: Path, before: str, after: str, *, shared: bool) -> None:
    """Replace a file at once, with a copy of what it was; remove it where nothing is left."""
    mode = 0o644 if shared else 0o600
    if before:
        mode = path.stat().st_mode & 0o7777
        shutil.copy2(path, path.with_name(path.name + BACKUP_SUFFIX))
    if not after:
        path.unlink()
        return
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        if shared:
            path.parent.chmod(0o755)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
