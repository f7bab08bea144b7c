"""The next generation of a collection in the making, beside the one that serves (DESIGN §2).

::

    copying      the shard, flushed, is copied; its updates wait, its searches do not
    optimising   a process of its own builds segments and graphs in the copy; updates are journalled
    replaying    the result is open; it gets the journalled updates, a slice at a time
    done         it is in step with the one that serves, and flushed: the manifest may name it

Until then nothing but the collection's first generation counts, so it may be given up at any time.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from penstock.kernel.errors import Broken, Invalid, PenstockError, Unavailable
from penstock.stores.backends.edge import manifest, updates
from penstock.stores.backends.edge.copying import Copying
from penstock.stores.backends.edge.engine import Panicked, Shard
from penstock.stores.backends.edge.journal import Journal
from penstock.stores.backends.edge.optimiser import Optimiser
from penstock.stores.backends.edge.updates import Update

#: Replaying goes on for so long at once; then those who wait are served.
SLICE_S: Final = 0.01

Step = Callable[[str], None]

#: Every place at which a crash is tried; see :data:`Step`.
STEPS: Final = (
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


class Stage(enum.StrEnum):
    """How far a generation in the making is."""

    COPYING = "copying"
    OPTIMISING = "optimising"
    REPLAYING = "replaying"


class GivenUp(Exception):
    """The generation cannot be made; the one that serves goes on."""


def unwatched(_: str) -> None:
    """Pass a step and do nothing."""


class Renewal:
    """One attempt at a collection's next generation.

    Args:
        home: The collection's directory.
        name: The generation's name.
        shard: The shard that serves, open; it is flushed.
        source: Its directory.
        step: Called at each of ``STEPS``.

    Attributes:
        stage: How far it is.
        points: How many points it has indexed, once it is open; those replayed are not.

    Bounds: that of :class:`Journal`; a second copy of the collection on the disk.

    Raises:
        OSError: There is no room to begin.
    """

    def __init__(self, home: Path, name: str, shard: Shard, source: Path, step: Step = unwatched) -> None:
        self.stage = Stage.COPYING
        self.points = 0
        self._step = step
        self._place = home / name
        # An optimiser whose parent was killed may outlive it for a moment: it must not meet its successor.
        self._draft = home / f".{name}-{os.getpid()}"
        self._fresh: Shard | None = None
        self._optimiser: Optimiser | None = None
        manifest.remove(self._draft)
        manifest.remove(self._place)
        shard.flush()
        step("flushed")
        self._journal = Journal(home / f".{name}-{os.getpid()}.journal")
        self._copying: Copying | None = Copying(source, self._draft)

    @property
    def holds_writes(self) -> bool:
        """Whether the collection's updates have to wait now."""
        return self.stage is Stage.COPYING

    @property
    def ready(self) -> bool:
        """Whether :meth:`advance` has something to do though no descriptor says so."""
        return self.stage is Stage.REPLAYING

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`advance` has something to do."""
        waited_for = self._copying or self._optimiser
        if waited_for is None:
            raise Broken("a generation that is replayed waits for nothing")
        return waited_for.fileno()

    def note(self, command: Update) -> None:
        """Write down an update that the serving shard has taken.

        Raises:
            GivenUp: There is no room for it.
        """
        try:
            self._journal.append(command)
        except OSError as error:
            raise GivenUp(f"an update could not be kept for the new generation: {error}") from error

    def advance(self) -> Shard | None:
        """Do the next piece of work; return the new generation, open, once it is in step.

        Raises:
            GivenUp: It cannot be made; call :meth:`give_up`.
        """
        try:
            if self._copying is not None:
                self._begin_optimising(self._copying)
            elif self._optimiser is not None:
                self._begin_replaying(self._optimiser)
            elif self._fresh is not None and self._caught_up(self._fresh):
                return self._fresh
        except Panicked:
            raise
        except (PenstockError, OSError) as error:
            raise GivenUp(str(error)) from error
        return None

    def give_up(self) -> None:
        """Stop, and remove what has been made of it."""
        if self._copying is not None:
            self._copying.close()
        if self._optimiser is not None:
            self._optimiser.kill()
        if self._fresh is not None:
            with suppress(PenstockError):
                self._fresh.close()
        self._journal.close()
        manifest.remove(self._draft)
        manifest.remove(self._place)

    def close(self) -> None:
        """End it after the swap: the journal is of no use any more."""
        self._journal.close()

    def _begin_optimising(self, copying: Copying) -> None:
        copying.close()
        self._copying = None
        if copying.error is not None:
            raise GivenUp(f"the copy failed: {copying.error}") from copying.error
        self._step("copied")
        self._optimiser = Optimiser(self._draft)
        self.stage = Stage.OPTIMISING
        self._step("optimising")

    def _begin_replaying(self, optimiser: Optimiser) -> None:
        reason = optimiser.ended()
        self._optimiser = None
        if reason:
            raise GivenUp(reason)
        self._step("optimised")
        self._draft.replace(self._place)
        manifest.sync(self._place.parent)
        self._step("placed")
        self._fresh = Shard.load(self._place)
        self.points = self._fresh.points()
        self.stage = Stage.REPLAYING
        self._step("loaded")

    def _caught_up(self, fresh: Shard) -> bool:
        """Replay a slice; return whether nothing is left and everything is durable."""
        until_s = time.monotonic() + SLICE_S
        while (command := self._journal.take()) is not None:
            self._step("replaying")
            _repeat(fresh, command)
            if time.monotonic() >= until_s:
                return False
        fresh.flush()
        self._step("replayed")
        return True


def _repeat(shard: Shard, command: Update) -> None:
    """Apply an update once more; where it was refused then, it is refused now."""
    try:
        updates.apply(shard, command)
    except (Invalid, Unavailable) as error:
        if error.code != "write_conflict":
            raise
