"""Tuning of glibc's allocator and of the garbage collector. The former is a no-op on other C libraries."""

from __future__ import annotations

import ctypes
import gc
import os
from functools import cache
from pathlib import Path
from typing import Any, Final

#: Allocations from this size on are mapped by themselves, and so unmapped when they are freed. glibc raises the bound
#: after the first large one that is freed, up to 32 MiB, unless it is set; request bodies then lie in the heap and keep
#: what is below them.
MAPPED_BYTES_MIN: Final = 1 << 20

#: Free bytes at the heap's end from which on they go back by themselves.
FREE_BYTES_MAX: Final = 1 << 20

_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")

# Parameters of mallopt(3).
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3


@cache
def _library() -> Any:
    return ctypes.CDLL(None)


def configure_malloc() -> None:
    """Make the allocator return large allocations when they are freed. Call it when a process starts."""
    mallopt = getattr(_library(), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
        mallopt(_TRIM_THRESHOLD, FREE_BYTES_MAX)


def trim_heap() -> None:
    """Give back all free pages. Takes 0.2 to 25 ms, without the interpreter lock."""
    malloc_trim = getattr(_library(), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def resident_bytes() -> int:
    """Return the memory that this process takes up; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def freeze_startup_objects() -> None:
    """Collect once, then freeze all existing objects. Call it when a process has started.

    A full collection scans everything, modules and models included, and blocks the loop: 25 to 35 ms every few seconds
    under load. After the freeze it scans only objects made since.
    """
    gc.collect()
    gc.freeze()
