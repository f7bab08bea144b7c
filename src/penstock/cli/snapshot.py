"""``penstock snapshot``: every collection in one file."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path
from typing import Any, Final

import click

from penstock.cli.options import Setup, json_option, with_client_settings
from penstock.cli.session import connect
from penstock.cli.terminal import print_json, stderr_console, stdout_console, strip_controls
from penstock.client import calls
from penstock.kernel.errors import Invalid, Unavailable
from penstock.telemetry.logs import configure

#: Where a server leaves snapshots and looks for them, in its data directory.
SNAPSHOTS: Final = "snapshots"


@click.command("snapshot")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: penstock-DATE.snapshot here.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@json_option
@with_client_settings()
def command(setup: Setup, output: Path | None, *, force: bool, as_json: bool) -> int:
    """Save every collection in one file, with or without a running server.

    A running server goes on searching; each collection is saved as it was at one moment. A damaged collection is left
    out, and the exit code is 1.
    """
    configure(setup.client_log_level)
    if output is not None:
        check_not_existing(output, force=force)
    told = asyncio.run(_snapshot(setup, output))
    if as_json:
        print_json(told)
    else:
        names = ", ".join(told["collections"]) or "no collection"
        stdout_console().print(
            f"{strip_controls(told['file'])}: {names}, {told['bytes'] / 1e6:,.1f} MB", soft_wrap=True
        )
    for name in told.get("left_out", ()):
        stderr_console().print(
            f"{strip_controls(name)} is damaged and not in it; `penstock status` says why", soft_wrap=True
        )
    return 1 if told.get("left_out") else 0


async def _snapshot(setup: Setup, output: Path | None) -> dict[str, Any]:
    async with connect(setup.settings, setup.data_dir, stderr_console()) as api:
        told = await api.send(calls.make_snapshot().untyped())
    made = setup.data_dir / SNAPSHOTS / told["name"]
    target = output or Path(told["name"])
    await asyncio.to_thread(move_snapshot, made, target)
    return {**told, "file": str(target)}


def move_snapshot(made: Path, target: Path) -> None:
    """Move a snapshot to where it is wanted: by a rename, or else by a copy that is there whole or not at all.

    Raises:
        Unavailable: It could not be written there (``disk_full`` where the disk is full); it is still where it was.
    """
    draft = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        try:
            made.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copyfile(made, draft)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(target)
            made.unlink()
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise Unavailable(
            f"the snapshot could not be moved to {target}: {error.strerror}; it is at {made}",
            dependency=str(target.parent),
            code="disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "directory_unusable",
        ) from error


def check_not_existing(file: Path, *, force: bool) -> None:
    """Refuse to replace a file unasked.

    Raises:
        Invalid: It is there (``file_exists``), or cannot be a file.
    """
    if file.is_dir():
        raise Invalid(f"{file} is a directory; name a file in it", field="output", code="no_directory")
    if not file.absolute().parent.is_dir():
        raise Invalid(f"{file} cannot be written: there is no such directory", field="output", code="no_directory")
    if file.exists() and not force:
        raise Invalid(f"{file} is there already; name another file, or use --force", field="output", code="file_exists")
