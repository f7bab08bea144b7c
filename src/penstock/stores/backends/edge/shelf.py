"""The collections of a data directory: create, open, describe, drop; crash-safe by renames.

Layout: ``collections/<name>/collection.json`` and beside it the generation that it names. A directory whose
name begins with a dot is half made or half deleted, and is removed at the next start.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.kernel.errors import Invalid, PenstockError, Unavailable
from penstock.stores.backends.edge import adoption, manifest
from penstock.stores.backends.edge.adoption import dismiss
from penstock.stores.backends.edge.collection import Collection
from penstock.stores.backends.edge.copying import Copying
from penstock.stores.backends.edge.engine import Shard
from penstock.stores.backends.edge.manifest import MANIFEST, Manifest
from penstock.stores.backends.edge.point_cache import PointCache
from penstock.stores.backends.edge.reader import PointReader
from penstock.stores.backends.edge.renewal import Renewal, Step, unwatched
from penstock.stores.backends.edge.space import check_space
from penstock.stores.backends.edge.updates import GROWING, Update
from penstock.stores.backends.edge.upkeep import Rule
from penstock.stores.backends.layout import check_name, check_same
from penstock.stores.records import CollectionInfo, Upkeep

#: How often it is looked whether a collection is due for a new generation, or the disk gets full.
LOOK_S: Final = 1.0


class Shelf:
    """Every collection of one data directory, open.

    Args:
        root: The directory ``collections`` in the data directory.
        rule: When a collection gets a new generation.
        step: Called at each step of a swap, see :mod:`penstock.stores.backends.edge.renewal`.
        cache_bytes: Memory in which it is remembered what was read of points.

    Attributes:
        cache: What is remembered.
        panicked: The engine panicked over one of them: the process must end and start anew.

    Raises:
        Unavailable: Another process holds a collection (``store_locked``), or one cannot be read
            (``store_damaged``).
    """

    def __init__(
        self,
        root: Path,
        rule: Rule = Rule(points=0),  # noqa: B008 - frozen
        step: Step = unwatched,
        cache_bytes: int = 0,
    ) -> None:
        self._root = root
        self._rule = rule
        self._step = step
        self._looked_s = 0.0
        self.panicked = False
        self.cache = PointCache(cache_bytes)
        self._collections: dict[str, Collection] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._held: int | None = _hold(root)
        try:
            adoption.finish(root)
            self._open_all()
        except BaseException:
            self.close()
            raise

    def _open_all(self) -> None:
        """Open every collection, and remove what is half made or half deleted."""
        for entry in sorted(self._root.iterdir()):
            if entry.name.startswith("."):
                manifest.remove(entry)
            elif (entry / MANIFEST).is_file():
                self._collections[entry.name] = Collection(entry, manifest.read(entry), self.cache, self._step)

    def __len__(self) -> int:
        return len(self._collections)

    def collection(self, name: str) -> Collection:
        """Return an open collection.

        Raises:
            Invalid: There is none of that name.
        """
        try:
            return self._collections[name]
        except KeyError:
            raise Invalid(f"there is no collection {name!r}", field="collection", code="collection_not_found") from None

    def shard(self, name: str) -> Shard:
        """Return the generation of a collection that serves.

        Raises:
            Invalid: There is no such collection.
        """
        return self.collection(name).shard

    def reader(self, name: str) -> PointReader:
        """Return what reads a collection's points.

        Raises:
            Invalid: There is no such collection.
        """
        return self.collection(name).reader

    def update(self, command: Update) -> Any:
        """Do what an update says, refusing what takes room when the disk is all but full."""
        collection = self.collection(command.collection)
        if isinstance(command, GROWING):
            check_space(self._root)
        return collection.update(command)

    def create(self, wanted: CollectionInfo) -> CollectionInfo:
        """Create a collection, or return the one that has the same layout.

        Raises:
            Invalid: The name is not allowed, or taken by another layout.
        """
        name = wanted.name
        check_name(name)
        if name in self._collections:
            return self._same_layout(wanted)
        check_space(self._root)
        fresh = self._root / f".new-{name}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        stated = msgspec.convert({**msgspec.to_builtins(wanted), "created_at": now}, Manifest)
        Shard.create(fresh / stated.generation, stated.dim, learned=bool(stated.sparse)).close()
        manifest.write(fresh, stated)
        self._place(fresh, stated)
        return self.describe(name)

    def describe(self, name: str) -> CollectionInfo:
        """Return a collection's layout and counts."""
        return self.collection(name).describe()

    def describe_all(self) -> list[CollectionInfo]:
        """Return every collection, by name."""
        return [self.describe(name) for name in sorted(self._collections)]

    def drop(self, name: str) -> None:
        """Delete a collection: out of sight by one rename, then file by file."""
        self.collection(name).close()
        del self._collections[name]
        dismiss(self._root / name)

    def copy(self, name: str, target: Path) -> Copying:
        """Begin to copy a collection; see :meth:`Collection.copy_to`."""
        return self.collection(name).copy_to(target)

    def adopt(self, name: str, source: Path, *, force: bool) -> CollectionInfo:
        """Let a copied collection take its place, at once.

        Args:
            name: Its name.
            source: Its directory, on the same file system. If it is gone, a start has let it take its place.
            force: Whether it may take the place of one that is there.

        Raises:
            Invalid: One of its name is there (``collection_exists``).
            Unavailable: It cannot be read; nothing has changed.
            OSError: It could not be moved; nothing has changed.
        """
        if not source.exists():
            return self.describe(name)
        stated, home = manifest.read(source, name), self._root / name
        if home.exists() and not force:
            raise Invalid(
                f"there is a collection {name!r} already; delete it first, or restore with --force",
                field="collection",
                code="collection_exists",
            )
        there = self._collections.pop(name, None)
        if there is not None:
            there.close()
        try:
            gone = self._take_in(source, home, stated)
        except (PenstockError, OSError):
            if there is not None and not self.panicked:
                self._collections[name] = Collection(home, there.manifest, self.cache, self._step)
            raise
        adoption.remove_later(gone)
        return self.describe(name)

    def close(self) -> None:
        """Flush and close every collection."""
        for collection in self._collections.values():
            collection.close()
        self._collections.clear()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    # --- Upkeep

    def holds_writes(self, name: str) -> bool:
        """Whether a collection's updates have to wait now."""
        return name in self._collections and self._collections[name].holds_writes

    def renewals(self) -> Iterator[tuple[Collection, Renewal]]:
        """Yield what is being made."""
        for collection in self._collections.values():
            if collection.renewal is not None:
                yield collection, collection.renewal

    def upkeep(self) -> list[Upkeep]:
        """Return how the upkeep of each collection stands."""
        return [collection.upkeep for collection in self._collections.values()]

    def look(self, now_s: float) -> None:
        """Begin what is due, one generation at a time, and watch the disk; once a second at most."""
        if now_s < self._looked_s + LOOK_S:
            return
        self._looked_s = now_s
        making = list(self.renewals())
        for collection, _ in making:
            collection.guard_space()
        if not making:
            due = next((one for one in self._collections.values() if one.due(self._rule)), None)
            if due is not None:
                due.begin()

    def _take_in(self, source: Path, home: Path, stated: Manifest) -> Path | None:
        """Put a copied collection in its place and open it; return where the one before is, if there was one."""
        gone = adoption.place(source, home)
        try:
            self._collections[stated.name] = Collection(home, stated, self.cache, self._step)
        except BaseException:
            home.replace(source)
            if gone is not None:
                gone.replace(home)
            raise
        return gone

    def _place(self, fresh: Path, stated: Manifest) -> None:
        """Put a whole collection in its place and open it."""
        home = self._root / stated.name
        fresh.replace(home)
        self._collections[stated.name] = Collection(home, stated, self.cache, self._step)

    def _same_layout(self, wanted: CollectionInfo) -> CollectionInfo:
        check_same(self._collections[wanted.name].manifest, wanted)
        return self.describe(wanted.name)


def _hold(root: Path) -> int:
    """Hold a directory against other processes until the descriptor that is returned is closed.

    Raises:
        Unavailable: Another process holds it (``store_locked``).
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if not isinstance(error, BlockingIOError):
            raise
        detail = "another process holds this data directory's store"
        raise Unavailable(detail, dependency="store", code="store_locked") from error
    return fd
