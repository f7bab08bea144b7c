"""What processes use: processor time, memory, disk; by the role that each plays. Linux only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: What tells a child process from another, in its command line.
ROLES: Final = {"edge.process": "store", "edge.optimiser": "optimiser", "multiprocessing": "chunkers"}
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


def by_role(front: int, what: Callable[[int], float]) -> dict[str, float]:
    """Return something of a server's processes, summed by role.

    Args:
        front: The process that started the others.
        what: Takes a process's id.
    """
    found = {"front": what(front)}
    for child in children(front):
        with contextlib.suppress(OSError):
            role = role_of(child)
            found[role] = found.get(role, 0.0) + what(child)
    return found


def children(pid: int) -> list[int]:
    """Return a process's children and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *children(child)]
    return found


def role_of(pid: int) -> str:
    """Return what a process is for."""
    line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return next((role for mark, role in ROLES.items() if mark in line), "other")


def cpu_s(pid: int) -> float:
    """Return user and system time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def memory_mb(pid: int) -> float:
    """Return a process's memory in megabytes, shared pages in parts (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return 0.0


def disk_mb(directory: Path) -> float:
    """Return what the files below a directory take up, in megabytes."""
    blocks = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            blocks += path.lstat().st_blocks
    return blocks * 512 / 1e6
