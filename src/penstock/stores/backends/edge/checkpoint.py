"""Checkpoint of a closed collection: its counts and files, for listing it unopened and for detecting lost files.

``closed.json`` is written once the engine has let go of the files and removed before it opens them again. While it is
there the files are known: one that is missing or shorter has been lost. The engine, which would recreate it empty, must
not open the collection then.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel.errors import DECODE_ERRORS
from penstock.kernel.files import read_regular
from penstock.stores.backends.edge.disk import BLOCK_BYTES

CHECKPOINT_FILE: Final = "closed.json"


class Checkpoint(msgspec.Struct, frozen=True):
    """A closed collection.

    Attributes:
        generation: The generation that the rest is about.
        documents: Documents.
        chunks: Points.
        disk_bytes: What its files take up.
        changed: Points replaced or deleted since the generation was made, about.
        files: Size of each file, by its path in the generation's directory.
        stamp: Digest of paths, sizes and times: while it is the same nothing was written.
        pending: Points without a dense vector.
    """

    generation: str
    documents: int
    chunks: int
    disk_bytes: int
    changed: int
    files: dict[str, int]
    stamp: str
    pending: int = 0


@dataclass(slots=True)
class FileInventory:
    """The files below a directory.

    Attributes:
        files: Size of each, by its path.
        disk_bytes: What they take up.
        fingerprint: As in :class:`Checkpoint`.
        foreign_file: A file of another user, empty if there is none.
    """

    files: dict[str, int] = field(default_factory=dict)
    disk_bytes: int = 0
    fingerprint: str = ""
    foreign_file: str = ""

    def missing_file(self, checkpoint: Checkpoint) -> str:
        """Return which file of a checkpoint is missing or shorter, in words; empty if none is."""
        for path, size in checkpoint.files.items():
            there = self.files.get(path)
            if there is None:
                return f"{path} is missing"
            if there < size:
                return f"{path} has {there} bytes, not {size}"
        return ""


def scan_files(directory: Path) -> FileInventory:
    """Look at every file below a directory, without reading any.

    Raises:
        OSError: It is not there, one of its directories may not be read, or it holds a pipe or a device, which the
            engine would wait for or read without end.
    """
    found, facts = FileInventory(), []
    waiting, me = [(str(directory), "")], os.geteuid()
    while waiting:
        place, prefix = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, f"{path}/"))
                    continue
                if not entry.is_file():
                    raise OSError(errno.EINVAL, "this is no plain file", entry.path)
                stat = entry.stat(follow_symlinks=False)
                found.files[path] = stat.st_size
                found.disk_bytes += stat.st_blocks * BLOCK_BYTES
                facts.append((path, stat.st_size, stat.st_mtime_ns))
                if stat.st_uid != me:
                    found.foreign_file = entry.path
    found.fingerprint = hashlib.blake2b(
        repr(sorted(facts)).encode("utf-8", "surrogateescape"), digest_size=16
    ).hexdigest()
    return found


def read_checkpoint(home: Path, generation: str) -> Checkpoint | None:
    """Return the checkpoint of a collection's directory; ``None`` if there is none of this generation."""
    try:
        found = msgspec.json.decode(read_regular(home / CHECKPOINT_FILE), type=Checkpoint)
    except (OSError, *DECODE_ERRORS):
        # Without a checkpoint the collection is opened and counted, so a torn file loses nothing.
        return None
    return found if found.generation == generation else None


def write_checkpoint(home: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OSError: It could not be written; there is none then.
    """
    draft = home / f".{CHECKPOINT_FILE}"
    try:
        # Not synced: without it, or with a torn one, the collection is opened and counted.
        draft.write_bytes(msgspec.json.encode(checkpoint))
        draft.replace(home / CHECKPOINT_FILE)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def remove_checkpoint(home: Path) -> None:
    """Remove the checkpoint before the files may change.

    Raises:
        OSError: It could not be removed.
    """
    (home / CHECKPOINT_FILE).unlink(missing_ok=True)
