"""Index build: makes a collection's next generation beside the one that serves (DESIGN §2).

::

    copying      the shard, flushed, is copied; its updates wait, its searches do not
    optimising   a process of its own builds segments and graphs in the copy; updates are journalled
    replaying    the result is open; it gets the journalled updates, a slice at a time
    done         it is in step with the one that serves, and flushed: the manifest may name it

Until then nothing but the collection's first generation counts, so it may be aborted at any time.
"""

from __future__ import annotations

import enum
import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel.errors import Broken, Invalid, PenstockError, Unavailable
from penstock.stores.backends.edge import engine, ipc, manifest
from penstock.stores.backends.edge.disk import DirectoryCopy
from penstock.stores.backends.edge.engine import EnginePanicked, Shard, Update
from penstock.stores.backends.edge.optimiser import Optimiser

#: A longer journal means that writing outruns optimising; the build is aborted.
JOURNAL_BYTES_MAX: Final = 2 << 30


_DECODER: Final[msgspec.msgpack.Decoder[Update]] = ipc.decoder(Update)  # type: ignore[arg-type]


class UpdateJournal:
    """Updates in their order.

    Args:
        path: Its file; must not exist.

    Bounds: ``JOURNAL_BYTES_MAX`` on disk; in memory one update.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("x+b", buffering=0)
        self._written = 0
        self._read = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes that have not been taken yet."""
        return self._written - self._read

    def append(self, command: Update) -> None:
        """Write an update down.

        Raises:
            OSError: The disk is full, or the journal too long.
        """
        data = ipc.encode_frame(command)
        if self._written + len(data) > JOURNAL_BYTES_MAX:
            raise OSError(errno.EFBIG, "the journal is too long")
        # A short write means a full disk. The build is aborted then, and its journal with it.
        if os.pwrite(self._file.fileno(), data, self._written) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written += len(data)

    def pop(self) -> Update | None:
        """Return the next update, ``None`` when there is none left."""
        if not self.pending_bytes:
            return None
        fd, size = self._file.fileno(), ipc.LENGTH_HEADER.size
        (length,) = ipc.LENGTH_HEADER.unpack(os.pread(fd, size, self._read))
        data = os.pread(fd, length, self._read + size)
        self._read += size + length
        return _DECODER.decode(data)

    def close(self) -> None:
        """Close and remove it."""
        self._file.close()
        self._path.unlink(missing_ok=True)


#: Replaying goes on for so long at once; then those who wait are served.
REPLAY_SLICE_S: Final = 0.01

OnBuildStep = Callable[[str], None]

#: Every place at which a crash is tested; see :data:`OnBuildStep`.
BUILD_STEPS: Final = (
    "flushed",
    "copied",
    "optimising",
    "optimised",
    "placed",
    "loaded",
    "replaying",
    "replayed",
    "named",
    "closed",
)


class BuildStage(enum.StrEnum):
    """Stage of an index build."""

    COPYING = "copying"
    OPTIMISING = "optimising"
    REPLAYING = "replaying"


class BuildAborted(Exception):
    """The generation cannot be built. The one that serves goes on."""


def ignore_build_step(_: str) -> None:
    """Pass a step and do nothing."""


