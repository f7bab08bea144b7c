"""The collections of a data directory: create, open, describe, drop; crash-safe by renames.

Layout: ``collections/<name>/collection.json`` and beside it the generation that it names. What is half made or half
deleted has a name of :data:`penstock.stores.backends.edge.manifest.DRAFTS` and is removed at the next start. Anything
else that lies there is left alone.

A collection is opened when it is first used and closed once others need its place (:mod:`.residency`): a thousand of
them cost a thousand small records. One that cannot be opened is damaged, and no concern of the others.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.kernel.errors import Invalid, PenstockError, Unavailable
from penstock.stores.backends.edge import adoption, damage, manifest, wire
from penstock.stores.backends.edge.activity import Activity, make
from penstock.stores.backends.edge.adoption import dismiss
from penstock.stores.backends.edge.collection import Collection
from penstock.stores.backends.edge.copying import Copying
from penstock.stores.backends.edge.engine import Panicked, Shard
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.point_cache import PointCache
from penstock.stores.backends.edge.reader import PointReader
from penstock.stores.backends.edge.renewal import Renewal, Step, unwatched
from penstock.stores.backends.edge.residency import Residency
from penstock.stores.backends.edge.shelved import Shelved
from penstock.stores.backends.edge.space import check_space, is_full
from penstock.stores.backends.edge.updates import GROWING, Update
from penstock.stores.backends.edge.upkeep import Rule
from penstock.stores.backends.layout import check_name, check_same, conflict
from penstock.stores.errors import CollectionDamaged, DirectoryGone
from penstock.stores.records import CollectionInfo, Upkeep

log = logging.getLogger(__name__)

#: How often it is looked whether a collection is due for a new generation, or the disk gets full.
LOOK_S: Final = 1.0

#: Seconds for which collections that are not as the engine left them are opened before anything is served. The others
#: of them are opened one by one afterwards.
PROVE_S: Final = 3.0

#: Seconds for which they are opened each second while nobody asks anything.
PROVE_SLICE_S: Final = 0.25

#: Collections of one server. Each is a directory that is looked at when the server starts.
COLLECTIONS_MAX: Final = 10_000

#: How long an opening is taken to last before one has been seen, and how much a new one counts.
OPENING_S: Final = 0.1
OPENING_SHARE: Final = 0.2


class Shelf:
    """Every collection of one data directory.

    Args:
        root: The directory ``collections`` in the data directory.
        rule: When a collection gets a new generation.
        step: Called at each step of a swap, see :mod:`penstock.stores.backends.edge.renewal`.
        cache_bytes: Memory in which it is remembered what was read of points.
        activity: Where it is written down what is done.
        condemned: Collections over which the process has died before, with the reason: they stay closed.

    Attributes:
        cache: What is remembered.
        activity: As given.
        panicked: The engine panicked over one of them: the process must end and start anew.
        opening_s: Seconds that opening a collection takes.
        starved: Whether nothing is opened while the disk is full, see :class:`.blame.Blame`.

    Bounds: ``COLLECTIONS_MAX`` collections, of which those of :class:`.residency.Residency` are open.

    Raises:
        Unavailable: Another process holds the directory (``store_locked``).
        OSError: It cannot be read.
    """

    def __init__(
        self,
        root: Path,
        rule: Rule = Rule(points=0),  # noqa: B008 - frozen
        step: Step = unwatched,
        cache_bytes: int = 0,
        activity: Activity | None = None,
        condemned: Mapping[str, str] | None = None,
    ) -> None:
        self._root = root
        self._rule = rule
        self._step = step
        self._looked_s = self._used_s = 0.0
        self.panicked = False
        self.opening_s = OPENING_S
        self.starved = False
        self.cache = PointCache(cache_bytes)
        self.activity = activity or make()
        self._all: dict[str, Shelved] = {}
        self._residency = Residency()
        self._past: dict[str, Upkeep] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._fd = _locked(root)
        try:
            adoption.finish(root)
            self._find()
            for name, reason in (condemned or {}).items():
                if name in self._all:
                    self._all[name].condemn(reason, final=True)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._all)

    @property
    def damaged(self) -> dict[str, str]:
        """Why collections cannot be opened, by their names."""
        return {name: one.damage.reason for name, one in self._all.items() if one.damage is not None}

    def collection(self, name: str) -> Collection:
        """Return a collection, opening it if it is closed.

        Raises:
            Invalid: There is none of that name.
            CollectionDamaged: It cannot be opened.
        """
        one = self._find_one(name)
        self._used_s = time.monotonic()
        if one.collection is None:
            return self._open(one)
        self._residency.use(name, self._used_s)
        return one.collection

    def needs_opening(self, command: wire.Command) -> bool:
        """Return whether a command has to wait until a collection has been opened."""
        one = self._all.get(getattr(command, "collection", ""))
        if one is None or one.collection is not None:
            return False
        if isinstance(command, wire.Describe):
            return not one.counted
        return one.damage is None or one.damage.may_retry(time.monotonic())

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
        self.check_root()
        collection = self.collection(command.collection)
        if isinstance(command, GROWING):
            check_space(self._root)
        return collection.update(command)

    def create(self, wanted: CollectionInfo) -> CollectionInfo:
        """Create a collection, or return the one that has the same layout.

        Raises:
            Invalid: The name is not allowed, or taken by another layout, or there are too many collections.
            CollectionDamaged: There is one of that name that cannot be opened.
        """
        name = wanted.name
        check_name(name)
        self.check_root()
        if name in self._all:
            return self._same_layout(wanted)
        if len(self._all) >= COLLECTIONS_MAX:
            detail = f"there are {COLLECTIONS_MAX} collections, and no more can be made; delete one first"
            raise Invalid(detail, field="collection", code="too_many_collections")
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
        """Return a collection's layout, counts and state."""
        one = self._find_one(name)
        if not one.counted:
            # That it cannot be opened is part of the description.
            with contextlib.suppress(CollectionDamaged):
                self._open(one)
        return one.describe()

    def describe_all(self) -> list[CollectionInfo]:
        """Return every collection, by name. One that has not been counted since a crash is told without counts."""
        return [self._all[name].describe() for name in sorted(self._all)]

    def drop(self, name: str) -> None:
        """Delete a collection, whatever its state: out of sight by one rename, then file by file."""
        self.check_root()
        one = self._find_one(name)
        self._close(one)
        if one.home.exists():
            dismiss(one.home)
        del self._all[name]
        self._past.pop(name, None)

    def copy(self, name: str, target: Path) -> Copying:
        """Begin to copy a collection; see :meth:`Collection.copy_to`."""
        self.check_root()
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
        self.check_root()
        if not source.exists():
            return self.describe(name)
        stated, home = manifest.read(source, name), self._root / name
        if home.exists() and not force:
            raise Invalid(
                f"there is a collection {name!r} already; delete it first, or restore with --force",
                field="collection",
                code="collection_exists",
            )
        there = self._all.get(name)
        if there is not None:
            self._close(there)
        gone = self._take_in(source, home, stated)
        adoption.remove_later(gone)
        return self.describe(name)

    def close(self) -> None:
        """Flush and close every collection."""
        for one in self._all.values():
            self._close(one)
        self._all.clear()
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
        """Draw conclusions from an error over a collection; return what its requester is told."""
        if isinstance(error, Panicked):
            self.panicked = True
            self.activity.freeze()
        elif isinstance(error, PenstockError) and damage.spoils(error) and name in self._all:
            self._residency.forget(name)
            return self._all[name].spoil(error)
        return error

    # --- Upkeep

    def holds_writes(self, name: str) -> bool:
        """Whether a collection's updates have to wait now."""
        one = self._all.get(name)
        return one is not None and one.collection is not None and one.collection.holds_writes

    def renewals(self) -> Iterator[tuple[Collection, Renewal]]:
        """Yield what is being made."""
        for collection in self._opened():
            if collection.renewal is not None:
                yield collection, collection.renewal

    def upkeep(self) -> list[Upkeep]:
        """Return how the upkeep of each collection stands of which there is something to tell."""
        told = self._past | {name: self._all[name].upkeep for name in self._residency}
        return [upkeep for name, upkeep in told.items() if upkeep != Upkeep(name)]

    def look(self, now_s: float) -> None:
        """Begin what is due, one generation at a time, and watch the disk; once a second at most."""
        if now_s < self._looked_s + LOOK_S:
            return
        self._looked_s = now_s
        making = list(self.renewals())
        for collection, _ in making:
            collection.guard_space()
        if not making:
            due = next((one for one in self._opened() if one.due(self._rule)), None) or self._due_closed()
            if due is not None:
                due.begin()
        if self._unproven():
            # Nobody waits meanwhile, or only for one opening.
            quiet = now_s >= self._used_s + LOOK_S
            self.prove(PROVE_SLICE_S if quiet else 0.0)
        # On a full disk it could perhaps not be opened again.
        if not is_full(self._root) and (idle := self._residency.idle(self._busy, time.monotonic())) is not None:
            self._close(self._all[idle])

    # --- Opening and closing

    def _opened(self) -> list[Collection]:
        return [one.collection for name in self._residency if (one := self._all[name]).collection is not None]

    def _due_closed(self) -> Collection | None:
        for one in self._all.values():
            if one.due(self._rule):
                return self._try(one)
        return None

    def _open(self, one: Shelved, *, makes_room: bool = True) -> Collection:
        """Open a collection, closing others for it."""
        if self.starved:
            check_space(self._root)
        if makes_room:
            self._make_room()
        began_s = time.monotonic()
        self.activity.note(one.name, opening=True)
        try:
            collection = one.open()
        finally:
            self.activity.note(one.name)
        now_s = time.monotonic()
        self.opening_s += OPENING_SHARE * (now_s - began_s - self.opening_s)
        self._residency.use(one.name, now_s)
        return collection

    def _make_room(self) -> None:
        """Close what has not been used for longest, if one more would be too many."""
        for name in self._residency.surplus(self._busy):
            self._close(self._all[name])

    def _try(self, one: Shelved, *, makes_room: bool = True) -> Collection | None:
        """Open a collection if that is possible."""
        try:
            return self._open(one, makes_room=makes_room)
        except PenstockError as error:
            if not isinstance(error, CollectionDamaged):
                log.warning("collection %s was not opened: %s", one.name, error.detail)
            return None

    def _close(self, one: Shelved) -> None:
        self._residency.forget(one.name)
        self.activity.note(one.name)
        one.close()
        if one.upkeep != Upkeep(one.name):
            self._past[one.name] = one.upkeep

    def _busy(self, name: str) -> bool:
        collection = self._all[name].collection
        return collection is not None and collection.busy

    def prove(self, for_s: float = PROVE_S) -> None:
        """Open what is not as the engine left it: one at least, more as long as there is time."""
        until_s = time.monotonic() + for_s
        if self.starved and is_full(self._root):
            return
        for one in self._unproven():
            # Nobody has asked for it: it takes no place from those that are used.
            if self._try(one, makes_room=False) is not None and self._residency.crowded:
                self._close(one)
            if time.monotonic() >= until_s:
                return

    def _unproven(self) -> list[Shelved]:
        return [one for one in self._all.values() if not one.proven and one.damage is None]

    # --- Directories

    def _find(self) -> None:
        """Examine what lies in the directory, and remove what was half made."""
        for entry in sorted(self._root.iterdir()):
            if entry.name.startswith(manifest.DRAFTS):
                manifest.remove(entry)
                continue
            if _is_collection(entry):
                self.activity.note(entry.name)
                self._all[entry.name] = one = Shelved(entry, self.cache, self._step)
                one.examine()
            else:
                log.info("%s is no collection and is left alone", entry)

    def _find_one(self, name: str) -> Shelved:
        try:
            return self._all[name]
        except KeyError:
            raise Invalid(f"there is no collection {name!r}", field="collection", code="collection_not_found") from None

    def _take_in(self, source: Path, home: Path, stated: Manifest) -> Path | None:
        """Put a copied collection in its place and open it; return where the one before is, if there was one."""
        gone = adoption.place(source, home)
        try:
            self._take(home, stated)
        except BaseException:
            home.replace(source)
            if gone is not None:
                gone.replace(home)
            raise
        return gone

    def _place(self, fresh: Path, stated: Manifest) -> None:
        """Put a whole collection in its place and open it."""
        home = self._root / stated.name
        try:
            fresh.replace(home)
        except OSError as error:
            if not os.path.lexists(home):
                raise
            raise conflict(f"{home} is no collection: move it away") from error
        self._take(home, stated)

    def _take(self, home: Path, stated: Manifest) -> None:
        """Open a collection that has just been put in its place."""
        self._make_room()
        one = Shelved(home, self.cache, self._step)
        self.activity.note(one.name, opening=True)
        one.take(Collection(home, stated, self.cache, self._step))
        self._all[one.name] = one
        self._past.pop(one.name, None)
        self._residency.use(one.name, time.monotonic())

    def _same_layout(self, wanted: CollectionInfo) -> CollectionInfo:
        one = self._all[wanted.name]
        if one.manifest is None or one.damage is not None:
            self._open(one)
        if one.manifest is not None:
            check_same(one.manifest, wanted)
        return self.describe(wanted.name)


def _is_collection(entry: Path) -> bool:
    try:
        check_name(entry.name)
        return manifest.is_collection(entry)
    except Invalid:
        return False
    except PermissionError:
        return True


def _locked(root: Path) -> int | None:
    """Hold a directory against other store processes; the descriptor also tells it from one in its place.

    Raises:
        Unavailable: Another one holds it (``store_locked``).
    """
    fd = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Unavailable(
            "another process holds this data directory's store", dependency="store", code="store_locked"
        ) from None
    except OSError as error:
        # Some network file systems lock files only; the engine's own lock has to do.
        log.debug("%s cannot be locked: %s", root, error)
    return fd
