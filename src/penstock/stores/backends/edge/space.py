"""Disk space: free bytes of a disk, and bytes that a directory takes up."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from penstock.kernel.errors import Unavailable
from penstock.stores.directory_watch import WRITE_FREE_BYTES_MIN

#: Unit of ``st_blocks``.
BLOCK_BYTES: Final = 512


def free_bytes(directory: Path) -> int:
    """Return the free bytes of the disk on which a directory lies."""
    return shutil.disk_usage(directory).free


def is_disk_full(directory: Path) -> bool:
    """Return whether a disk is all but full; one that cannot be asked is not."""
    try:
        return free_bytes(directory) < WRITE_FREE_BYTES_MIN
    except OSError:
        return False


def check_write_space(directory: Path) -> None:
    """Refuse to write where the disk is all but full.

    Raises:
        Unavailable: The disk is all but full (``disk_full``).
    """
    if free_bytes(directory) < WRITE_FREE_BYTES_MIN:
        raise Unavailable(
            f"the disk of the data directory has less than {WRITE_FREE_BYTES_MIN >> 20} MiB left;"
            " nothing is written until there is room",
            dependency="store",
            code="disk_full",
        )


def disk_bytes(directory: Path) -> int:
    """Return the bytes allocated below a directory (its sparse files count what they use)."""
    total = 0
    for parent, _, files in os.walk(directory):
        for name in files:
            try:
                total += (Path(parent) / name).lstat().st_blocks * BLOCK_BYTES
            except FileNotFoundError:
                continue
    return total
