"""``penstock status``: collections, and what the server is doing."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from penstock.cli.options import Setup, json_option, with_client_settings
from penstock.cli.session import connect
from penstock.cli.tables import TableRows, print_table
from penstock.cli.terminal import print_json, stderr_console, stdout_console, strip_controls
from penstock.client import calls
from penstock.stores.data_model import STATE_DAMAGED
from penstock.stores.lock import find_lock_holder


@click.command("status")
@json_option
@with_client_settings()
def command(setup: Setup, *, as_json: bool) -> int:
    """Show collections and what the server is doing, with or without a running server."""
    status = asyncio.run(_status(setup))
    if as_json:
        print_json(status)
    else:
        _print(status)
    return 0


async def _status(setup: Setup) -> dict[str, Any]:
    held = find_lock_holder(setup.data_dir)
    server = {"pid": held.pid, "url": held.url} if held is not None and held.url else None
    if not setup.data_dir.exists():
        # Asking must not create anything.
        return {"server": None, "data_dir": str(setup.data_dir), "collections": []}
    async with connect(setup.settings, setup.data_dir, stderr_console()) as api:
        told = await api.send(calls.status().untyped())
    return {"server": server, **told}


def _print(status: dict[str, Any]) -> None:
    console = stdout_console()
    server = status["server"]
    console.print(f"server      {server['url']} (process {server['pid']})" if server else "server      not running")
    console.print(f"data        {strip_controls(str(status.get('data_dir', '')))}")
    if status.get("model"):
        console.print(f"model       {status['model']}, {status.get('dim', '?')} dimensions")
    for one in status.get("models", []):
        console.print(f"{one.get('part', ''):<12}{strip_controls(model_label(one))}")
    if server:
        ready = "yes" if status.get("ready") else f"no: {', '.join(status.get('reasons', []))}"
        console.print(f"ready       {ready}; {status.get('in_flight', 0)} in flight")
    collections = status.get("collections") or []
    if not collections:
        console.print("collections none; `penstock index PATH` makes one")
        return
    console.print()
    print_table(console, collection_rows(collections))
    for one in [*damage_lines(collections), *warning_lines(status)]:
        console.print(one, soft_wrap=True)
    if plain := without_late_interaction(collections):
        console.print()
        console.print(plain)
    if server:
        console.print()
        print_table(console, pool_rows(status))


def model_label(model: dict[str, Any]) -> str:
    """Return a model's name (its kind, where that tells all), where it is asked, and what is to be said of it."""
    kind, name = str(model.get("kind", "")), str(model.get("name", ""))
    words = [kind if kind in {"builtin", "bm25"} else name]
    words += [f"at {model['url']}"] if model.get("url") else []
    words += [f"({model['note']})"] if model.get("note") else []
    return " ".join(words)


def collection_rows(collections: list[dict[str, Any]]) -> TableRows:
    """Return the table of collections."""
    rows = [
        [
            strip_controls(str(one.get("name", ""))),
            f"{one.get('documents', 0):,}",
            f"{one.get('chunks', 0):,}",
            f"{one.get('disk_bytes', 0) / 1e6:,.1f} MB",
            "damaged" if is_damaged(one) else strip_controls(str(one.get("upkeep", ""))) or indexed_share(one),
        ]
        for one in collections
    ]
    return TableRows(["collection", "documents", "chunks", "on disk", "indexed"], rows, numbers=frozenset({1, 2, 3, 4}))


def is_damaged(collection: dict[str, Any]) -> bool:
    """Return whether a collection cannot be opened."""
    return bool(collection.get("state") == STATE_DAMAGED)


def damage_lines(collections: list[dict[str, Any]]) -> list[str]:
    """Return a line for each collection that cannot be opened."""
    return [
        f"{strip_controls(str(one.get('name', '')))} is damaged: {strip_controls(str(one.get('reason', '')))}"
        for one in collections
        if is_damaged(one)
    ]


def warning_lines(status: dict[str, Any]) -> list[str]:
    """Return what the server says does not work, but for its collections."""
    return [strip_controls(str(one)) for one in status.get("warnings", []) if " is damaged: " not in str(one)]


def without_late_interaction(collections: list[dict[str, Any]]) -> str:
    """Return what is to be said of collections that are ranked without late interaction; empty if there are none."""
    names = ", ".join(
        strip_controls(str(one.get("name", ""))) for one in collections if not one.get("late") and not is_damaged(one)
    )
    if not names:
        return ""
    return f"without token vectors, so ranked without late interaction until deleted and indexed again: {names}"


def indexed_share(collection: dict[str, Any]) -> str:
    """Return the share of a collection's chunks that its generation has indexed."""
    chunks = collection.get("chunks", 0)
    return f"{collection.get('indexed', 0) / chunks:.0%}" if chunks else ""


def pool_rows(status: dict[str, Any]) -> TableRows:
    """Return the table of topics and pools."""
    pools = {one.get("name"): one for one in status.get("pools", [])}
    rows = [[f"pool {name}", str(one.get("active", 0)), str(one.get("limit", 0))] for name, one in pools.items()]
    rows += [
        [f"topic {one.get('name')}", str(one.get("waiting", 0)), str(one.get("capacity", 0))]
        for one in status.get("topics", [])
    ]
    return TableRows(["", "in use", "at most"], rows, numbers=frozenset({1, 2}))
