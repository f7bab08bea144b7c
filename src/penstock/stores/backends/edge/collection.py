"""One collection that is open: the generation that serves, and the next one while it is made."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import msgspec

from penstock.kernel.errors import Invalid, PenstockError
from penstock.stores.backends.edge import manifest, updates, upkeep
from penstock.stores.backends.edge.adoption import dismiss
from penstock.stores.backends.edge.copying import Copying
from penstock.stores.backends.edge.engine import Panicked, Shard
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.point_cache import PointCache
from penstock.stores.backends.edge.reader import PointReader
from penstock.stores.backends.edge.renewal import GivenUp, Renewal, Step, unwatched
from penstock.stores.backends.edge.space import FREE_BYTES_MIN, disk_bytes, free_bytes
from penstock.stores.backends.edge.tally import Tally
from penstock.stores.backends.edge.updates import Update
from penstock.stores.records import CollectionInfo, Upkeep

log = logging.getLogger(__name__)


class Collection:
    """An open collection.

    Args:
        home: Its directory.
        stated: Its manifest.
        cache: Remembers what is read of its points.
        step: Called at each step of a swap, see :mod:`penstock.stores.backends.edge.renewal`.

    Attributes:
        home: As given.
        manifest: What it is, and which generation serves.
        shard: That generation.
        reader: Reads its points.
        upkeep: How its upkeep stands.

    Raises:
        Unavailable: Another process holds it (``store_locked``), or it cannot be read.
    """

    def __init__(self, home: Path, stated: Manifest, cache: PointCache, step: Step = unwatched) -> None:
        manifest.sweep(home, stated)
        self.home = home
        self.manifest = stated
        self.shard = Shard.load(home / stated.generation)
        self.reader = PointReader(self.shard, cache)
        self.upkeep = Upkeep(stated.name)
        self._step = step
        self._renewal: Renewal | None = None
        self._copies: list[Copying] = []
        self._changed = 0
        self._tally = Tally()
        self._updated_s = time.monotonic()
        self._failed_s = -math.inf

    @property
    def holds_writes(self) -> bool:
        """Whether its updates have to wait now: its files are being copied."""
        return bool(self._copies) or (self._renewal is not None and self._renewal.holds_writes)

    @property
    def renewal(self) -> Renewal | None:
        """The next generation, while it is made."""
        return self._renewal

    def describe(self) -> CollectionInfo:
        """Return its layout, its counts and how its upkeep stands."""
        documents, chunks = self._tally.read(self.shard)
        return msgspec.structs.replace(
            self.manifest,
            documents=documents,
            chunks=chunks,
            disk_bytes=disk_bytes(self.home),
            indexed=min(self.manifest.indexed, chunks),
            upkeep=self._renewal.stage if self._renewal is not None else "",
        )

    def update(self, command: Update) -> Any:
        """Do what an update says; a generation in the making will get it too."""
        if not self.manifest.late:
            command = updates.without_tokens(command)
        try:
            counts = self._tally.change(self.shard, command)
            result = updates.apply(self.shard, command)
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

    def close(self) -> None:
        """Flush and close; what is being made is thrown away."""
        for copying in tuple(self._copies):
            self.copied(copying)
        if self._renewal is not None:
            self._renewal.give_up()
            self._renewal = None
        self.shard.close()

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
