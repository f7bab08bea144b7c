"""A git repository as its own files describe it: where it is, its name, its commit. No program is run for that."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Bytes read of a small file of git's, of a configuration and of the packed references.
SMALL_FILE_BYTES_MAX: Final = 8_192
CONFIG_BYTES_MAX: Final = 1_000_000
REFS_BYTES_MAX: Final = 64_000_000

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF: Final = re.compile(r"ref: (refs/[^\0]+)")


@dataclass(frozen=True, slots=True)
class GitRepository:
    """A work tree with its repository.

    Attributes:
        work_tree: Directory that holds ``.git``.
        git_dir: The repository's directory; that of a linked work tree is its own.
        common_dir: The directory that all work trees of the repository share.
    """

    work_tree: Path
    git_dir: Path
    common_dir: Path

    @property
    def is_linked(self) -> bool:
        """True for a linked work tree (``git worktree add``)."""
        return self.git_dir != self.common_dir

    @property
    def name(self) -> str:
        """Name of the remote repository ``origin``, else of its own directory; a linked work tree adds its name."""
        directory = self.common_dir.parent if self.common_dir.name == ".git" else self.common_dir
        name = self._origin_name() or directory.name.removesuffix(".git")
        return f"{name}@{self.git_dir.name}" if self.is_linked else name

    @property
    def commit(self) -> str:
        """The commit that is checked out, hexadecimal; empty where there is none or it cannot be told."""
        head = read_bounded(self.git_dir / "HEAD", SMALL_FILE_BYTES_MAX).strip()
        found = _REF.fullmatch(head)
        if found is not None and ".." not in found[1]:
            head = self._resolved(found[1])
        return head if _COMMIT.fullmatch(head) else ""

    def _resolved(self, ref: str) -> str:
        for directory in (self.git_dir, self.common_dir):
            if found := read_bounded(directory / ref, SMALL_FILE_BYTES_MAX).strip():
                return found
        packed = read_bounded(self.common_dir / "packed-refs", REFS_BYTES_MAX)
        before, found, _ = f"\n{packed}".partition(f" {ref}\n")
        return before.rpartition("\n")[2] if found else ""

    def _origin_name(self) -> str:
        """Return the last part of the URL of ``origin``, empty where there is none."""
        inside = False
        for line in read_bounded(self.common_dir / "config", CONFIG_BYTES_MAX).split("\n"):
            key, given, url = line.partition("=")
            if key.lstrip().startswith("["):
                inside = "".join(key.split()).lower() == '[remote"origin"]'
            elif inside and given and key.strip().lower() == "url":
                return url.strip().strip('"').rstrip("/").replace(":", "/").rpartition("/")[2].removesuffix(".git")
        return ""


def open_repository(work_tree: Path) -> GitRepository | None:
    """Return the repository of a directory that holds ``.git``; ``None`` where that is none."""
    git = work_tree / ".git"
    if git.is_dir():
        git_dir = git
    else:
        text = read_bounded(git, SMALL_FILE_BYTES_MAX)
        if not text.startswith("gitdir:"):
            return None
        git_dir = _absolute(work_tree, text.removeprefix("gitdir:").strip())
    if not (git_dir / "HEAD").is_file():
        return None
    common = read_bounded(git_dir / "commondir", SMALL_FILE_BYTES_MAX).strip()
    return GitRepository(work_tree, git_dir, _absolute(git_dir, common) if common else git_dir)


def read_bounded(path: Path, bytes_max: int) -> str:
    """Return a file's text, empty where there is no such plain file or it is larger than ``bytes_max``.

    Bytes that are no UTF-8 are lone surrogates in it.
    """
    try:
        # Non-blocking, so that a FIFO cannot hang the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > bytes_max:
                return ""
            return file.read(bytes_max).decode(errors="surrogateescape")
    except (OSError, ValueError):
        return ""


def _absolute(base: Path, path: str) -> Path:
    """Return a path of git's, relative to ``base``, without links and dots."""
    return Path(os.path.realpath(base / path)) if "\0" not in path else base
