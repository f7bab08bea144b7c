"""``penstock watch``: keep sources up to date while their files change."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import click
from rich.console import Console

from penstock.cli.options import Setup, collection_option, complete_sources, with_client_settings
from penstock.cli.session import client_of, running_server
from penstock.cli.terminal import stderr_console, strip_controls
from penstock.client import AsyncClient, Source
from penstock.indexing.sources.source_watches import WatchState
from penstock.indexing.sources.watcher import SourceWatcher
from penstock.kernel.errors import Invalid, Unavailable


@click.command("watch")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", shell_complete=complete_sources)
@collection_option
@with_client_settings("concurrency.index.", "concurrency.http.")
async def command(setup: Setup, sources: tuple[str, ...], collection: str) -> int:
    """Keep sources up to date while their files change; all sources of this host unless some are named, or their roots.

    A changed file is searchable a second or two after it was saved. Changes that come together, such as those of a
    branch switch, are one batch. A source keeps its documents while its directory is gone, empty or has lost more than
    half of its files. A server must run on the data directory; while it does not answer, changes are kept. Sources that
    the server watches itself are left to it unless they are named. Ctrl-C ends.
    """
    server = running_server(setup.data_dir) if setup.data_dir.exists() else None
    if server is None:
        raise Invalid(f"no server runs on {setup.data_dir}; start one with `penstock serve`", code="no_server")
    async with client_of(server) as api:
        listed = {one.name: one for one in await api.list_sources(collection)}
    here = {name: root for name, one in listed.items() if (root := one.root_on(socket.gethostname()))}
    names = _by_name(sources, here)
    if missing := [name for name in names if name not in here]:
        detail = f"{', '.join(missing)}: no such source of {collection} on this host"
        raise Invalid(detail, field="source", code="source_not_found")
    roots = {
        name: Path(root) for name, root in here.items() if (name in names if names else listed[name].watch is None)
    }
    if not roots:
        hint = "the server watches all of them itself" if here else "`penstock index PATH` registers one"
        raise Invalid(f"{collection} has no source on this host to watch; {hint}", field="source")
    await SourceWatcher(_Terminal(setup, stderr_console()), setup.settings, collection, roots).run()
    return 0


def _by_name(asked: Sequence[str], here: Mapping[str, str]) -> list[str]:
    """Return the names of sources that are asked for by their names or their roots."""
    by_root = {Path(root): name for name, root in here.items()}
    return [one if one in here else by_root.get(Path(one).resolve(), one) for one in asked]


class _Terminal:
    """A person who started the watcher, and the server on the data directory."""

    registered_only = False

    def __init__(self, setup: Setup, console: Console) -> None:
        self.data_dir = setup.data_dir.resolve()
        self._console = console

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncClient]:
        server = running_server(self.data_dir)
        if server is None:
            raise Unavailable("no server runs on the data directory", dependency="server")
        async with client_of(server) as api:
            yield api

    def refusal(self, root: Path) -> str:  # noqa: ARG002 - a person may index anything
        return ""

    def is_kept(self, source: Source, root: Path) -> bool:  # noqa: ARG002 - a source that has moved is told by the run
        return True

    def tell(self, text: str) -> None:
        self._console.print(strip_controls(text), soft_wrap=True)

    def note(self, name: str, state: WatchState, detail: str = "") -> None:
        """Show nothing: what matters of it is told in lines."""
