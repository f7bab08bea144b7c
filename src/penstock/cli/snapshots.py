"""``penstock snapshot``, ``restore`` and ``snapshots``: every collection in one file, and back."""

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
from penstock.cli.terminal import print_json, print_table, stderr_console, stdout_console, strip_controls
from penstock.client import calls
from penstock.kernel.errors import Invalid, Unavailable

#: Where a server leaves snapshots and looks for them, in its data directory.
SNAPSHOTS: Final = "snapshots"


@click.command("snapshot")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: penstock-DATE.snapshot here.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@json_option
@with_client_settings()
async def snapshot(setup: Setup, output: Path | None, *, force: bool, as_json: bool) -> int:
    """Save every collection in one file, with or without a running server.

    A running server goes on searching; each collection is saved as it was at one moment. A damaged collection is left
    out, and the exit code is 1.
    """
    if output is not None:
        check_not_existing(output, force=force)
    async with connect(setup) as api:
        told = await api.send(calls.make_snapshot().untyped())
    target = output or Path(told["name"])
    await asyncio.to_thread(move_snapshot, setup.data_dir / SNAPSHOTS / told["name"], target)
    if as_json:
        print_json({**told, "file": str(target)})
    else:
        names = ", ".join(told["collections"]) or "no collection"
        shown = strip_controls(str(target))
        stdout_console().print(f"{shown}: {names}, {told['bytes'] / 1e6:,.1f} MB", soft_wrap=True)
    for name in told.get("left_out", ()):
        line = f"{strip_controls(name)} is damaged and not in it; `penstock status` says why"
        stderr_console().print(line, soft_wrap=True)
    return 1 if told.get("left_out") else 0


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


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace collections of the same names.")
@json_option
@with_client_settings()
async def restore(setup: Setup, file: Path, *, force: bool, as_json: bool) -> int:
    """Restore the collections of a snapshot, with or without a running server.

    The whole file is checked first, including that its contents can be read. Then either all collections are restored
    or nothing has changed. Vectors of another model than the server's are refused.
    """
    check_regular_file(file)
    lent = setup.data_dir / SNAPSHOTS / f"restore-{os.getpid()}.snapshot"
    async with connect(setup) as api:
        try:
            await asyncio.to_thread(_lend, file, lent)
            restored = await api.restore_snapshot(lent.name, force=force)
        finally:
            await asyncio.to_thread(lent.unlink, missing_ok=True)
    if as_json:
        print_json({"collections": [{"name": one.name, "documents": one.documents} for one in restored]})
    else:
        for one in restored:
            stdout_console().print(f"{strip_controls(one.name)}: {one.documents:,} documents", soft_wrap=True)
    return 0


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


@click.group("snapshots")
def snapshots() -> None:
    """Snapshots in the data directory, with or without a running server.

    `POST /v1/snapshots` makes them there and keeps the newest (PENSTOCK_SNAPSHOTS_KEEP). `penstock snapshot` moves its
    own to where it is wanted. A snapshot with a name of your own is never removed unasked.
    """


@snapshots.command("list")
@json_option
@with_client_settings()
async def list_snapshots(setup: Setup, *, as_json: bool) -> int:
    """Show the snapshots, by name."""
    found: list[dict[str, Any]] = []
    # Asking must not create anything.
    if setup.data_dir.exists():
        async with connect(setup) as api:
            found = (await api.send(calls.list_snapshots().untyped()))["snapshots"]
    if as_json:
        print_json({"snapshots": found})
    elif found:
        rows = [
            [
                one["name"],
                one["made_at"],
                f"{one['bytes'] / 1e6:,.1f}",
                one.get("reason") or ", ".join(one["collections"]),
            ]
            for one in found
        ]
        print_table(stdout_console(), ["name", "made", "MB", "holds"], rows, numbers={"MB"}, foldable={"holds"})
    else:
        stderr_console().print("No snapshots.")
    return 0


@snapshots.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@json_option
@with_client_settings()
async def delete(setup: Setup, names: tuple[str, ...], *, as_json: bool) -> int:
    """Delete snapshots. The exit code is 1 if one was missing."""
    found: dict[str, list[str]] = {"deleted": [], "missing": []}
    async with connect(setup) as api:
        for name in names:
            try:
                await api.delete_snapshot(name)
                found["deleted"].append(name)
            except Invalid as error:
                if error.code not in ("snapshot_not_found", "not_found"):
                    raise
                found["missing"].append(name)
    if as_json:
        print_json(found)
    else:
        stdout_console().print(f"{len(found['deleted'])} deleted")
        for name in found["missing"]:
            stderr_console().print(f"{strip_controls(name)}: no such snapshot")
    return 1 if found["missing"] else 0
