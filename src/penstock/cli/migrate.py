"""``penstock migrate``: move a collection between the data directory and a Qdrant server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.app.external_backends import build_store_service, probe_qdrant
from penstock.cli.options import Setup, json_option, with_settings
from penstock.cli.terminal import logs_above, print_json, stderr_console, stdout_console, strip_controls
from penstock.kernel.context import MonotonicClock
from penstock.kernel.errors import Invalid
from penstock.kernel.redaction import redact_url
from penstock.stores.lock import DirectoryLock
from penstock.stores.migration import FileMigrationJournal, Migration, MigrationResult, MigrationState
from penstock.stores.store_service import StoreService

#: Where the progress of migrations is kept, in the data directory.
MIGRATIONS: Final = "migrations"

_OTHER: Final = {"edge": "qdrant", "qdrant": "edge"}


@click.command("migrate")
@click.argument("collection")
@click.option("--to", "target", type=click.Choice(list(_OTHER)), required=True, help="Where its points are to be.")
@click.option("--as", "name", metavar="NAME", help="Its name there (default: the same).")
@json_option
@with_settings
def command(setup: Setup, collection: str, target: str, name: str | None, *, as_json: bool) -> int:
    """Move a collection between the data directory and a Qdrant server.

    `--to qdrant` reads the data directory and writes the server at QDRANT_URL; `--to edge` the other way. The source is
    left as it was. An interrupted migration goes on where it was when it is run again. In the end both are compared: by
    count, by samples, and by search results. No server may run on the data directory. Do not write to
    either collection while it runs.
    """
    if not setup.settings.qdrant.url:
        raise Invalid("migrate needs concurrency.qdrant.url (QDRANT_URL)", field="concurrency.qdrant.url")
    order = _order(setup, collection, target, name or collection)
    moved = asyncio.run(_MigrationRun(setup, order, target, stderr_console()).run())
    if as_json:
        print_json(_told(order, moved))
    else:
        _print(order, moved)
    return 0 if moved.comparison.matches else 1


def _order(setup: Setup, collection: str, target: str, name: str) -> MigrationState:
    said = {"edge": str(setup.data_dir), "qdrant": redact_url(setup.settings.qdrant.url)}
    return MigrationState(said[_OTHER[target]], said[target], collection, name)


class _MigrationRun:
    """A migration, from locking the data directory to releasing it."""

    def __init__(self, setup: Setup, order: MigrationState, target: str, console: Console) -> None:
        self._setup = setup
        self._order = order
        self._target = target
        self._console = console

    async def run(self) -> MigrationResult:
        """Move the collection.

        Raises:
            PenstockError: It cannot be moved, or not now.

        Cancellation: The stores are closed; run it again to go on.
        """
        lock = DirectoryLock(self._setup.data_dir)
        lock.acquire()
        try:
            # Before either is opened, so that an unreachable server is reported at once.
            await probe_qdrant(self._setup.settings, MonotonicClock())
            async with self._open(_OTHER[self._target]) as source, self._open(self._target) as target:
                migration = self._migration(source, target)
                with _progress(self._console, migration, self._order.collection):
                    return await migration.run()
        except asyncio.CancelledError:
            self._console.print("Interrupted. Run the same command again to go on where it was.", soft_wrap=True)
            raise
        finally:
            lock.release()

    def _migration(self, source: StoreService, target: StoreService) -> Migration:
        file = f"{self._target}-{self._order.collection}.json"
        if "/" in file or "\0" in file:
            raise Invalid(
                f"there is no collection {self._order.collection!r}", field="collection", code="collection_not_found"
            )
        journal = FileMigrationJournal(self._setup.data_dir / MIGRATIONS / file)
        return Migration(source.store, target.store, self._order, journal, random.random)

    @asynccontextmanager
    async def _open(self, backend: str) -> AsyncIterator[StoreService]:
        """Start a store; close it in the end."""
        service = build_store_service(self._setup.settings, self._setup.data_dir, MonotonicClock(), backend)
        try:
            await service.start()
            yield service
        finally:
            await service.close()


@contextmanager
def _progress(console: Console, migration: Migration, collection: str) -> Iterator[None]:
    """Show how far it is: a bar on a terminal, nothing elsewhere."""
    if not console.is_terminal:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with logs_above(console), Progress(*columns, console=console) as bar:
        task = bar.add_task(f"Moving {strip_controls(collection)}", total=None)

        def show() -> None:
            done = migration.moved_points >= migration.total_points
            what = "Comparing" if done else "Moving"
            bar.update(task, description=f"{what} {strip_controls(collection)}", total=migration.total_points or 1)
            bar.update(task, completed=migration.moved_points)

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
