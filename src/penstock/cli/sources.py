"""``penstock sources`` and ``penstock forget``: the trees that a collection is fed from."""

from __future__ import annotations

import socket
import sys
from typing import Any

import click
import msgspec

from penstock.cli.options import Setup, collection_option, complete_sources, json_option, with_client_settings
from penstock.cli.session import connect
from penstock.cli.terminal import print_json, print_table, stderr_console, stdout_console, strip_controls
from penstock.client import Source, calls
from penstock.kernel.errors import Invalid

#: Characters of a commit that are shown.
COMMIT_CHARACTERS: int = 10


def yes_option(command: Any) -> Any:
    """Add ``--yes``."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def confirm(question: str, *, yes: bool, answer: str = "") -> None:
    """Ask on a terminal before something is deleted.

    Args:
        question: What is asked.
        yes: Whether the user has answered already.
        answer: What has to be typed; empty for yes or no.

    Raises:
        Invalid: There is no terminal to ask on, or another answer was given (``not_confirmed``).
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Invalid(f"{question} Say --yes, since there is no terminal to ask on", code="not_confirmed")
    if answer:
        given = click.prompt(f"{question} Type its name to go on", default="", show_default=False, err=True)
        confirmed = given == answer
    else:
        confirmed = click.confirm(question, err=True)
    if not confirmed:
        raise Invalid("nothing was deleted", code="not_confirmed")


@click.command("sources")
@click.option("--collection", metavar="NAME", help="Only the sources of this collection.")
@json_option
@with_client_settings()
async def sources(setup: Setup, collection: str | None, *, as_json: bool) -> int:
    """Show the trees that are indexed, and how fresh they are.

    The root is that of this host, where it has fed the source, else the latest host's. The watch is the server's own:
    `elsewhere` for that of a server on another host, `off` where the record asks for one that this server does not
    keep. What is wrong with one is told below, with the files that failed
    in the last run and the patterns of what is included although it is left out elsewhere.
    """
    told: dict[str, Any] = {"sources": []}
    # Asking must not create anything.
    if setup.data_dir.exists():
        async with connect(setup) as api:
            told = await api.send(calls.list_sources(collection).untyped())
    if as_json:
        print_json(told)
        return 0
    listed = msgspec.convert(told["sources"], list[Source])
    if not listed:
        stderr_console().print("No sources; `penstock index PATH` registers one.")
        return 0
    header = ["source", "collection", "documents", "completed", "commit", "last run", "watch", "root"]
    host = socket.gethostname()
    rows = [source_row(one, host) for one in listed]
    print_table(stdout_console(), header, rows, numbers={"documents"}, foldable={"last run", "root"})
    for one in listed:
        if one.watch is not None and one.watch.detail:
            line = f"{one.watch.state}: {one.name}: {one.watch.detail}"
            stdout_console().print(strip_controls(line), soft_wrap=True)
        for failure in one.run.failures:
            line = f"failed: {one.name}: {failure.path} ({failure.code})"
            stdout_console().print(strip_controls(line), soft_wrap=True)
        if one.include:
            line = f"included: {one.name}: {', '.join(one.include)}"
            stdout_console().print(strip_controls(line), soft_wrap=True)
    return 0


def source_row(one: Source, host: str) -> list[str]:
    """Return a source's row, with its root on ``host`` or else on the latest host that has fed it."""
    here = one.root_on(host)
    root = here or (f"{one.roots[0].host}:{one.roots[0].path}" if one.roots else "")
    counts = ("indexed", "unchanged", "removed", "failed", "kept")
    run = ", ".join(f"{count} {name}" for name in counts if (count := getattr(one.run, name)))
    completed = one.completed_at or "never"
    watching = {root.host for root in one.roots if root.watch}
    watch = one.watch.state if one.watch is not None else "off" if host in watching else "elsewhere" * bool(watching)
    commit = one.commit[:COMMIT_CHARACTERS]
    return [one.name, one.collection, f"{one.documents:,}", completed, commit, run, watch, root]


@click.command("forget")
@click.argument("name", shell_complete=complete_sources)
@collection_option
@yes_option
@json_option
@with_client_settings()
async def forget(setup: Setup, name: str, collection: str, *, yes: bool, as_json: bool) -> int:
    """Remove a source and its documents from a collection. The files stay as they are.

    Documents that were put in through the API stay, whatever their ids look like.
    """
    if not setup.data_dir.exists():
        raise Invalid(f"there is no source {name!r}: nothing is indexed yet", code="source_not_found")
    async with connect(setup) as api:
        known = {one.name: one for one in await api.list_sources(collection)}
        if name in known:
            shown = strip_controls(name)
            confirm(f"Remove the {known[name].documents:,} documents of {shown} from {collection}?", yes=yes)
        deleted = await api.delete_source(name, collection)
    if as_json:
        print_json({"source": name, "collection": collection, "deleted": deleted})
    else:
        stdout_console().print(f"{strip_controls(name)}: {deleted:,} documents removed", soft_wrap=True)
    return 0
