"""An open collection: the generation that serves, and the next one while it is built."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.kernel.errors import Invalid, PenstockError, Unavailable
from penstock.stores.backends.edge import checkpoint, engine, manifest, optimize_policy
from penstock.stores.backends.edge.checkpoint import Checkpoint
from penstock.stores.backends.edge.disk import DirectoryCopy, disk_bytes, free_bytes
from penstock.stores.backends.edge.engine import EnginePanicked, Shard, Update
from penstock.stores.backends.edge.generation_builder import (
    BuildAborted,
    GenerationBuilder,
    OnBuildStep,
    ignore_build_step,
)
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.point_reader import PointReader
from penstock.stores.backends.edge.restore_commit import remove_atomically
from penstock.stores.backends.edge.shard_counts import ShardCounter, ShardCounts
from penstock.stores.backends.point_cache import PointCache
from penstock.stores.contract import DirectoryGone
from penstock.stores.data_model import CollectionInfo, Filter, IndexBuildStatus, PendingPage
from penstock.stores.directory_watch import WRITE_FREE_BYTES_MIN

log = logging.getLogger(__name__)

#: Seconds for which it is remembered how much of the disk a collection takes up.
DISK_PERIOD_S: Final = 1.0


@dataclass(slots=True)
class LastKnownState:
    """State of a collection when it was last open.

    Attributes:
        build_status: Status of its index builds.
        changed: Points replaced or deleted since its generation was made, about.
        failed_s: When an index build was last aborted.
        checkpoint: Its checkpoint; ``None`` where there is none.
    """

    build_status: IndexBuildStatus
    changed: int = 0
    failed_s: float = -math.inf
    checkpoint: Checkpoint | None = None


class OpenCollection:
    """An open collection.

    Raises:
        Unavailable: Another process holds it (``store_locked``), or it cannot be read.
    """

    def __init__(
        self,
        home: Path,
        stated: Manifest,
        cache: PointCache,
        on_step: OnBuildStep = ignore_build_step,
        last_known: LastKnownState | None = None,
    ) -> None:
        known = last_known or LastKnownState(IndexBuildStatus(stated.name))
        self.home = home
        self.manifest = stated
        self._counts = ShardCounter(_counts(known.checkpoint))
        self.shard = _whole(home / stated.generation, known.checkpoint)
        self._directory_id = _identity(home / stated.generation)
        # What a crash has left is removed once it is known that the generation named can be read.
        manifest.remove_stale_generations(home, stated)
        self.reader = PointReader(self.shard, cache)
        self.build_status = known.build_status
        self._on_step = on_step
        self._build: GenerationBuilder | None = None
        self._copies: list[DirectoryCopy] = []
        self._changed = known.changed
        self._disk_bytes: int | None = None
        self._measured_s = 0.0
        # Without a checkpoint there may be updates in the engine's log that it has just done again.
        self._written = known.checkpoint is None
        self._updated_s = time.monotonic()
        self._failed_s = known.failed_s

    @property
    def holds_writes(self) -> bool:
        """True while the collection's updates have to wait: its files are being copied."""
        return bool(self._copies) or (self._build is not None and self._build.holds_writes)

    @property
    def build(self) -> GenerationBuilder | None:
        """The build of the next generation, while it runs."""
        return self._build

    @property
    def busy(self) -> bool:
        """True while the collection may not be closed: a copy or an index build runs."""
        return bool(self._copies) or self._build is not None

    def describe(self) -> CollectionInfo:
        """Return the collection's layout, counts and index build stage."""
        documents, chunks, pending = self._counts.read(self.shard)
        # Looking at every file takes a millisecond and more, and may be asked for by every request.
        stale = self._updated_s >= self._measured_s or self._build is not None
        if self._disk_bytes is None or (stale and time.monotonic() > self._measured_s + DISK_PERIOD_S):
            self._disk_bytes, self._measured_s = disk_bytes(self.home), time.monotonic()
        return msgspec.structs.replace(
            self.manifest,
            documents=documents,
            chunks=chunks,
            pending=pending,
            disk_bytes=self._disk_bytes,
            indexed=min(self.manifest.indexed, chunks),
            upkeep=self._build.stage if self._build is not None else "",
        )

    def list_pending(self, conditions: Filter, after: str | None, limit: int) -> PendingPage:
        """Return a page of the chunks without a dense vector; without looking for them if it is known that none are."""
        if not self._counts.read(self.shard).pending:
            return PendingPage([], None)
        return self.shard.list_pending(conditions, after, limit)

    def update(self, command: Update) -> Any:
        """Apply an update; a generation being built will get it too."""
        if not self.manifest.token_dim:
            command = engine.without_token_vectors(command)
        self._written = True
        self.check_directory()
        try:
            counts = self._counts.preview(self.shard, command)
            result = engine.apply_update(self.shard, command)
            # The engine writes to files that have no name any more as if nothing had happened.
            self.check_directory()
            self._counts.commit(counts)
        except PenstockError as error:
            self._counts.invalidate()
            # Half of it may have happened: a generation that has none or all of it could differ.
            if not (isinstance(error, Invalid) or error.code == "write_conflict"):
                self.abort_build("an update failed half-way")
            raise
        finally:
            self.reader.invalidate(command)
        self._updated_s = time.monotonic()
        self._changed += engine.points_touched(command)
        if self._build is not None:
            try:
                self._build.record_update(command)
            except BuildAborted as error:
                self.abort_build(str(error))
        return result

    def write_manifest(self, stated: Manifest) -> None:
        """Replace the manifest by one that names the same generation.

        Raises:
            DirectoryGone: The open files are not those in the directory.
            OSError: It could not be written; the old one is still there.
        """
        self.check_directory()
        manifest.write_manifest(self.home, stated)
        self.manifest, self._disk_bytes = stated, None

    def set_text_version(self, text: int, *, renewing: bool) -> None:
        """Record the version of the text; see :meth:`write_manifest`."""
        self.write_manifest(msgspec.structs.replace(self.manifest, text=text, renewing=renewing))

    def check_directory(self) -> None:
        """Refuse to go on if the open files are not those in the directory.

        Raises:
            DirectoryGone: They were deleted or replaced.
        """
        place = self.home / self.manifest.generation
        if _identity(place) != self._directory_id:
            raise DirectoryGone(
                f"{place} was deleted or replaced while the server had it open, so nothing is written;"
                " put the data directory back and restart the server",
                dependency="store",
            )

    def should_optimize(self, policy: optimize_policy.OptimizePolicy) -> bool:
        """Return whether an index build should be started now."""
        if self._build is not None:
            return False
        points, now_s = self.shard.points_estimate(), time.monotonic()
        condition = optimize_policy.IndexFreshness(
            points=points,
            unindexed=points - self.manifest.indexed,
            changed=self._changed,
            quiet_s=now_s - self._updated_s,
            since_failure_s=now_s - self._failed_s,
        )
        return optimize_policy.should_optimize(condition, policy)

    def start_build(self) -> None:
        """Start an index build, unless one runs."""
        if self._build is not None:
            return
        needed = optimize_policy.build_bytes_needed(disk_bytes(self.home)) + WRITE_FREE_BYTES_MIN
        if free_bytes(self.home) < needed:
            self.abort_build(f"optimising needs {needed >> 20} MiB free on the disk")
            return
        source = self.home / self.manifest.generation
        try:
            self._build = GenerationBuilder(self.home, self.manifest.next_generation, self.shard, source, self._on_step)
        except OSError as error:
            self.abort_build(str(error))
            return
        self._changed = 0
        self._update_status(stage=self._build.stage)

    def advance_build(self) -> None:
        """Do the next piece of work of the index build, whose descriptor is readable."""
        renewal = self._build
        if renewal is None:
            return
        try:
            fresh = renewal.advance()
            if fresh is not None:
                self._swap_generation(renewal, fresh)
                return
        except (BuildAborted, OSError) as error:
            self.abort_build(str(error))
            return
        self._update_status(stage=renewal.stage)

    def abort_build_if_disk_full(self) -> None:
        """Abort an index build before it fills the disk, which would end the serving generation too."""
        if self._build is not None and free_bytes(self.home) < WRITE_FREE_BYTES_MIN:
            self.abort_build("the disk got full")

    def abort_build(self, reason: str) -> None:
        """Abort the index build; the serving generation goes on, and the build is tried again later."""
        renewal, self._build = self._build, None
        if renewal is not None:
            renewal.abort()
        self._failed_s = time.monotonic()
        self._update_status(stage="", given_up=self.build_status.given_up + 1, reason=reason)

    def start_copy(self, target: Path) -> DirectoryCopy:
        """Start a copy of the files and of the manifest with counts; updates wait until :meth:`finish_copy`.

        Raises:
            OSError: There is no room.
        """
        self.shard.flush()
        target.mkdir(parents=True)
        documents, chunks, pending = self._counts.read(self.shard)
        indexed = min(self.manifest.indexed, chunks)
        counted = {"documents": documents, "chunks": chunks, "indexed": indexed, "pending": pending}
        manifest.write_manifest(
            target, msgspec.structs.replace(self.manifest, generation=manifest.FIRST_GENERATION, **counted)
        )
        copying = DirectoryCopy(self.home / self.manifest.generation, target / manifest.FIRST_GENERATION)
        self._copies.append(copying)
        return copying

    def finish_copy(self, copying: DirectoryCopy) -> None:
        """End a copy, finished or not."""
        self._copies.remove(copying)
        copying.close()

    def close(self) -> LastKnownState:
        """Flush and close; discard an unfinished build. Return the last known state."""
        for copying in tuple(self._copies):
            self.finish_copy(copying)
        if self._build is not None:
            self._build.abort()
            self._build = None
            self._update_status(stage="")
        counts = self._counts.read(self.shard)
        self.shard.close(changed=self._written)
        return LastKnownState(self.build_status, self._changed, self._failed_s, self._checkpoint(counts))

    def close_damaged(self) -> None:
        """Close a collection whose files cannot be used any more."""
        for copying in tuple(self._copies):
            self.finish_copy(copying)
        if self._build is not None:
            self._build.abort()
            self._build = None
        try:
            self.shard.close()
        except EnginePanicked:
            raise
        except PenstockError as error:
            log.warning("collection %s could not be flushed: %s", self.manifest.name, error.detail)

    def _checkpoint(self, counts: ShardCounts) -> Checkpoint | None:
        """Write the checkpoint of the closed shard; ``None`` if that cannot be done."""
        generation = self.manifest.generation
        try:
            self.check_directory()
            found = checkpoint.scan_files(self.home / generation)
            written = found.disk_bytes, self._changed, found.files, found.fingerprint
            held = Checkpoint(generation, counts.documents, counts.chunks, *written, pending=counts.pending)
            checkpoint.write_checkpoint(self.home, held)
        except (OSError, DirectoryGone) as error:
            log.warning("collection %s will be counted when it is next opened: %s", self.manifest.name, error)
            return None
        return held

    def _swap_generation(self, renewal: GenerationBuilder, fresh: Shard) -> None:
        stated = msgspec.structs.replace(
            self.manifest, generation=self.manifest.next_generation, indexed=renewal.indexed_points
        )
        self._publish_generation(fresh, stated)
        renewal.close()
        self._build = None
        self._update_status(stage="", made=self.build_status.made + 1, reason="")

    def _publish_generation(self, fresh: Shard, stated: Manifest) -> None:
        """Name an open generation in the manifest, let it serve, and remove the one before."""
        manifest.write_manifest(self.home, stated)
        self._on_step("named")
        outlived, old = self.home / self.manifest.generation, self.shard
        self.manifest, self.shard, self.reader.shard = stated, fresh, fresh
        self._directory_id, self._disk_bytes = _identity(self.home / stated.generation), None
        self._written = True
        try:
            old.close()
        except EnginePanicked:
            raise
        except PenstockError as error:
            log.warning("the generation before could not be closed: %s", error.detail)
        self._on_step("closed")
        remove_atomically(outlived)

    def _update_status(self, **news: Any) -> None:
        self.build_status = msgspec.structs.replace(self.build_status, **news)


def _identity(directory: Path) -> tuple[int, int] | None:
    """Return a directory's device and inode, which tell it from another at the same path; ``None`` if there is none."""
    try:
        stat = directory.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _counts(held: Checkpoint | None) -> ShardCounts | None:
    return None if held is None else ShardCounts(held.documents, held.chunks, held.pending)


def _whole(directory: Path, held: Checkpoint | None) -> Shard:
    """Open a generation, unless points are missing that it held when it was closed.

    Raises:
        Unavailable: Some are, or it cannot be opened.
    """
    shard = Shard.load(directory)
    if held is None or shard.points_estimate() == held.chunks:
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
