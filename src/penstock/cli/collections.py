"""``penstock collections``: list them, delete one."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli.options import Setup, complete_collections, json_option, with_client_settings
from penstock.cli.session import connect
from penstock.cli.sources import confirm, yes_option
from penstock.cli.status import collection_row
from penstock.cli.terminal import print_json, print_table, stderr_console, stdout_console, strip_controls
from penstock.client import Collection, calls
from penstock.kernel.errors import Invalid


@click.group("collections")
def command() -> None:
    """Collections, with or without a running server."""


@command.command("list")
@json_option
@with_client_settings()
async def list_collections(setup: Setup, *, as_json: bool) -> int:
    """Show the collections, by name."""
    found: list[Collection] = []
    told: dict[str, Any] = {"collections": []}
    # Asking must not create anything.
    if setup.data_dir.exists():
        async with connect(setup) as api:
            if as_json:
                told = await api.send(calls.list_collections().untyped())
            else:
                found = await api.list_collections()
    if as_json:
        print_json(told)
    elif found:
        header = ["collection", "documents", "chunks", "on disk", "indexed"]
        print_table(stdout_console(), header, map(collection_row, found), numbers=header[1:])
    else:
        stderr_console().print("No collections; `penstock index PATH --collection NAME` makes one.")
    return 0


@command.command("delete")
@click.argument("name", shell_complete=complete_collections)
@yes_option
@json_option
@with_client_settings()
async def delete(setup: Setup, name: str, *, yes: bool, as_json: bool) -> int:
    """Delete a collection with everything in it."""
    if not setup.data_dir.exists():
        raise Invalid(f"there is no collection {name!r}: nothing is indexed yet", code="collection_not_found")
    async with connect(setup) as api:
        info = await api.get_collection(name)
        shown = strip_controls(name)
        confirm(f"Delete {shown} with its {info.documents:,} documents?", yes=yes, answer=name)
        await api.delete_collection(name)
    if as_json:
        print_json({"collection": name, "documents": info.documents})
    else:
        stdout_console().print(f"{shown}: deleted, with {info.documents:,} documents", soft_wrap=True)
    return 0
