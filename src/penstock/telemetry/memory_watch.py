"""Memory watch: usage of the process tree, its limit, and the shrinking of caches when it comes close (D5, D6)."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from penstock.kernel import allocator
from penstock.kernel.context import Clock
from penstock.policies.levels import Level, LevelSettings, LevelTracker
from penstock.policies.reclaim import ReclaimPolicy

log = logging.getLogger(__name__)

#: The share of the caches that is kept each time memory is found high, and found critical.
KEPT_HIGH: Final = 0.5
KEPT_CRITICAL: Final = 0.0

#: Processes of the tree that are looked at; beyond them the sum is too low.
PROCESSES_MAX: Final = 1_000

_KIB: Final = 1024


class Shrinkable(Protocol):
    """A cache that can give memory back."""

    def shrink(self, share: float) -> None:
        """Keep at most ``share`` (0 to 1) of what is held now."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """Memory limit of the process tree.

    Attributes:
        bytes: The limit.
        source: Where it comes from: ``cgroup``, ``setting`` or ``machine``.
        group: The control group's directory, if it is the group that is limited; its usage counts then.
    """

    bytes: int
    source: str
    group: Path | None = None


def find_memory_limit(setting: int, root: Path = Path("/")) -> MemoryLimit:
    """Return the tightest of the control group's limit, the setting, and the machine's memory.

    The group's own limit and those of its ancestors count, in version 1 and version 2 of control groups. A group
    that may use more than the machine has is not limited.

    Args:
        setting: ``PENSTOCK_MEMORY_LIMIT`` in bytes, 0 for none.
        root: Where ``proc`` and ``sys`` are.
    """
    machine = _field_bytes(root / "proc/meminfo", "MemTotal") or 2**62
    limits = [MemoryLimit(machine, "machine")]
    limits += [MemoryLimit(size, "cgroup", group) for size, group in _group_limits(root)]
    if setting:
        limits.append(MemoryLimit(setting, "setting"))
    # Of two the same the later one: what was set is named rather than what happens to be equal.
    return min(reversed(limits), key=lambda limit: limit.bytes)


def used_bytes(limit: MemoryLimit, root: Path = Path("/")) -> int:
    """Return the memory that counts against the limit, 0 where the system does not report it.

    Of a control group: its usage without file pages that can be dropped. Else: the anonymous and shared
    memory of this process and its descendants; mapped files are the machine's to drop.
    """
    if limit.group is not None:
        return _group_used(limit.group)
    return sum(_process_used(root, pid) for pid in _tree(root, os.getpid()))


class MemoryReleaser:
    """Returns freed memory to the system when its policy says so, one run at a time.

    Bounds: one task.
    """

    def __init__(
        self,
        release: Callable[[], Awaitable[None]],
        clock: Clock,
        cpu_s: Callable[[], float] = time.process_time,
        used: Callable[[], int] = allocator.resident_bytes,
    ) -> None:
        self._used = used
        self._release = release
        self._clock = clock
        self._cpu_s = cpu_s
        self._policy = ReclaimPolicy()
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Wait for a running release to end."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def release(self, *, short: bool = False) -> bool:
        """Begin a release if it is due, or, as memory is short, unless one was just done; return whether it began."""
        if self._task is not None and not self._task.done():
            return False
        if not self._policy.due(self._used(), self._cpu_s(), self._clock.now(), short=short):
            return False
        self._task = asyncio.create_task(self._run(), name="memory return")
        return True

    async def _run(self) -> None:
        try:
            await self._release()
        except Exception:
            log.exception("freed memory could not be given back")


class MemoryWatch:
    """Polls memory usage, and shrinks the caches while it is high (D5).

    Each poll at high memory halves the caches once more, and each poll at critical memory empties them. A cache that
    keeps filling therefore stays small as long as memory is short.

    Bounds: a handful of numbers.

    Attributes:
        limit: The memory limit.
        used: Usage at the last poll, in bytes.
        release_memory: Called first while memory is short. If it returns true, freed memory is being returned, and
            the caches are left alone until the next poll, since that may be enough.
    """

    def __init__(
        self,
        limit: MemoryLimit,
        caches: tuple[Shrinkable, ...] = (),
        used: Callable[[MemoryLimit], int] = used_bytes,
    ) -> None:
        self.limit = limit
        self.used = 0
        self.release_memory: Callable[[], bool] = lambda: False
        self._caches = caches
        self._read_used = used
        self._levels = LevelTracker(LevelSettings())

    def __repr__(self) -> str:
        return f"<MemoryWatch {self.used >> 20}/{self.limit.bytes >> 20} MiB {self.level.name.lower()}>"

    @property
    def level(self) -> Level:
        """Level of memory usage at the last poll."""
        return self._levels.level

    def poll(self) -> None:
        """Read the usage, log levels crossed, shrink the caches while it is high."""
        self.used = self._read_used(self.limit)
        change = self._levels.observe(self.used / self.limit.bytes)
        facts = {"used_mib": self.used >> 20, "limit_mib": self.limit.bytes >> 20, "limit_from": self.limit.source}
        if change is not None and change.enters(Level.HIGH):
            log.warning("memory is high; caches shrink", extra=facts)
        if change is not None and change.enters(Level.CRITICAL):
            log.warning("memory is short; large requests are refused", extra=facts)
        if change is not None and change.leaves(Level.HIGH):
            log.info("memory is calm again", extra=facts)
        if self.level is not Level.CALM and not self.release_memory():
            for cache in self._caches:
                cache.shrink(KEPT_CRITICAL if self.level is Level.CRITICAL else KEPT_HIGH)


def _group_limits(root: Path) -> Iterator[tuple[int, Path]]:
    """Yield the limits of this process's control group and its ancestors."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        elif not controllers:
            top, name = root / "sys/fs/cgroup", "memory.max"
        else:
            continue
        group = top / path.lstrip("/")
        # In a container the path is often the host's, and the group's files stand at the top.
        for place in dict.fromkeys((group, *group.parents, top)):
            if not place.is_relative_to(top):
                continue
            size = _number(place / name)
            if size is not None:
                yield size, place


def _group_used(group: Path) -> int:
    """Return a control group's usage without inactive file pages."""
    second = group / "memory.current"
    usage = _number(second if second.exists() else group / "memory.usage_in_bytes") or 0
    fields = dict(line.split(maxsplit=1) for line in _text(group / "memory.stat").splitlines() if " " in line)
    droppable = int(fields.get("total_inactive_file", fields.get("inactive_file", "0")))
    return max(0, usage - droppable)


def _tree(root: Path, pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        if len(found) >= PROCESSES_MAX:
            break
        with suppress(OSError):
            for task in os.listdir(root / f"proc/{parent}/task"):  # noqa: PTH208 - names only, no paths made of them
                found += map(int, _text(root / f"proc/{parent}/task/{task}/children").split())
    return found


def _process_used(root: Path, pid: int) -> int:
    status = root / f"proc/{pid}/status"
    return sum(_field_bytes(status, name) for name in ("RssAnon", "RssShmem"))


def _field_bytes(path: Path, name: str) -> int:
    """Return a field of ``/proc`` given in kB, as bytes; 0 if it is not there."""
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * _KIB
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
