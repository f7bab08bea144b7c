"""``penstock status``: collections, and what the server is doing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from penstock.cli.options import Setup, json_option, with_client_settings
from penstock.cli.renew import older
from penstock.cli.session import connect
from penstock.cli.status_rates import parse_status
from penstock.cli.terminal import print_json, print_table, stdout_console, strip_controls
from penstock.client import Collection, Status, calls
from penstock.stores.data_model import STATE_DAMAGED
from penstock.stores.lock import find_lock_holder


@click.command("status")
@json_option
@with_client_settings()
async def command(setup: Setup, *, as_json: bool) -> int:
    """Show collections and what the server is doing, with or without a running server."""
    held = find_lock_holder(setup.data_dir)
    server = {"pid": held.pid, "url": held.url} if held is not None and held.url else None
    told: dict[str, Any] = {"data_dir": str(setup.data_dir), "collections": []}
    # Asking must not create anything.
    if setup.data_dir.exists():
        async with connect(setup) as api:
            told = await api.send(calls.status().untyped())
    if as_json:
        print_json({"server": server, **told})
    else:
        _print(parse_status(told), server)
    return 0


def _print(status: Status, server: dict[str, Any] | None) -> None:
    console = stdout_console()
    for label, text in _facts(status, server):
        console.print(f"{label:<12}{strip_controls(text)}")
    if not status.collections:
        return
    console.print()
    header = ["collection", "documents", "chunks", "on disk", "indexed"]
    print_table(console, header, map(collection_row, status.collections), numbers=header[1:])
    for one in [*damage_lines(status), *warning_lines(status)]:
        console.print(one, soft_wrap=True)
    for plain in filter(None, [without_late_interaction(status), with_plain_text(status)]):
        console.print(f"\n{plain}")
    if server:
        rows = [[f"pool {one.name}", str(one.active), str(one.limit)] for one in status.pools]
        rows += [[f"topic {one.name}", str(one.waiting), str(one.capacity)] for one in status.topics]
        console.print()
        print_table(console, ["", "in use", "at most"], rows, numbers={"in use", "at most"})


def _facts(status: Status, server: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    yield "server", f"{server['url']} (process {server['pid']})" if server else "not running"
    yield "data", status.data_dir
    if status.model:
        yield "model", f"{status.model}, {status.dim or '?'} dimensions"
    for one in status.models:
        # A kind that tells all stands for the name.
        words = [one.kind if one.kind in {"builtin", "bm25"} else one.name]
        words += [f"at {one.url}"] if one.url else []
        words += [f"({one.note})"] if one.note else []
        yield one.part, " ".join(words)
    if server:
        ready = "yes" if status.ready else f"no: {', '.join(status.reasons)}"
        yield "ready", f"{ready}; {status.in_flight} in flight"
    if not status.collections:
        yield "collections", "none; `penstock index PATH` makes one"


def collection_row(one: Collection) -> list[str]:
    """Return a collection's row; its last cell is what is being done, or the share of its chunks that are indexed."""
    indexed = f"{one.indexed / one.chunks:.0%}" if one.chunks else ""
    vectors = f"vectors {(one.chunks - one.pending) / one.chunks:.0%}" if one.pending else ""
    stage = "damaged" if one.state == STATE_DAMAGED else one.upkeep or vectors or indexed
    return [one.name, f"{one.documents:,}", f"{one.chunks:,}", f"{one.disk_bytes / 1e6:,.1f} MB", stage]


def damage_lines(status: Status) -> list[str]:
    """Return a line for each collection that cannot be opened."""
    damaged = [one for one in status.collections if one.state == STATE_DAMAGED]
    return [strip_controls(f"{one.name} is damaged: {one.reason}") for one in damaged]


def warning_lines(status: Status) -> list[str]:
    """Return what the server says does not work, but for its collections."""
    return [strip_controls(one) for one in status.warnings if " is damaged: " not in one]


def without_late_interaction(status: Status) -> str:
    """Return what is to be said of collections that are ranked without late interaction; empty if there are none."""
    plain = [one.name for one in status.collections if not one.token_dim and one.state != STATE_DAMAGED]
    names = strip_controls(", ".join(plain))
    why = "without token vectors, so ranked without late interaction until deleted and indexed again"
    return f"{why}: {names}" if names else ""


def with_plain_text(status: Status) -> str:
    """Return what is to be said of collections whose text is not folded; empty if there are none."""
    names = strip_controls(", ".join(older(status.collections)))
    why = "text: 1, so not searchable by words in scripts without spaces until `penstock renew`"
    return f"{why}: {names}" if names else ""
