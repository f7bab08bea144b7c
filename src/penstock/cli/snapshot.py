"""``penstock snapshot``: every collection in one file."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

import click

from penstock.cli.options import Setup, client, json_option
from penstock.cli.output import print_json
from penstock.cli.session import connect
from penstock.cli.terminal import harmless, notices, results
from penstock.kernel.errors import Invalid
from penstock.telemetry.logs import configure

#: Where a server leaves snapshots and looks for them, in its data directory.
SNAPSHOTS: Final = "snapshots"


@click.command("snapshot")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: penstock-DATE.snapshot here.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@json_option
@client()
def command(setup: Setup, output: Path | None, *, force: bool, as_json: bool) -> int:
    """Save every collection in one file, with or without a running server.

    A running server goes on searching; each collection is saved as it was at one moment.
    """
    configure(setup.client_log_level)
    if output is not None:
        check_free(output, force=force)
    told = asyncio.run(_snapshot(setup, output))
    if as_json:
        print_json(told)
    else:
        names = ", ".join(told["collections"]) or "no collection"
        results().print(f"{harmless(told['file'])}: {names}, {told['bytes'] / 1e6:,.1f} MB", soft_wrap=True)
    return 0


async def _snapshot(setup: Setup, output: Path | None) -> dict[str, Any]:
    async with connect(setup.settings, setup.data_dir, notices()) as api:
        told = await api.snapshot()
    made = setup.data_dir / SNAPSHOTS / told["name"]
    target = output or Path(told["name"])
    # Within one file system a rename, else a copy.
    await asyncio.to_thread(shutil.move, made, target)
    return {**told, "file": str(target)}


def check_free(file: Path, *, force: bool) -> None:
    """Refuse to replace a file unasked.

    Raises:
        Invalid: It is there (``file_exists``), or cannot be a file.
    """
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise Invalid(f"{file} cannot be written: no such file or directory", field="output", code="no_directory")
    if file.exists() and not force:
        raise Invalid(f"{file} is there already; name another file, or use --force", field="output", code="file_exists")
