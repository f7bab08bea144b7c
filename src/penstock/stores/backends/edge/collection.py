"""One collection that is open: the generation that serves, and the next one while it is made."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from penstock.kernel.errors import Invalid, PenstockError, Unavailable
from penstock.stores.backends.edge import checkpoint, manifest, updates, upkeep
from penstock.stores.backends.edge.adoption import dismiss
from penstock.stores.backends.edge.checkpoint import Checkpoint
from penstock.stores.backends.edge.copying import Copying
from penstock.stores.backends.edge.engine import Panicked, Shard
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.point_cache import PointCache
from penstock.stores.backends.edge.reader import PointReader
from penstock.stores.backends.edge.renewal import GivenUp, Renewal, Step, unwatched
from penstock.stores.backends.edge.space import disk_bytes, free_bytes
from penstock.stores.backends.edge.tally import Counts, Tally
from penstock.stores.backends.edge.updates import Update
from penstock.stores.directory import FREE_BYTES_MIN
from penstock.stores.errors import DirectoryGone
from penstock.stores.records import CollectionInfo, Upkeep

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Standing:
    """What is known of a collection from when it was last open.

    Attributes:
        upkeep: How its upkeep stands.
        changed: Points replaced or deleted since its generation was made, about.
        failed_s: When a generation was last given up.
        checkpoint: What it held; ``None`` where that is not known.
    """

    upkeep: Upkeep
    changed: int = 0
    failed_s: float = -math.inf
    checkpoint: Checkpoint | None = None


class Collection:
    """An open collection.

    Args:
        home: Its directory.
        stated: Its manifest.
        cache: Remembers what is read of its points.
        step: Called at each step of a swap, see :mod:`penstock.stores.backends.edge.renewal`.
        standing: What is known from when it was last open.

    Attributes:
        home: As given.
        manifest: What it is, and which generation serves.
        shard: That generation.
        reader: Reads its points.
        upkeep: How its upkeep stands.

    Raises:
        Unavailable: Another process holds it (``store_locked``), or it cannot be read.
    """

    def __init__(
        self,
        home: Path,
        stated: Manifest,
        cache: PointCache,
        step: Step = unwatched,
        standing: Standing | None = None,
    ) -> None:
        known = standing or Standing(Upkeep(stated.name))
        self.home = home
        self.manifest = stated
        self._tally = Tally(_counts(known.checkpoint))
        self.shard = _whole(home / stated.generation, known.checkpoint)
        self._place = _identity(home / stated.generation)
        # What a crash has left is removed once it is known that the generation named can be read.
        manifest.sweep(home, stated)
        self.reader = PointReader(self.shard, cache)
        self.upkeep = known.upkeep
        self._step = step
        self._renewal: Renewal | None = None
        self._copies: list[Copying] = []
        self._changed = known.changed
        self._disk_bytes: int | None = None
        # Without a checkpoint there may be updates in the engine's log that it has just done again.
        self._written = known.checkpoint is None
        self._updated_s = time.monotonic()
        self._failed_s = known.failed_s

    @property
    def holds_writes(self) -> bool:
        """Whether its updates have to wait now: its files are being copied."""
        return bool(self._copies) or (self._renewal is not None and self._renewal.holds_writes)

    @property
    def renewal(self) -> Renewal | None:
        """The next generation, while it is made."""
        return self._renewal

    @property
    def busy(self) -> bool:
        """Whether it may not be closed now: something is being made of it."""
        return bool(self._copies) or self._renewal is not None

    def describe(self) -> CollectionInfo:
        """Return its layout, its counts and how its upkeep stands."""
        documents, chunks = self._tally.read(self.shard)
        if self._disk_bytes is None or self._renewal is not None:
            self._disk_bytes = disk_bytes(self.home)
        return msgspec.structs.replace(
            self.manifest,
            documents=documents,
            chunks=chunks,
            disk_bytes=self._disk_bytes,
            indexed=min(self.manifest.indexed, chunks),
            upkeep=self._renewal.stage if self._renewal is not None else "",
        )

    def update(self, command: Update) -> Any:
        """Do what an update says; a generation in the making will get it too."""
        if not self.manifest.late:
            command = updates.without_tokens(command)
        self._disk_bytes, self._written = None, True
        self.check_place()
        try:
            counts = self._tally.change(self.shard, command)
            result = updates.apply(self.shard, command)
            # The engine writes to files that have no name any more as if nothing had happened.
            self.check_place()
            self._tally.note(counts)
        except PenstockError as error:
            self._tally.forget()
            # Half of it may have happened: a generation that has none or all of it could differ.
            if not (isinstance(error, Invalid) or error.code == "write_conflict"):
                self.give_up("an update failed half-way")
            raise
        finally:
            self.reader.note(command)
        self._updated_s = time.monotonic()
        self._changed += updates.weight(command)
        if self._renewal is not None:
            try:
                self._renewal.note(command)
            except GivenUp as error:
                self.give_up(str(error))
        return result

    def check_place(self) -> None:
        """Refuse to go on where the files that are open are not those in the directory.

        Raises:
            DirectoryGone: They were deleted or replaced.
        """
        place = self.home / self.manifest.generation
        if _identity(place) != self._place:
            raise DirectoryGone(
                f"{place} was deleted or replaced while the server had it open, so nothing is written;"
                " put the data directory back and restart the server",
                dependency="store",
            )

    def due(self, rule: upkeep.Rule) -> bool:
        """Return whether a new generation should be begun now."""
        if self._renewal is not None:
            return False
        points, now_s = self.shard.points(), time.monotonic()
        condition = upkeep.Condition(
            points=points,
            loose=points - self.manifest.indexed,
            changed=self._changed,
            quiet_s=now_s - self._updated_s,
            failed_s=now_s - self._failed_s,
        )
        return upkeep.due(condition, rule)

    def begin(self) -> None:
        """Begin a new generation, unless one is being made."""
        if self._renewal is not None:
            return
        needed = upkeep.room_needed(disk_bytes(self.home)) + FREE_BYTES_MIN
        if free_bytes(self.home) < needed:
            self.give_up(f"optimising needs {needed >> 20} MiB free on the disk")
            return
        source = self.home / self.manifest.generation
        try:
            self._renewal = Renewal(self.home, self.manifest.following, self.shard, source, self._step)
        except OSError as error:
            self.give_up(str(error))
            return
        self._changed = 0
        self._tell(stage=self._renewal.stage)

    def advance(self) -> None:
        """Do the next piece of work of the generation in the making, whose descriptor is readable."""
        renewal = self._renewal
        if renewal is None:
            return
        try:
            fresh = renewal.advance()
            if fresh is not None:
                self._swap(renewal, fresh)
                return
        except (GivenUp, OSError) as error:
            self.give_up(str(error))
            return
        self._tell(stage=renewal.stage)

    def guard_space(self) -> None:
        """Give a generation in the making up before it fills the disk: that would end the one that serves, too."""
        if self._renewal is not None and free_bytes(self.home) < FREE_BYTES_MIN:
            self.give_up("the disk got full")

    def give_up(self, reason: str) -> None:
        """End the making of a new generation; the one that serves goes on, and it is tried again later."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.give_up()
        self._failed_s = time.monotonic()
        self._tell(stage="", given_up=self.upkeep.given_up + 1, reason=reason)

    def copy_to(self, target: Path) -> Copying:
        """Copy what it holds and its manifest, with its counts; updates wait until :meth:`copied`.

        Raises:
            OSError: There is no room.
        """
        self.shard.flush()
        target.mkdir(parents=True)
        documents, chunks = self._tally.read(self.shard)
        counted = {"documents": documents, "chunks": chunks, "indexed": min(self.manifest.indexed, chunks)}
        manifest.write(target, msgspec.structs.replace(self.manifest, generation=manifest.FIRST, **counted))
        copying = Copying(self.home / self.manifest.generation, target / manifest.FIRST)
        self._copies.append(copying)
        return copying

    def copied(self, copying: Copying) -> None:
        """End a copy, finished or not."""
        self._copies.remove(copying)
        copying.close()

    def close(self) -> Standing:
        """Flush and close; what is being made is thrown away. Return what is known of it."""
        for copying in tuple(self._copies):
            self.copied(copying)
        if self._renewal is not None:
            self._renewal.give_up()
            self._renewal = None
            self._tell(stage="")
        counts = self._tally.read(self.shard)
        self.shard.close(changed=self._written)
        return Standing(self.upkeep, self._changed, self._failed_s, self._checkpoint(counts))

    def abandon(self) -> None:
        """Close it though its files cannot be used any more."""
        for copying in tuple(self._copies):
            self.copied(copying)
        if self._renewal is not None:
            self._renewal.give_up()
            self._renewal = None
        try:
            self.shard.close()
        except Panicked:
            raise
        except PenstockError as error:
            log.warning("collection %s could not be flushed: %s", self.manifest.name, error.detail)

    def _checkpoint(self, counts: Counts) -> Checkpoint | None:
        """Write down what it held, its shard being closed; ``None`` where that cannot be done."""
        generation = self.manifest.generation
        try:
            self.check_place()
            found = checkpoint.survey(self.home / generation)
            held = Checkpoint(generation, *counts, found.disk_bytes, self._changed, found.files, found.stamp)
            checkpoint.write(self.home, held)
        except (OSError, DirectoryGone) as error:
            log.warning("collection %s will be counted when it is next opened: %s", self.manifest.name, error)
            return None
        return held

    def _swap(self, renewal: Renewal, fresh: Shard) -> None:
        """Let the new generation serve."""
        stated = msgspec.structs.replace(self.manifest, generation=self.manifest.following, indexed=renewal.points)
        self._name(fresh, stated)
        renewal.close()
        self._renewal = None
        self._tell(stage="", made=self.upkeep.made + 1, reason="")

    def _name(self, fresh: Shard, stated: Manifest) -> None:
        """Name an open generation in the manifest, let it serve, and remove the one before."""
        manifest.write(self.home, stated)
        self._step("named")
        outlived, old = self.home / self.manifest.generation, self.shard
        self.manifest, self.shard, self.reader.shard = stated, fresh, fresh
        self._place, self._disk_bytes = _identity(self.home / stated.generation), None
        self._written = True
        try:
            old.close()
        except Panicked:
            raise
        except PenstockError as error:
            log.warning("the generation before could not be closed: %s", error.detail)
        self._step("closed")
        dismiss(outlived)

    def _tell(self, **news: Any) -> None:
        self.upkeep = msgspec.structs.replace(self.upkeep, **news)


def _identity(directory: Path) -> tuple[int, int] | None:
    """Return what tells a directory from another one in its place; ``None`` if there is none."""
    try:
        stat = directory.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _counts(held: Checkpoint | None) -> Counts | None:
    return None if held is None else Counts(held.documents, held.chunks)


def _whole(directory: Path, held: Checkpoint | None) -> Shard:
    """Open a generation, unless points are missing that it held when it was closed.

    Raises:
        Unavailable: Some are, or it cannot be opened.
    """
    shard = Shard.load(directory)
    if held is None or shard.points() == held.chunks:
        return shard
    # The quick number counts twice what lies in two segments.
    if (chunks := shard.count()) == held.chunks:
        return shard
    shard.close()
    raise Unavailable(
        f"it held {held.chunks} chunks when it was closed, and {chunks} can be read",
        dependency="store",
        code="store_damaged",
    )
