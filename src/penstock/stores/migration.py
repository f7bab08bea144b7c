"""Migration of a collection from one store to another: page by page, resumable, compared at the end.

Progress is recorded after each page that the target has acknowledged, so that an interrupted migration resumes where it
stopped. A page that was written but not recorded is written again, which does no harm. The source is only read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from penstock.kernel.context import Context
from penstock.kernel.errors import DECODE_ERRORS, Invalid, Unavailable
from penstock.policies.jitter import Rng
from penstock.policies.retry import RetrySettings, backoff_s
from penstock.stores.commands import (
    CreateCollection,
    DescribeCollection,
    ListCollections,
    ListSources,
    PutSource,
    ScrollPoints,
    StoreCommand,
    UpsertPoints,
)
from penstock.stores.comparison import CollectionComparison, compare_collections
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import CollectionInfo, PointPage

R = TypeVar("R")

#: Points read and written at once; one further page is read at the same time. With token vectors some 3 MB as JSON.
PAGE_POINTS: Final = 128

#: How often a page is tried before the migration ends, to be run again.
PAGE_ATTEMPTS_MAX: Final = 6

#: Pauses between the tries, in seconds: with jitter, doubled each time.
_PAUSES: Final = RetrySettings(backoff_s=0.5, backoff_s_max=8.0)


class MigrationState(msgspec.Struct, frozen=True):
    """Progress of a migration.

    Attributes:
        source: Which store it reads, in words.
        target: Which store it writes, in words.
        collection: The collection's name there.
        target_collection: Its name in the target.
        created_at: When the source's collection was made: another one of its name is another migration.
        after: The first point that has not been moved yet; ``None`` at the beginning.
        moved: Points moved so far.
        copied: Whether all have been moved, so that comparing is what is left.
    """

    source: str
    target: str
    collection: str
    target_collection: str
    created_at: str = ""
    after: str | None = None
    moved: int = 0
    copied: bool = False

    def same_migration(self, other: MigrationState) -> bool:
        """Return whether both states belong to the same migration."""
        ours, theirs = (
            (one.source, one.target, one.collection, one.target_collection, one.created_at) for one in (self, other)
        )
        return ours == theirs


class MigrationJournal:
    """Store of one migration's progress, small enough to be written on a command's event loop.

    It is a file, replaced as a whole by one rename.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> MigrationState | None:
        """Return the state that is there; ``None`` for none.

        Raises:
            Invalid: It cannot be understood (``migration_damaged``).
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=MigrationState)
        except FileNotFoundError:
            return None
        except DECODE_ERRORS as error:
            detail = f"{self._path} cannot be read: {error}; remove it to start over"
            raise Invalid(detail, field="collection", code="migration_damaged") from error

    def write(self, state: MigrationState) -> None:
        """Replace the recorded state; it survives a crash on return."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)

    def remove(self) -> None:
        """Remove the recorded progress."""
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class MigrationResult:
    """A migration that has ended."""

    info: CollectionInfo
    resumed_points: int
    comparison: CollectionComparison


class Migration:
    """Migration of one collection: moves its points, then compares both stores.

    Bounds: two pages in memory; ``PAGE_ATTEMPTS_MAX`` tries of each.
    """

    def __init__(
        self, source: VectorStore, target: VectorStore, request: MigrationState, journal: MigrationJournal, rng: Rng
    ) -> None:
        self.total_points = 0
        self.moved_points = 0
        self.on_progress: Callable[[], None] = lambda: None
        self._source = source
        self._target = target
        self._request = request
        self._journal = journal
        self._rng = rng
        self._ctx = Context.background("migrate")

    async def run(self) -> MigrationResult:
        """Move what is left to be moved, then compare.

        Raises:
            Invalid: There is no such collection; the target has another of the name (``collection_conflict``), or one
                that has points of its own (``collection_exists``).
            PenstockError: A store does not answer, again and again; run it again to go on.

        Cancellation: Recorded progress is kept; run it again to go on.
        """
        there = await self._source.run(DescribeCollection(self._request.collection), self._ctx)
        self.total_points = there.chunks
        state = await self._begin(there)
        self.moved_points = resumed = state.moved
        self.on_progress()
        if not state.copied:
            await self._copy(state)
        for source in await self._with_retries(self._source, ListSources(self._request.collection)):
            await self._with_retries(self._target, PutSource(self._name, source))
        comparison = await compare_collections(
            self._source, self._target, self._request.collection, self._name, self._rng
        )
        info = await self._target.run(DescribeCollection(self._name), self._ctx)
        if comparison.matches:
            self._journal.remove()
        return MigrationResult(info, resumed, comparison)

    @property
    def _name(self) -> str:
        return self._request.target_collection

    async def _begin(self, there: CollectionInfo) -> MigrationState:
        """Create the target's collection if needed, and return the state to begin from."""
        fresh = msgspec.structs.replace(self._request, created_at=there.created_at, after=None, moved=0, copied=False)
        noted = self._journal.read()
        going_on = noted is not None and noted.same_migration(fresh)
        wanted = CollectionInfo(
            self._name,
            there.dim,
            there.model,
            token_dim=there.token_dim,
            sparse=there.sparse,
            text=there.text,
            renewing=there.renewing,
        )
        if not going_on:
            await self._check_free()
        made = await self._target.run(CreateCollection(wanted), self._ctx)
        # Fewer points than recorded: the collection has been deleted since.
        state = noted if going_on and noted is not None and made.chunks >= noted.moved else fresh
        self._journal.write(state)
        return state

    async def _check_free(self) -> None:
        """Refuse to write into a collection that has points of its own."""
        taken = {one.name: one for one in await self._target.run(ListCollections(), self._ctx)}.get(self._name)
        if taken is not None and taken.chunks:
            raise Invalid(
                f"{self._request.target} has a collection {self._name!r} with {taken.chunks:,} chunks; delete it first,"
                " or move to another name with --as",
                field="collection",
                code="collection_exists",
            )

    async def _copy(self, state: MigrationState) -> None:
        """Move page after page; the next one is read while one is written."""
        reading = asyncio.create_task(self._read(state.after))
        try:
            while True:
                page = await reading
                if page.next is not None:
                    reading = asyncio.create_task(self._read(page.next))
                await self._with_retries(self._target, UpsertPoints(self._name, page.points))
                self.moved_points += len(page.points)
                state = msgspec.structs.replace(
                    state, after=page.next, moved=self.moved_points, copied=page.next is None
                )
                self._journal.write(state)
                self.on_progress()
                if page.next is None:
                    return
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, after: str | None) -> PointPage:
        command = ScrollPoints(self._request.collection, after, PAGE_POINTS)
        return await self._with_retries(self._source, command)

    async def _with_retries(self, store: VectorStore, command: StoreCommand[R]) -> R:
        """Execute a command; repeat it after a pause if the store is unavailable."""
        for attempt in range(PAGE_ATTEMPTS_MAX - 1):
            try:
                return await store.run(command, self._ctx)
            except Unavailable as error:
                if error.code == "disk_full":
                    raise
            await asyncio.sleep(backoff_s(attempt, self._rng(), _PAUSES))
        return await store.run(command, self._ctx)
