"""Moving a collection from one store to another: a page after the other, resumable, then compared.

What has been moved is noted after each page that the target has acknowledged, so that an interrupted migration goes on
where it was; a page that was written and not noted is written again, which does no harm. The source is only read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from penstock.kernel.context import Context
from penstock.kernel.errors import UNREADABLE, Invalid, Unavailable
from penstock.policies.jitter import Random
from penstock.policies.retry import RetrySettings, backoff_s
from penstock.stores.comparison import Comparison, compare
from penstock.stores.contract import MovableStore
from penstock.stores.records import CollectionInfo, PointPage

T = TypeVar("T")

#: Points read and written at once; one page more is being read meanwhile. With token vectors some 3 MB as JSON.
PAGE_POINTS: Final = 128

#: How often a page is tried before the migration ends, to be run again.
TRIES: Final = 6

#: Pauses between the tries, in seconds: with jitter, doubled each time.
_PAUSES: Final = RetrySettings(backoff_s=0.5, backoff_s_max=8.0)


class State(msgspec.Struct, frozen=True):
    """How far a migration is.

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

    def same(self, other: State) -> bool:
        """Whether both are of the same migration."""
        ours, theirs = (
            (one.source, one.target, one.collection, one.target_collection, one.created_at) for one in (self, other)
        )
        return ours == theirs


class Journal(Protocol):
    """Where the progress of one migration is noted. Small, and quick enough for the loop of a command."""

    def read(self) -> State | None:
        """Return the state that is there; ``None`` for none."""
        ...

    def write(self, state: State) -> None:
        """Put a state in the place of the one that is there; it survives a crash on return."""
        ...

    def remove(self) -> None:
        """Forget it."""
        ...


class FileJournal:
    """A ``Journal`` in a file, replaced as a whole by one rename.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> State | None:
        """Return the state that is there; ``None`` for none.

        Raises:
            Invalid: It cannot be understood (``migration_damaged``).
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=State)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            detail = f"{self._path} cannot be read: {error}; remove it to begin anew"
            raise Invalid(detail, field="collection", code="migration_damaged") from error

    def write(self, state: State) -> None:
        """Put a state in the place of the one that is there."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)

    def remove(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Moved:
    """A migration that has ended.

    Attributes:
        info: The collection in the target, with its counts.
        resumed: Points that an earlier run had moved.
        comparison: What comparing both has shown.
    """

    info: CollectionInfo
    resumed: int
    comparison: Comparison


class Migration:
    """One migration.

    Args:
        source: Where the points are.
        target: Where they are to be.
        order: What is moved where; its progress is left aside.
        journal: Where the progress is noted.
        luck: Draws for jitter and samples.

    Attributes:
        total: Points of the source, once it has been asked.
        moved: Points moved so far, earlier runs' included.
        on_progress: Called whenever a page has been moved.

    Bounds: two pages in memory; ``TRIES`` of each.
    """

    def __init__(
        self, source: MovableStore, target: MovableStore, order: State, journal: Journal, luck: Random
    ) -> None:
        self.total = 0
        self.moved = 0
        self.on_progress: Callable[[], None] = lambda: None
        self._source = source
        self._target = target
        self._order = order
        self._journal = journal
        self._luck = luck
        self._ctx = Context.background("migrate")

    async def run(self) -> Moved:
        """Move what is left to be moved, then compare.

        Raises:
            Invalid: There is no such collection; the target has another of the name (``collection_conflict``), or one
                that has points of its own (``collection_exists``).
            PenstockError: A store does not answer, again and again; run it again to go on.

        Cancellation: What has been noted is moved; run it again to go on.
        """
        there = await self._source.collection(self._order.collection, self._ctx)
        self.total = there.chunks
        state = await self._begin(there)
        self.moved = resumed = state.moved
        self.on_progress()
        if not state.copied:
            await self._copy(state)
        comparison = await compare(self._source, self._target, self._order.collection, self._name, self._luck)
        info = await self._target.collection(self._name, self._ctx)
        if comparison.same:
            self._journal.remove()
        return Moved(info, resumed, comparison)

    @property
    def _name(self) -> str:
        return self._order.target_collection

    async def _begin(self, there: CollectionInfo) -> State:
        """Return where to begin, the target's collection being there."""
        fresh = msgspec.structs.replace(self._order, created_at=there.created_at, after=None, moved=0, copied=False)
        noted = self._journal.read()
        going_on = noted is not None and noted.same(fresh)
        wanted = CollectionInfo(self._name, there.dim, there.model, late=there.late, sparse=there.sparse)
        if not going_on:
            await self._check_free()
        made = await self._target.create(wanted, self._ctx)
        # Points that are noted and not there: it has been deleted meanwhile.
        state = noted if going_on and noted is not None and made.chunks >= noted.moved else fresh
        self._journal.write(state)
        return state

    async def _check_free(self) -> None:
        """Refuse to write into a collection that has points of its own."""
        taken = {one.name: one for one in await self._target.collections(self._ctx)}.get(self._name)
        if taken is not None and taken.chunks:
            raise Invalid(
                f"{self._order.target} has a collection {self._name!r} with {taken.chunks:,} chunks; delete it first,"
                " or move to another name with --as",
                field="collection",
                code="collection_exists",
            )

    async def _copy(self, state: State) -> None:
        """Move page after page; the next one is read while one is written."""
        reading = asyncio.create_task(self._read(state.after))
        try:
            while True:
                page = await reading
                if page.next is not None:
                    reading = asyncio.create_task(self._read(page.next))
                await self._write(page)
                self.moved += len(page.points)
                state = msgspec.structs.replace(state, after=page.next, moved=self.moved, copied=page.next is None)
                self._journal.write(state)
                self.on_progress()
                if page.next is None:
                    return
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, after: str | None) -> PointPage:
        collection = self._order.collection
        return await self._patiently(lambda: self._source.points(collection, after, PAGE_POINTS, self._ctx))

    async def _write(self, page: PointPage) -> None:
        await self._patiently(lambda: self._target.upsert(self._name, page.points, self._ctx))

    async def _patiently(self, make: Callable[[], Awaitable[T]]) -> T:
        """Make a call, and again after a pause where the store could not serve."""
        for attempt in range(TRIES - 1):
            try:
                return await make()
            except Unavailable as error:
                if error.code == "disk_full":
                    raise
            await asyncio.sleep(backoff_s(attempt, self._luck(), _PAUSES))
        return await make()