class GenerationBuilder:
    """An index build: a single attempt at a collection's next generation.

    Args:
        home: The collection's directory.
        name: The generation's name.
        shard: The shard that serves, open; it is flushed.
        source: Its directory.
        on_step: Called at each of ``BUILD_STEPS``.

    Attributes:
        stage: How far it is.
        indexed_points: How many points it has indexed, once it is open; those replayed are not.

    Bounds: that of :class:`UpdateJournal`; a second copy of the collection on the disk.

    Raises:
        OSError: There is no room to begin.
    """

    def __init__(
        self, home: Path, name: str, shard: Shard, source: Path, on_step: OnBuildStep = ignore_build_step
    ) -> None:
        self.stage = BuildStage.COPYING
        self.indexed_points = 0
        self._on_step = on_step
        self._target = home / name
        # An optimiser whose parent was killed may outlive it for a moment: it must not meet its successor.
        self._draft = home / f".{name}-{os.getpid()}"
        self._shard: Shard | None = None
        self._optimiser: Optimiser | None = None
        manifest.remove_path(self._draft)
        manifest.remove_path(self._target)
        # Files are copied, so everything that the engine holds in memory must be in them.
        shard.flush()
        on_step("flushed")
        self._journal = UpdateJournal(home / f".{name}-{os.getpid()}.journal")
        self._copying: DirectoryCopy | None = DirectoryCopy(source, self._draft)

    @property
    def holds_writes(self) -> bool:
        """True while the collection's updates have to wait."""
        return self.stage is BuildStage.COPYING

    @property
    def ready(self) -> bool:
        """True if :meth:`advance` has work to do that no descriptor signals."""
        return self.stage is BuildStage.REPLAYING

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`advance` has something to do."""
        waited_for = self._copying or self._optimiser
        if waited_for is None:
            raise Broken("a generation that is replayed waits for nothing")
        return waited_for.fileno()

    def record_update(self, command: Update) -> None:
        """Journal an update that the serving shard has applied.

        Raises:
            BuildAborted: There is no room for it.
        """
        try:
            self._journal.append(command)
        except OSError as error:
            raise BuildAborted(f"an update could not be kept for the new generation: {error}") from error

    def advance(self) -> Shard | None:
        """Do the next piece of work; return the new generation, open, once it has caught up.

        Raises:
            BuildAborted: It cannot be made; call :meth:`abort`.
        """
        try:
            if self._copying is not None:
                self._begin_optimising(self._copying)
            elif self._optimiser is not None:
                self._begin_replaying(self._optimiser)
            elif self._shard is not None and self._caught_up(self._shard):
                return self._shard
        except EnginePanicked:
            raise
        except (PenstockError, OSError) as error:
            raise BuildAborted(str(error)) from error
        return None

    def abort(self) -> None:
        """Stop the build and remove its files."""
        if self._copying is not None:
            self._copying.close()
        if self._optimiser is not None:
            self._optimiser.kill()
        if self._shard is not None:
            with suppress(PenstockError):
                self._shard.close()
        self._journal.close()
        manifest.remove_path(self._draft)
        manifest.remove_path(self._target)

    def close(self) -> None:
        """End the build after the swap: remove its journal."""
        self._journal.close()

    def _begin_optimising(self, copying: DirectoryCopy) -> None:
        copying.close()
        self._copying = None
        if copying.error is not None:
            raise BuildAborted(f"the copy failed: {copying.error}") from copying.error
        self._on_step("copied")
        self._optimiser = Optimiser(self._draft)
        self.stage = BuildStage.OPTIMISING
        self._on_step("optimising")

    def _begin_replaying(self, optimiser: Optimiser) -> None:
        reason = optimiser.wait()
        self._optimiser = None
        if reason:
            raise BuildAborted(reason)
        self._on_step("optimised")
        self._draft.replace(self._target)
        # The directory entry must be durable before the manifest may name it.
        manifest.fsync_directory(self._target.parent)
        self._on_step("placed")
        self._shard = Shard.load(self._target)
        self.indexed_points = self._shard.points_estimate()
        self.stage = BuildStage.REPLAYING
        self._on_step("loaded")

    def _caught_up(self, fresh: Shard) -> bool:
        """Replay a slice; return whether nothing is left and everything is durable."""
        until_s = time.monotonic() + REPLAY_SLICE_S
        while (command := self._journal.pop()) is not None:
            self._on_step("replaying")
            _repeat(fresh, command)
            if time.monotonic() >= until_s:
                return False
        fresh.flush()
        self._on_step("replayed")
        return True


def _repeat(shard: Shard, command: Update) -> None:
    """Apply an update once more; one that was refused before is refused again."""
    try:
        engine.apply_update(shard, command)
    except (Invalid, Unavailable) as error:
        if error.code != "write_conflict":
            raise
