"""``penstock migrate``: move a collection between the data directory and a Qdrant server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import click
from rich.console import Console

from penstock.app.external_backends import build_store_service, probe_qdrant
from penstock.cli.options import Setup, complete_collections, json_option, with_settings
from penstock.cli.progress_bars import progress_bar
from penstock.cli.terminal import print_json, stderr_console, stdout_console, strip_controls
from penstock.kernel.context import MonotonicClock
from penstock.kernel.errors import Invalid
from penstock.kernel.redaction import redact_url
from penstock.stores.lock import DirectoryLock
from penstock.stores.migration import Migration, MigrationJournal, MigrationResult, MigrationState
from penstock.stores.store_service import StoreService

#: Where the progress of migrations is kept, in the data directory.
MIGRATIONS: Final = "migrations"

_OTHER: Final = {"edge": "qdrant", "qdrant": "edge"}


@click.command("migrate")
@click.argument("collection", shell_complete=complete_collections)
@click.option("--to", "target", type=click.Choice(list(_OTHER)), required=True, help="Where its points are to be.")
@click.option("--as", "name", metavar="NAME", help="Its name there (default: the same).")
@json_option
@with_settings
async def command(setup: Setup, collection: str, target: str, name: str | None, *, as_json: bool) -> int:
    """Move a collection between the data directory and a Qdrant server.

    `--to qdrant` reads the data directory and writes the server at QDRANT_URL; `--to edge` the other way. The source is
    left as it was. An interrupted migration goes on where it was when it is run again. In the end both are compared: by
    count, by samples, and by search results. No server may run on the data directory. Do not write to
    either collection while it runs.
    """
    if not setup.settings.qdrant.url:
        raise Invalid("migrate needs concurrency.qdrant.url (QDRANT_URL)", field="concurrency.qdrant.url")
    places = {"edge": str(setup.data_dir), "qdrant": redact_url(setup.settings.qdrant.url)}
    order = MigrationState(places[_OTHER[target]], places[target], collection, name or collection)
    moved = await _migrate(setup, order, target)
    if as_json:
        print_json(_told(order, moved))
    else:
        _print(order, moved)
    return 0 if moved.comparison.matches else 1


async def _migrate(setup: Setup, order: MigrationState, target: str) -> MigrationResult:
    """Move a collection, between locking the data directory and releasing it.

    Raises:
        PenstockError: It cannot be moved, or not now.

    Cancellation: The stores are closed; run it again to go on.
    """
    file, console = f"{target}-{order.collection}.json", stderr_console()
    if "/" in file or "\0" in file:
        raise Invalid(f"there is no collection {order.collection!r}", field="collection", code="collection_not_found")
    lock = DirectoryLock(setup.data_dir)
    lock.acquire()
    try:
        # Before either is opened, so that an unreachable server is reported at once.
        await probe_qdrant(setup.settings, MonotonicClock())
        async with _opened(setup, _OTHER[target]) as source, _opened(setup, target) as destination:
            journal = MigrationJournal(setup.data_dir / MIGRATIONS / file)
            migration = Migration(source.store, destination.store, order, journal, random.random)
            with _progress(console, migration, strip_controls(order.collection)):
                return await migration.run()
    except asyncio.CancelledError:
        console.print("Interrupted. Run the same command again to go on where it was.", soft_wrap=True)
        raise
    finally:
        lock.release()


@asynccontextmanager
async def _opened(setup: Setup, backend: str) -> AsyncIterator[StoreService]:
    """Start a store; close it in the end."""
    service = build_store_service(setup.settings, setup.data_dir, MonotonicClock(), backend)
    try:
        await service.start()
        yield service
    finally:
        await service.close()


@contextmanager
def _progress(console: Console, migration: Migration, name: str) -> Iterator[None]:
    with progress_bar(console, f"Moving {name}", transient=False) as update:

        def show() -> None:
            moved, total = migration.moved_points, migration.total_points
            what = "Comparing" if moved >= total else "Moving"
            update(description=f"{what} {name}", completed=moved, total=total or 1)

        migration.on_progress = show
        yield


def _print(order: MigrationState, moved: MigrationResult) -> None:
    console, comparison = stdout_console(), moved.comparison
    name = strip_controls(order.target_collection)
    console.print(f"{name}: {moved.info.chunks:,} chunks of {moved.info.documents:,} documents are in {order.target}.")
    if moved.resumed_points:
        console.print(f"{moved.resumed_points:,} of them had been moved before.")
    if comparison.matches:
        dense, sparse = comparison.dense_overlap, comparison.sparse_overlap
        shares = f"{dense:.0%} of the dense, {sparse:.0%} of the sparse best hits are the same"
        console.print(f"Compared: the counts, {comparison.samples} samples; {shares}.")
        console.print(f"The collection in {order.source} has been left as it was.")
        return
    console.print("It differs from its source:")
    for fault in comparison.differences:
        console.print(f"  {fault}")
    console.print("Run the same command again to compare again; delete the target's collection first to move it again.")


def _told(order: MigrationState, moved: MigrationResult) -> dict[str, Any]:
    comparison = moved.comparison
    return {
        "collection": order.target_collection,
        "source": order.source,
        "target": order.target,
        "chunks": moved.info.chunks,
        "documents": moved.info.documents,
        "resumed": moved.resumed_points,
        "same": comparison.matches,
        "samples": comparison.samples,
        "dense_agreement": round(comparison.dense_overlap, 4),
        "sparse_agreement": round(comparison.sparse_overlap, 4),
        "faults": comparison.differences,
    }
