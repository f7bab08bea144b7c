"""Entry of a collection in the registry, whether the collection is closed, open or damaged."""

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
from penstock.stores.backends.edge.damage import Damage
from penstock.stores.backends.edge.engine import EnginePanicked
from penstock.stores.backends.edge.generation_builder import OnBuildStep, ignore_build_step
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.open_collection import LastKnownState, OpenCollection
from penstock.stores.backends.edge.optimize_policy import IndexFreshness, OptimizePolicy, should_optimize
from penstock.stores.backends.point_cache import PointCache
from penstock.stores.contract import CollectionDamaged
from penstock.stores.data_model import STATE_CLOSED, STATE_DAMAGED, STATE_OPEN, CollectionInfo, IndexBuildStatus

log = logging.getLogger(__name__)

#: Codes of errors while a collection is opened that are not its own fault.
_PASSING: Final = frozenset({"store_locked", "disk_full", "disk_read_only"})


class CollectionEntry:
    """A collection by its directory. Nothing of a damaged one is changed.

    Attributes:
        home: As given.
        name: Its name.
        manifest: Its manifest; ``None`` where that cannot be read.
        collection: It, while it is open.
        damage: Why it cannot be opened, once that was tried.
        verified: Whether its files are known to be as the engine left them.
    """

    def __init__(self, home: Path, cache: PointCache, on_step: OnBuildStep = ignore_build_step) -> None:
        self.home = home
        self.name = home.name
        self.manifest: Manifest | None = None
        self.collection: OpenCollection | None = None
        self.damage: Damage | None = None
        self.verified = False
        self._cache = cache
        self._on_step = on_step
        self._last_known = LastKnownState(IndexBuildStatus(self.name))
        self._closed_s = 0.0

    @property
    def build_status(self) -> IndexBuildStatus:
        """Status of the collection's index builds."""
        return self.collection.build_status if self.collection is not None else self._last_known.build_status

    @property
    def has_counts(self) -> bool:
        """True if the collection can be described without being opened."""
        return self.collection is not None or self.damage is not None or self._last_known.checkpoint is not None

    def inspect_files(self) -> None:
        """Check the collection's files without opening or changing one."""
        self.verified, self._last_known.checkpoint = False, None
        try:
            self.manifest = manifest.read_manifest(self.home)
            held = checkpoint.read_checkpoint(self.home, self.manifest.generation)
            found = checkpoint.scan_files(self.home / self.manifest.generation)
        except (PenstockError, OSError) as error:
            self.mark_damaged(damage.explain_damage(self.home, error))
            return
        if held is None:
            return
        if found.foreign_file and damage.is_denied(Path(found.foreign_file)):
            denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), found.foreign_file)
            self.mark_damaged(damage.explain_damage(self.home, denied))
            return
        if lost := found.missing_file(held):
            cure = f"if that is as it should be, remove {self.home / checkpoint.CHECKPOINT_FILE}"
            self.mark_damaged(f"{lost} ({cure})")
            return
        self._last_known.checkpoint, self._last_known.changed = held, held.changed
        self.verified = found.fingerprint == held.stamp

    def open(self) -> OpenCollection:
        """Open the collection if it is closed, and return it.

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
        if not self.verified:
            self.inspect_files()
        self.collection = self._opened()
        self.verified = True
        return self.collection

    def set_open(self, opened: OpenCollection) -> None:
        """Set the entry's collection to one that has just been created and opened."""
        self.manifest, self.collection, self.damage, self.verified = opened.manifest, opened, None, True

    def close(self) -> None:
        """Flush and close the collection, if it is open.

        Raises:
            EnginePanicked: The engine panicked.
        """
        collection, self.collection = self.collection, None
        if collection is None:
            return
        self.manifest, self._closed_s = collection.manifest, time.monotonic()
        try:
            self._last_known = collection.close()
        except EnginePanicked:
            raise
        except (PenstockError, OSError) as error:
            self._last_known = LastKnownState(collection.build_status)
            log.error("collection %s could not be closed: %s", self.name, error)  # noqa: TRY400 - no bug of ours
        self.verified = self._last_known.checkpoint is not None

    def mark_damaged(self, reason: str, *, final: bool = False) -> None:
        """Mark the collection as damaged: it is not used any more.

        Args:
            reason: Why.
            final: Whether it is not tried again before the next start.
        """
        if self.damage is None or self.damage.reason != reason:
            log.error("collection %s is damaged: %s", self.name, reason)
        self.damage = Damage(reason, time.monotonic(), final)

    def mark_corrupted(self, error: PenstockError) -> CollectionDamaged:
        """Close the collection and mark it as damaged, its files being unusable; return the error for the requester."""
        self.verified, self._last_known = False, LastKnownState(self.build_status)
        collection, self.collection = self.collection, None
        if collection is not None:
            self.manifest = collection.manifest
            collection.close_damaged()
        self.mark_damaged(damage.explain_damage(self.home, error))
        return CollectionDamaged(self.name, error.detail)

    def describe(self) -> CollectionInfo:
        """Return the collection's layout, counts and state."""
        if self.collection is not None:
            return msgspec.structs.replace(self.collection.describe(), name=self.name, state=STATE_OPEN)
        info: CollectionInfo = self.manifest or CollectionInfo(self.name, 0, "")
        if (held := self._last_known.checkpoint) is not None:
            info = msgspec.structs.replace(
                info,
                documents=held.documents,
                chunks=held.chunks,
                pending=held.pending,
                disk_bytes=held.disk_bytes,
                indexed=min(info.indexed, held.chunks),
            )
        state, reason = (STATE_DAMAGED, self.damage.reason) if self.damage is not None else (STATE_CLOSED, "")
        return msgspec.structs.replace(info, name=self.name, state=state, reason=reason)

    def should_optimize(self, policy: OptimizePolicy) -> bool:
        """Return whether the collection is closed and should be opened to build a new generation."""
        held, stated = self._last_known.checkpoint, self.manifest
        if self.collection is not None or self.damage is not None or held is None or stated is None:
            return False
        if max(held.chunks - stated.indexed, held.changed) < policy.points:
            return False
        now_s = time.monotonic()
        condition = IndexFreshness(
            points=held.chunks,
            unindexed=held.chunks - stated.indexed,
            changed=held.changed,
            quiet_s=now_s - self._closed_s,
            since_failure_s=now_s - self._last_known.failed_s,
        )
        return should_optimize(condition, policy)

    def _opened(self) -> OpenCollection:
        if self.damage is not None or self.manifest is None:
            raise CollectionDamaged(self.name, self.damage.reason if self.damage is not None else "not examined")
        try:
            # From here on the engine may change the files.
            checkpoint.remove_checkpoint(self.home)
            return OpenCollection(self.home, self.manifest, self._cache, self._on_step, self._last_known)
        except (PenstockError, OSError) as error:
            if isinstance(error, PenstockError) and error.code in _PASSING:
                raise
            if damage.is_system_error(error):
                reason = error.detail if isinstance(error, PenstockError) else str(error)
                detail = f"collection {self.name!r} cannot be opened now: {reason}"
                raise Unavailable(detail, dependency="store", code="store_out_of_resources") from error
            self._last_known.checkpoint = None
            # What a panic has left behind may hold the files' locks as long as the process lives.
            self.mark_damaged(damage.explain_damage(self.home, error), final=isinstance(error, EnginePanicked))
            raise CollectionDamaged(self.name, damage.explain_damage(self.home, error)) from error
