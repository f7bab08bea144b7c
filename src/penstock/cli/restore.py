"""``penstock restore``: restore the collections of a snapshot."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import click

from penstock.cli.options import Setup, json_option, with_client_settings
from penstock.cli.session import connect
from penstock.cli.snapshot import SNAPSHOTS
from penstock.cli.terminal import print_json, stderr_console, stdout_console, strip_controls
from penstock.client import Collection
from penstock.kernel.errors import Invalid
from penstock.telemetry.logs import configure


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace collections of the same names.")
@json_option
@with_client_settings()
def command(setup: Setup, file: Path, *, force: bool, as_json: bool) -> int:
    """Restore the collections of a snapshot, with or without a running server.

    The whole file is checked first, including that its contents can be read. Then either all collections are restored
    or nothing has changed. Vectors of another model than the server's are refused.
    """
    configure(setup.client_log_level)
    check_regular_file(file)
    restored = asyncio.run(_restore(setup, file, force=force))
    if as_json:
        print_json({"collections": [{"name": one.name, "documents": one.documents} for one in restored]})
    else:
        for one in restored:
            stdout_console().print(f"{strip_controls(one.name)}: {one.documents:,} documents", soft_wrap=True)
    return 0


async def _restore(setup: Setup, file: Path, *, force: bool) -> list[Collection]:
    async with connect(setup.settings, setup.data_dir, stderr_console()) as api:
        lent = setup.data_dir / SNAPSHOTS / f"restore-{os.getpid()}.snapshot"
        try:
            await asyncio.to_thread(_lend, file, lent)
            return await api.restore_snapshot(lent.name, force=force)
        finally:
            await asyncio.to_thread(lent.unlink, missing_ok=True)


def check_regular_file(file: Path) -> None:
    """Refuse anything but a regular file, since a pipe or a device has no end.

    Raises:
        Invalid: It is none.
    """
    if not file.is_file():
        raise Invalid(f"{file} is no plain file", field="file", code="snapshot_damaged")


def _lend(file: Path, lent: Path) -> None:
    """Make a file visible to the server: by a hard link where that is possible, else by a copy."""
    lent.parent.mkdir(parents=True, exist_ok=True)
    lent.unlink(missing_ok=True)
    try:
        lent.hardlink_to(file.resolve())
    except OSError:
        shutil.copyfile(file, lent)
