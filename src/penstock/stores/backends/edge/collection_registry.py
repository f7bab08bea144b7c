"""Registry of a data directory's collections: create, open, describe, drop; crash-safe by renames.

Layout: ``collections/<name>/collection.json`` and beside it the generation that it names. What is half made or half
deleted has a name of :data:`penstock.stores.backends.edge.manifest.DRAFT_PREFIXES` and is removed at the next start.
Anything else that lies there is left alone.

A collection is opened when it is first used and closed once others need its place (:mod:`.collection_lru`): a thousand
of them cost a thousand small records. A collection that cannot be opened is damaged. The others are not affected.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.kernel.errors import Invalid, PenstockError
from penstock.stores.backends.edge import damage, manifest, restore_commit
from penstock.stores.backends.edge.activity import ActivityRecord, create_activity_record
from penstock.stores.backends.edge.collection_entry import CollectionEntry
from penstock.stores.backends.edge.collection_lru import CollectionLru
from penstock.stores.backends.edge.disk import DirectoryCopy, check_write_space, is_disk_full, lock_directory
from penstock.stores.backends.edge.engine import SPACE_CONSUMING, EnginePanicked, Shard, Update
from penstock.stores.backends.edge.generation_builder import GenerationBuilder, OnBuildStep, ignore_build_step
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.open_collection import OpenCollection
from penstock.stores.backends.edge.optimize_policy import OptimizePolicy
from penstock.stores.backends.edge.point_reader import PointReader
from penstock.stores.backends.edge.restore_commit import remove_atomically
from penstock.stores.backends.layout import check_name, check_same_models, collection_conflict
from penstock.stores.backends.point_cache import PointCache
from penstock.stores.commands import CollectionCommand, DescribeCollection, ListSources, StoreCommand
from penstock.stores.contract import CollectionDamaged, DirectoryGone
from penstock.stores.data_model import CollectionInfo, IndexBuildStatus
from penstock.stores.sources import SourceRecord

log = logging.getLogger(__name__)

#: How often it is looked whether a collection is due for a new generation, or the disk gets full.
MAINTENANCE_INTERVAL_S: Final = 1.0

#: Seconds for which collections that are not as the engine left them are opened before anything is served. The others
#: of them are opened one by one afterwards.
STARTUP_CHECK_S: Final = 3.0

#: Seconds for which they are opened each second while no request arrives.
BACKGROUND_CHECK_S: Final = 0.25

#: Collections of one server. Each is a directory that is looked at when the server starts.
COLLECTIONS_MAX: Final = 10_000

#: How long an opening is taken to last before one has been seen, and how much a new one counts.
OPENING_ESTIMATE_S: Final = 0.1
OPENING_SMOOTHING: Final = 0.2


class CollectionRegistry:
    """Every collection of one data directory.

    Args:
        root: The directory ``collections`` in the data directory.
        policy: When a collection gets a new generation.
        on_step: Called at each step of a swap, see :mod:`penstock.stores.backends.edge.generation_builder`.
        cache_bytes: Memory for the cache of points.
        activity: Records the current task.
        quarantined: Collections over which the process has died before, with the reason: they stay closed.

    Attributes:
        cache: The cache of points.
        activity: As given.
        panicked: Whether the engine panicked over one of them: the process must end and start again.
        opening_s: Seconds that opening a collection takes.
        disk_starved: Whether nothing is opened while the disk is full, see :mod:`.crash_attribution`.

    Bounds: ``COLLECTIONS_MAX`` collections, of which those of :class:`.collection_lru.CollectionLru` are open.

    Raises:
        Unavailable: Another process holds the directory (``store_locked``).
        OSError: It cannot be read.
    """

    def __init__(
        self,
        root: Path,
        policy: OptimizePolicy = OptimizePolicy(points=0),  # noqa: B008 - frozen
        on_step: OnBuildStep = ignore_build_step,
        cache_bytes: int = 0,
        activity: ActivityRecord | None = None,
        quarantined: Mapping[str, str] | None = None,
    ) -> None:
        self._root = root
        self._policy = policy
        self._on_step = on_step
        self._maintained_s = self._used_s = 0.0
        self.panicked = False
        self.opening_s = OPENING_ESTIMATE_S
        self.disk_starved = False
        self.cache = PointCache(cache_bytes)
        self.activity = activity or create_activity_record()
        self._entries: dict[str, CollectionEntry] = {}
        self._lru = CollectionLru()
        self._closed_statuses: dict[str, IndexBuildStatus] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._fd = lock_directory(root)
        try:
            restore_commit.finish_committed(root)
            self._discover()
            for name, reason in (quarantined or {}).items():
                if name in self._entries:
                    self._entries[name].mark_damaged(reason, final=True)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def damaged(self) -> dict[str, str]:
        """Reasons why collections cannot be opened, by collection name."""
        return {name: one.damage.reason for name, one in self._entries.items() if one.damage is not None}

    def collection(self, name: str) -> OpenCollection:
        """Return a collection, opening it if it is closed.

        Raises:
            Invalid: There is none of that name.
            CollectionDamaged: It cannot be opened.
        """
        one = self._entry(name)
        self._used_s = time.monotonic()
        if one.collection is None:
            return self._open(one)
        self._lru.touch(name, self._used_s)
        return one.collection

    def needs_opening(self, command: StoreCommand[Any]) -> bool:
        """Return whether a command has to wait until a collection has been opened."""
        if not isinstance(command, CollectionCommand) or isinstance(command, ListSources):
            return False
        one = self._entries.get(command.collection)
        if one is None or one.collection is not None:
            return False
        if isinstance(command, DescribeCollection):
            return not one.has_counts
        return one.damage is None or one.damage.may_retry(time.monotonic())

    def shard(self, name: str) -> Shard:
        """Return the generation of a collection that serves.

        Raises:
            Invalid: There is no such collection.
        """
        return self.collection(name).shard

    def reader(self, name: str) -> PointReader:
        """Return the reader of a collection's points.

        Raises:
            Invalid: There is no such collection.
        """
        return self.collection(name).reader

    def update(self, command: Update) -> Any:
        """Apply an update; when the disk is all but full, refuse updates that take space."""
        self.check_root()
        collection = self.collection(command.collection)
        if isinstance(command, SPACE_CONSUMING):
            check_write_space(self._root)
        return collection.update(command)

    def list_sources(self, name: str) -> list[SourceRecord]:
        """Return the records of a collection's sources, by name; it is not opened for that."""
        one = self._entry(name)
        stated = one.collection.manifest if one.collection is not None else one.manifest
        return [] if stated is None else [stated.sources[source] for source in sorted(stated.sources)]

    def put_source(self, name: str, source: SourceRecord) -> None:
        """Write the record of a source of a collection."""
        self.check_root()
        collection = self.collection(name)
        check_write_space(self._root)
        collection.write_manifest(manifest.with_source(collection.manifest, source))

    def drop_source(self, name: str, source: str) -> None:
        """Delete the record of a source of a collection."""
        self.check_root()
        collection = self.collection(name)
        if source in collection.manifest.sources:
            collection.write_manifest(manifest.without_source(collection.manifest, source))

    def create(self, wanted: CollectionInfo) -> CollectionInfo:
        """Create a collection, or return the one that has the same layout.

        Raises:
            Invalid: The name is not allowed, or taken by another layout, or there are too many collections.
            CollectionDamaged: There is one of that name that cannot be opened.
        """
        name = wanted.name
        check_name(name)
        self.check_root()
        if name in self._entries:
            return self._same_layout(wanted)
        if len(self._entries) >= COLLECTIONS_MAX:
            detail = f"there are {COLLECTIONS_MAX} collections, and no more can be made; delete one first"
            raise Invalid(detail, field="collection", code="too_many_collections")
        check_write_space(self._root)
        fresh = self._root / f".new-{name}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        stated = msgspec.convert({**msgspec.to_builtins(wanted), "created_at": now}, Manifest)
        Shard.create(fresh / stated.generation, stated.dim, learned_sparse=bool(stated.sparse)).close()
        manifest.write_manifest(fresh, stated)
        self._install_new(fresh, stated)
        return self.describe(name)

    def describe(self, name: str) -> CollectionInfo:
        """Return a collection's layout, counts and state."""
        one = self._entry(name)
        if not one.has_counts:
            # That it cannot be opened is part of the description.
            with contextlib.suppress(CollectionDamaged):
                self._open(one)
        return one.describe()

    def describe_all(self) -> list[CollectionInfo]:
        """Return every collection, by name. One that was not counted since a crash has no counts."""
        return [self._entries[name].describe() for name in sorted(self._entries)]

    def drop(self, name: str) -> None:
        """Delete a collection, whatever its state: out of sight by one rename, then file by file."""
        self.check_root()
        one = self._entry(name)
        self._close(one)
        if one.home.exists():
            remove_atomically(one.home)
        del self._entries[name]
        self._closed_statuses.pop(name, None)

    def copy(self, name: str, target: Path) -> DirectoryCopy:
        """Begin to copy a collection; see :meth:`OpenCollection.start_copy`."""
        self.check_root()
        return self.collection(name).start_copy(target)

    def install(self, name: str, source: Path, *, force: bool) -> CollectionInfo:
        """Install a copied collection under its name, replacing an existing one if forced.

        Args:
            name: Its name.
            source: Its directory, on the same file system. If it is gone, a start has installed it.
            force: Whether it may replace an existing one.

        Raises:
            Invalid: One of its name is there (``collection_exists``).
            Unavailable: It cannot be read; nothing has changed.
            OSError: It could not be moved; nothing has changed.
        """
        self.check_root()
        if not source.exists():
            return self.describe(name)
        stated, home = manifest.read_manifest(source, name), self._root / name
        if home.exists() and not force:
            raise Invalid(
                f"there is a collection {name!r} already; delete it first, or restore with --force",
                field="collection",
                code="collection_exists",
            )
        there = self._entries.get(name)
        if there is not None:
            self._close(there)
        gone = self._replace(source, home, stated)
        restore_commit.remove_in_background(gone)
        return self.describe(name)

    def close(self) -> None:
        """Flush and close every collection."""
        for one in self._entries.values():
            self._close(one)
        self._entries.clear()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def check_root(self) -> None:
        """Refuse to change anything where the data directory is another than at the start.

        Raises:
            DirectoryGone: It was deleted or replaced.
        """
        ours = os.fstat(self._fd) if self._fd is not None else None
        try:
            there = self._root.stat()
        except OSError:
            there = None
        if ours is None or there is None or (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise DirectoryGone(
                f"{self._root} was deleted or replaced while the server ran, so nothing is written;"
                " put the data directory back and restart the server",
                dependency="store",
            )

    def note_error(self, name: str | None, error: Exception) -> Exception:
        """Update the registry's state after an error over a collection; return the error for the requester."""
        if isinstance(error, EnginePanicked):
            self.panicked = True
            self.activity.freeze()
        elif isinstance(error, PenstockError) and damage.is_file_error(error) and name in self._entries:
            self._lru.remove(name)
            return self._entries[name].mark_corrupted(error)
        return error

    # --- Index builds

    def holds_writes(self, name: str) -> bool:
        """Return whether a collection's updates have to wait now."""
        one = self._entries.get(name)
        return one is not None and one.collection is not None and one.collection.holds_writes

    def builds(self) -> Iterator[tuple[OpenCollection, GenerationBuilder]]:
        """Yield the generations being built, with their collections."""
        for collection in self._opened():
            if collection.build is not None:
                yield collection, collection.build

    def build_statuses(self) -> list[IndexBuildStatus]:
        """Return the index build status of each collection that has one to report."""
        told = self._closed_statuses | {name: self._entries[name].build_status for name in self._lru}
        return [upkeep for name, upkeep in told.items() if upkeep != IndexBuildStatus(name)]

    def run_maintenance(self, now_s: float) -> None:
        """Start the next index build that is due, check the disk, close an idle collection; once a second at most."""
        if now_s < self._maintained_s + MAINTENANCE_INTERVAL_S:
            return
        self._maintained_s = now_s
        making = list(self.builds())
        for collection, _ in making:
            collection.abort_build_if_disk_full()
        if not making:
            due = next((one for one in self._opened() if one.should_optimize(self._policy)), None) or self._due_closed()
            if due is not None:
                due.start_build()
        if self._unverified():
            # No request waits, or only for one opening.
            quiet = now_s >= self._used_s + MAINTENANCE_INTERVAL_S
            self.check_unverified(BACKGROUND_CHECK_S if quiet else 0.0)
        # On a full disk it could perhaps not be opened again.
        if (
            not is_disk_full(self._root)
            and (idle := self._lru.idle_candidate(self._busy, time.monotonic())) is not None
        ):
            self._close(self._entries[idle])

    # --- Opening and closing

    def _opened(self) -> list[OpenCollection]:
        return [one.collection for name in self._lru if (one := self._entries[name]).collection is not None]

    def _due_closed(self) -> OpenCollection | None:
        for one in self._entries.values():
            if one.should_optimize(self._policy):
                return self._try(one)
        return None

    def _open(self, one: CollectionEntry, *, makes_room: bool = True) -> OpenCollection:
        """Open a collection, closing others for it."""
        if self.disk_starved:
            check_write_space(self._root)
        if makes_room:
            self._make_room()
        began_s = time.monotonic()
        self.activity.record(one.name, opening=True)
        try:
            collection = one.open()
        finally:
            self.activity.record(one.name)
        now_s = time.monotonic()
        self.opening_s += OPENING_SMOOTHING * (now_s - began_s - self.opening_s)
        self._lru.touch(one.name, now_s)
        return collection

    def _make_room(self) -> None:
        """Close what has not been used for longest, if one more would be too many."""
        for name in self._lru.eviction_candidates(self._busy):
            self._close(self._entries[name])

    def _try(self, one: CollectionEntry, *, makes_room: bool = True) -> OpenCollection | None:
        try:
            return self._open(one, makes_room=makes_room)
        except PenstockError as error:
            if not isinstance(error, CollectionDamaged):
                log.warning("collection %s was not opened: %s", one.name, error.detail)
            return None

    def _close(self, one: CollectionEntry) -> None:
        self._lru.remove(one.name)
        self.activity.record(one.name)
        one.close()
        if one.build_status != IndexBuildStatus(one.name):
            self._closed_statuses[one.name] = one.build_status

    def _busy(self, name: str) -> bool:
        collection = self._entries[name].collection
        return collection is not None and collection.busy

    def check_unverified(self, for_s: float = STARTUP_CHECK_S) -> None:
        """Open collections whose files are not as the engine left them: one at least, more while there is time."""
        until_s = time.monotonic() + for_s
        if self.disk_starved and is_disk_full(self._root):
            return
        for one in self._unverified():
            # No request needs it: it takes no place from those that are used.
            if self._try(one, makes_room=False) is not None and self._lru.above_minimum:
                self._close(one)
            if time.monotonic() >= until_s:
                return

    def _unverified(self) -> list[CollectionEntry]:
        return [one for one in self._entries.values() if not one.verified and one.damage is None]

    # --- Directories

    def _discover(self) -> None:
        """Find the collections in the directory and remove unfinished ones."""
        for entry in sorted(self._root.iterdir()):
            if entry.name.startswith(manifest.DRAFT_PREFIXES):
                manifest.remove_path(entry)
                continue
            if _is_collection(entry):
                self.activity.record(entry.name)
                self._entries[entry.name] = one = CollectionEntry(entry, self.cache, self._on_step)
                one.inspect_files()
            else:
                log.info("%s is no collection and is left alone", entry)

    def _entry(self, name: str) -> CollectionEntry:
        try:
            return self._entries[name]
        except KeyError:
            raise Invalid(f"there is no collection {name!r}", field="collection", code="collection_not_found") from None

    def _replace(self, source: Path, home: Path, stated: Manifest) -> Path | None:
        """Install and open a copied collection; return the path of the one that it replaced, if there was one."""
        gone = restore_commit.swap_in(source, home)
        try:
            self._register(home, stated)
        except BaseException:
            home.replace(source)
            if gone is not None:
                gone.replace(home)
            raise
        return gone

    def _install_new(self, fresh: Path, stated: Manifest) -> None:
        """Move a new collection to its place and open it."""
        home = self._root / stated.name
        try:
            fresh.replace(home)
        except OSError as error:
            if not os.path.lexists(home):
                raise
            raise collection_conflict(f"{home} is no collection: move it away") from error
        self._register(home, stated)

    def _register(self, home: Path, stated: Manifest) -> None:
        """Open a collection that has just been put in its place."""
        self._make_room()
        one = CollectionEntry(home, self.cache, self._on_step)
        self.activity.record(one.name, opening=True)
        one.set_open(OpenCollection(home, stated, self.cache, self._on_step))
        self._entries[one.name] = one
        self._closed_statuses.pop(one.name, None)
        self._lru.touch(one.name, time.monotonic())

    def _same_layout(self, wanted: CollectionInfo) -> CollectionInfo:
        one = self._entries[wanted.name]
        if one.manifest is None or one.damage is not None:
            self._open(one)
        if one.manifest is not None:
            check_same_models(one.manifest, wanted)
        return self.describe(wanted.name)


def _is_collection(entry: Path) -> bool:
    try:
        check_name(entry.name)
        return manifest.is_collection_directory(entry)
    except Invalid:
        return False
    except PermissionError:
        return True
