"""The cache directory of prepared models: one writer at a time, whole directories or none."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock.kernel.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = "manifest.json"
TEMPORARY = ".preparing-"
"""Prefix of directories being written."""

LOCK_WAIT_S_MAX = 120.0
"""How long a process waits for another that prepares; a preparation takes seconds."""

_LOCK_POLL_S = 0.05
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def lock_directory(directory: Path, wait_s_max: float = LOCK_WAIT_S_MAX) -> Iterator[None]:
    """Hold the directory's lock; the kernel frees it when the process dies.

    Bounds: waits ``wait_s_max`` seconds (monotonic clock) at most.

    Raises:
        Unavailable: Another process held the lock all that time.
    """
    give_up = time.monotonic() + wait_s_max
    with (directory / ".lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise Unavailable(
                        f"another process has been preparing a model in {directory} for {wait_s_max:.0f} s",
                        dependency="embed model",
                        code="model_locked",
                    ) from None
                time.sleep(_LOCK_POLL_S)
        yield


def remove_unfinished(directory: Path) -> None:
    """Delete leftovers of interrupted preparations; call with the lock held."""
    for path in directory.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def publish(temporary: Path, final: Path) -> None:
    """Make a finished directory durable and visible under its final name, replacing a damaged one.

    Raises:
        OSError: It cannot be written.
    """
    for path in [*temporary.iterdir(), temporary]:
        _sync(path)
    if final.exists():
        # A rename cannot replace a full directory; aside first: a crash leaves it
        # absent, never mixed.
        aside = temporary.with_name(temporary.name + ".old")
        final.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    temporary.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def translate_os_errors(directory: Path) -> Iterator[None]:
    """Turn the operating system's errors into ``Unavailable`` that names the directory."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        wrong = "is full" if full else f"cannot be used ({error})"
        cure = "free some space" if full else "make it readable and writable"
        raise Unavailable(
            f"the model directory {directory} {wrong}; {cure}, or set another data directory",
            dependency="embed model",
            code="disk_full" if full else "model_directory",
        ) from error
