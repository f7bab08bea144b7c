"""One collection of the data directory, whatever its state: closed, open or damaged."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel.errors import PenstockError, Unavailable
from penstock.stores.backends.edge import checkpoint, damage, manifest
from penstock.stores.backends.edge.collection import Collection, Standing
from penstock.stores.backends.edge.damage import Damage
from penstock.stores.backends.edge.engine import Panicked
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.point_cache import PointCache
from penstock.stores.backends.edge.renewal import Step, unwatched
from penstock.stores.backends.edge.upkeep import Condition, Rule, due
from penstock.stores.errors import CollectionDamaged
from penstock.stores.records import CLOSED, DAMAGED, OPEN, CollectionInfo, Upkeep

log = logging.getLogger(__name__)

#: Codes of errors while a collection is opened that are not its own fault.
_PASSING: Final = frozenset({"store_locked", "disk_full", "disk_read_only"})


class Shelved:
    """A collection by its directory. Nothing of a damaged one is changed.

    Args:
        home: Its directory.
        cache: Remembers what is read of its points.
        step: Called at each step of a swap, see :mod:`penstock.stores.backends.edge.renewal`.

    Attributes:
        home: As given.
        name: Its name.
        manifest: What it is; ``None`` where that cannot be read.
        collection: It, while it is open.
        damage: Why it cannot be opened, once that was tried.
        proven: Whether its files are known to be as the engine left them.
    """

    def __init__(self, home: Path, cache: PointCache, step: Step = unwatched) -> None:
        self.home = home
        self.name = home.name
        self.manifest: Manifest | None = None
        self.collection: Collection | None = None
        self.damage: Damage | None = None
        self.proven = False
        self._cache = cache
        self._step = step
        self._standing = Standing(Upkeep(self.name))
        self._closed_s = 0.0

    @property
    def upkeep(self) -> Upkeep:
        """How its upkeep stands."""
        return self.collection.upkeep if self.collection is not None else self._standing.upkeep

    @property
    def counted(self) -> bool:
        """Whether it can be described without being opened."""
        return self.collection is not None or self.damage is not None or self._standing.checkpoint is not None

    def examine(self) -> None:
        """Look at its files without opening or changing one."""
        self.proven, self._standing.checkpoint = False, None
        try:
            self.manifest = manifest.read(self.home)
            held = checkpoint.read(self.home, self.manifest.generation)
            found = checkpoint.survey(self.home / self.manifest.generation)
        except (PenstockError, OSError) as error:
            self.condemn(damage.explained(self.home, error))
            return
        if held is None:
            return
        if found.foreign and damage.is_denied(Path(found.foreign)):
            denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), found.foreign)
            self.condemn(damage.explained(self.home, denied))
            return
        if lost := found.lost(held):
            cure = f"if that is as it should be, remove {self.home / checkpoint.CHECKPOINT}"
            self.condemn(f"{lost} ({cure})")
            return
        self._standing.checkpoint, self._standing.changed = held, held.changed
        self.proven = found.stamp == held.stamp

    def open(self) -> Collection:
        """Return it open.

        Raises:
            CollectionDamaged: It cannot be opened.
            Unavailable: It cannot be opened now, which is not its fault.
        """
        if self.collection is not None:
            return self.collection
        if self.damage is not None:
            if not self.damage.may_retry(time.monotonic()):
                raise CollectionDamaged(self.name, self.damage.reason)
            self.damage = None
        if not self.proven:
            self.examine()
        self.collection = self._opened()
        self.proven = True
        return self.collection

    def take(self, opened: Collection) -> None:
        """Take over a collection that has just been made."""
        self.manifest, self.collection, self.damage, self.proven = opened.manifest, opened, None, True

    def close(self) -> None:
        """Flush and close it, if it is open.

        Raises:
            Panicked: The engine did.
        """
        collection, self.collection = self.collection, None
        if collection is None:
            return
        self.manifest, self._closed_s = collection.manifest, time.monotonic()
        try:
            self._standing = collection.close()
        except Panicked:
            raise
        except (PenstockError, OSError) as error:
            self._standing = Standing(collection.upkeep)
            log.error("collection %s could not be closed: %s", self.name, error)  # noqa: TRY400 - no bug of ours
        self.proven = self._standing.checkpoint is not None

    def condemn(self, reason: str, *, final: bool = False) -> None:
        """Take it out of use.

        Args:
            reason: Why.
            final: Whether it is not tried again before the next start.
        """
        if self.damage is None or self.damage.reason != reason:
            log.error("collection %s is damaged: %s", self.name, reason)
        self.damage = Damage(reason, time.monotonic(), final)

    def spoil(self, error: PenstockError) -> CollectionDamaged:
        """Take it out of use because its files could not be used; return what its requester is told."""
        self.proven, self._standing = False, Standing(self.upkeep)
        collection, self.collection = self.collection, None
        if collection is not None:
            self.manifest = collection.manifest
            collection.abandon()
        self.condemn(damage.explained(self.home, error))
        return CollectionDamaged(self.name, error.detail)

    def describe(self) -> CollectionInfo:
        """Return its layout, its counts and its state."""
        if self.collection is not None:
            return msgspec.structs.replace(self.collection.describe(), name=self.name, state=OPEN)
        info: CollectionInfo = self.manifest or CollectionInfo(self.name, 0, "")
        if (held := self._standing.checkpoint) is not None:
            info = msgspec.structs.replace(
                info,
                documents=held.documents,
                chunks=held.chunks,
                disk_bytes=held.disk_bytes,
                indexed=min(info.indexed, held.chunks),
            )
        state, reason = (DAMAGED, self.damage.reason) if self.damage is not None else (CLOSED, "")
        return msgspec.structs.replace(info, name=self.name, state=state, reason=reason)

    def due(self, rule: Rule) -> bool:
        """Return whether it is closed and should be opened to get a new generation."""
        held, stated = self._standing.checkpoint, self.manifest
        if self.collection is not None or self.damage is not None or held is None or stated is None:
            return False
        if max(held.chunks - stated.indexed, held.changed) < rule.points:
            return False
        now_s = time.monotonic()
        condition = Condition(
            points=held.chunks,
            loose=held.chunks - stated.indexed,
            changed=held.changed,
            quiet_s=now_s - self._closed_s,
            failed_s=now_s - self._standing.failed_s,
        )
        return due(condition, rule)

    def _opened(self) -> Collection:
        if self.damage is not None or self.manifest is None:
            raise CollectionDamaged(self.name, self.damage.reason if self.damage is not None else "not examined")
        try:
            # From here on the engine may change the files.
            checkpoint.remove(self.home)
            return Collection(self.home, self.manifest, self._cache, self._step, self._standing)
        except (PenstockError, OSError) as error:
            if isinstance(error, PenstockError) and error.code in _PASSING:
                raise
            if damage.is_of_the_machine(error):
                reason = error.detail if isinstance(error, PenstockError) else str(error)
                detail = f"collection {self.name!r} cannot be opened now: {reason}"
                raise Unavailable(detail, dependency="store", code="store_short") from error
            self._standing.checkpoint = None
            # What a panic has left behind may hold the files' locks as long as the process lives.
            self.condemn(damage.explained(self.home, error), final=isinstance(error, Panicked))
            raise CollectionDamaged(self.name, damage.explained(self.home, error)) from error
