"""``penstock status``: collections, and what the server is doing."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from penstock.cli.options import Setup, client, json_option
from penstock.cli.output import print_json
from penstock.cli.session import connect
from penstock.cli.tables import Rows, print_rows
from penstock.cli.terminal import harmless, notices, results
from penstock.stores.lock import holder
from penstock.stores.records import DAMAGED
from penstock.telemetry.logs import configure


@click.command("status")
@json_option
@client()
def command(setup: Setup, *, as_json: bool) -> int:
    """Show collections and what the server is doing, with or without a running server."""
    configure(setup.client_log_level)
    status = asyncio.run(_status(setup))
    if as_json:
        print_json(status)
    else:
        _print(status)
    return 0


async def _status(setup: Setup) -> dict[str, Any]:
    held = holder(setup.data_dir)
    server = {"pid": held.pid, "url": held.url} if held is not None and held.url else None
    if not setup.data_dir.exists():
        # Asking must not create anything.
        return {"server": None, "data_dir": str(setup.data_dir), "collections": []}
    async with connect(setup.settings, setup.data_dir, notices()) as api:
        return {"server": server, **await api.status()}


def _print(status: dict[str, Any]) -> None:
    console = results()
    server = status["server"]
    console.print(f"server      {server['url']} (process {server['pid']})" if server else "server      not running")
    console.print(f"data        {harmless(str(status.get('data_dir', '')))}")
    if status.get("model"):
        console.print(f"model       {status['model']}, {status.get('dim', '?')} dimensions")
    for one in status.get("models", []):
        console.print(f"{one.get('part', ''):<12}{harmless(in_use(one))}")
    if server:
        ready = "yes" if status.get("ready") else f"no: {', '.join(status.get('reasons', []))}"
        console.print(f"ready       {ready}; {status.get('in_flight', 0)} in flight")
    collections = status.get("collections") or []
    if not collections:
        console.print("collections none; `penstock index PATH` makes one")
        return
    console.print()
    print_rows(console, collection_rows(collections))
    for one in [*damaged(collections), *other_warnings(status)]:
        console.print(one, soft_wrap=True)
    if plain := plainly_ranked(collections):
        console.print()
        console.print(plain)
    if server:
        console.print()
        print_rows(console, pool_rows(status))


def in_use(model: dict[str, Any]) -> str:
    """Return a model's name (its kind, where that tells all), where it is asked, and what is to be said of it."""
    kind, name = str(model.get("kind", "")), str(model.get("name", ""))
    words = [kind if kind in {"builtin", "bm25"} else name]
    words += [f"at {model['url']}"] if model.get("url") else []
    words += [f"({model['note']})"] if model.get("note") else []
    return " ".join(words)


def collection_rows(collections: list[dict[str, Any]]) -> Rows:
    """Return the table of collections."""
    rows = [
        [
            harmless(str(one.get("name", ""))),
            f"{one.get('documents', 0):,}",
            f"{one.get('chunks', 0):,}",
            f"{one.get('disk_bytes', 0) / 1e6:,.1f} MB",
            "damaged" if is_damaged(one) else harmless(str(one.get("upkeep", ""))) or indexed(one),
        ]
        for one in collections
    ]
    return Rows(["collection", "documents", "chunks", "on disk", "indexed"], rows, numbers=frozenset({1, 2, 3, 4}))


def is_damaged(collection: dict[str, Any]) -> bool:
    """Return whether a collection cannot be opened."""
    return bool(collection.get("state") == DAMAGED)


def damaged(collections: list[dict[str, Any]]) -> list[str]:
    """Return a line for each collection that cannot be opened."""
    return [
        f"{harmless(str(one.get('name', '')))} is damaged: {harmless(str(one.get('reason', '')))}"
        for one in collections
        if is_damaged(one)
    ]


def other_warnings(status: dict[str, Any]) -> list[str]:
    """Return what the server says does not work, but for its collections."""
    return [harmless(str(one)) for one in status.get("warnings", []) if " is damaged: " not in str(one)]


def plainly_ranked(collections: list[dict[str, Any]]) -> str:
    """Return what is to be said of collections that are ranked without late interaction; empty if there are none."""
    names = ", ".join(
        harmless(str(one.get("name", ""))) for one in collections if not one.get("late") and not is_damaged(one)
    )
    if not names:
        return ""
    return f"without token vectors, so ranked without late interaction until deleted and indexed anew: {names}"


def indexed(collection: dict[str, Any]) -> str:
    """Return the share of a collection's chunks that its generation has indexed."""
    chunks = collection.get("chunks", 0)
    return f"{collection.get('indexed', 0) / chunks:.0%}" if chunks else ""


def pool_rows(status: dict[str, Any]) -> Rows:
    """Return the table of topics and pools."""
    pools = {one.get("name"): one for one in status.get("pools", [])}
    rows = [[f"pool {name}", str(one.get("active", 0)), str(one.get("limit", 0))] for name, one in pools.items()]
    rows += [
        [f"topic {one.get('name')}", str(one.get("waiting", 0)), str(one.get("capacity", 0))]
        for one in status.get("topics", [])
    ]
    return Rows(["", "in use", "at most"], rows, numbers=frozenset({1, 2}))
