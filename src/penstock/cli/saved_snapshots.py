"""``penstock snapshots``: list or delete the snapshots in the data directory."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from penstock.cli.options import Setup, json_option, with_client_settings
from penstock.cli.session import connect
from penstock.cli.tables import TableRows, print_table
from penstock.cli.terminal import print_json, stderr_console, stdout_console, strip_controls
from penstock.client import calls
from penstock.kernel.errors import Invalid
from penstock.telemetry.logs import configure


@click.group("snapshots")
def command() -> None:
    """Snapshots in the data directory, with or without a running server.

    `POST /v1/snapshots` makes them there and keeps the newest (PENSTOCK_SNAPSHOTS_KEEP). `penstock snapshot` moves its
    own to where it is wanted. A snapshot with a name of your own is never removed unasked.
    """


@command.command("list")
@json_option
@with_client_settings()
def list_snapshots(setup: Setup, *, as_json: bool) -> int:
    """Show the snapshots, by name."""
    configure(setup.client_log_level)
    found = asyncio.run(_list(setup))
    if as_json:
        print_json({"snapshots": found})
    elif found:
        print_table(stdout_console(), snapshot_table(found))
    else:
        stderr_console().print("No snapshots.")
    return 0


@command.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@json_option
@with_client_settings()
def delete(setup: Setup, names: tuple[str, ...], *, as_json: bool) -> int:
    """Delete snapshots. The exit code is 1 if one was missing."""
    configure(setup.client_log_level)
    found = asyncio.run(_delete(setup, names))
    if as_json:
        print_json(found)
    else:
        stdout_console().print(f"{len(found['deleted'])} deleted")
        for name in found["missing"]:
            stderr_console().print(f"{strip_controls(name)}: no such snapshot")
    return 1 if found["missing"] else 0


async def _list(setup: Setup) -> list[dict[str, Any]]:
    if not setup.data_dir.exists():
        # Asking must not create anything.
        return []
    async with connect(setup.settings, setup.data_dir, stderr_console()) as api:
        found: list[dict[str, Any]] = (await api.send(calls.list_snapshots().untyped()))["snapshots"]
        return found


async def _delete(setup: Setup, names: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"deleted": [], "missing": []}
    async with connect(setup.settings, setup.data_dir, stderr_console()) as api:
        for name in names:
            try:
                await api.delete_snapshot(name)
            except Invalid as error:
                if error.code not in ("snapshot_not_found", "not_found"):
                    raise
                found["missing"].append(name)
            else:
                found["deleted"].append(name)
    return found


def snapshot_table(snapshots: list[dict[str, Any]]) -> TableRows:
    """Return snapshots as a table."""
    rows = [
        [
            strip_controls(one["name"]),
            strip_controls(one["made_at"]),
            f"{one['bytes'] / 1e6:,.1f}",
            strip_controls(one.get("reason") or ", ".join(one["collections"])),
        ]
        for one in snapshots
    ]
    return TableRows(["name", "made", "MB", "holds"], rows, frozenset({2}), frozenset({3}))
