"""Number of cores that this process may use, from its CPU affinity and its cgroup quota."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The environment in which libraries of linear algebra compute in the thread that asks. Ours are small products: spread
#: over every core they make the other threads spin, beside models that have a thread for each core already. A search
#: took ten times the processor time.
SINGLE_THREADED_ENV: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def available_cores(root: Path = Path("/")) -> int:
    """Return the cores that this process may use, at least 1.

    The smaller of its affinity and its control group's processor quota, rounded up: with a quota of 1.5
    cores two threads are busy three quarters of the time, with one thread a third of the quota is lost.

    Args:
        root: Directory that holds ``proc`` and ``sys``.
    """
    return max(1, math.ceil(min(_affinity(), cpu_quota(root))))


def cpu_quota(root: Path) -> float:
    """Return the tightest processor quota of this process's control group and its ancestors, in cores.

    Version 2 (``cpu.max``) and version 1 (``cpu.cfs_quota_us``) are read; infinity where there is none.
    """
    return min(_quotas(root), default=math.inf)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            top = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            top = root / "sys/fs/cgroup" / controllers
            top = top if top.is_dir() else root / "sys/fs/cgroup/cpu"
        else:
            continue
        group = top / path.lstrip("/")
        # In a container the path is often the host's, and the group's files stand at the top.
        for place in dict.fromkeys((group, *group.parents, top)):
            if place.is_relative_to(top):
                yield _quota(place)


def _quota(group: Path) -> float:
    """Return one group's quota in cores; ``max`` and ``-1`` mean that it has none."""
    limit, _, period = _text(group / "cpu.max").strip().partition(" ")
    if not limit:
        limit = _text(group / "cpu.cfs_quota_us").strip()
        period = _text(group / "cpu.cfs_period_us").strip()
    if not (limit.isdecimal() and period.isdecimal() and int(limit) and int(period)):
        return math.inf
    return int(limit) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""
