"""A git repository as its own files describe it: where it is, its name, its commit. No program is run for that."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
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
        url = config_value(self.common_dir / "config", 'remote"origin"', "url") or ""
        return url.rstrip("/").replace(":", "/").rpartition("/")[2].removesuffix(".git")

    def global_excludes(self, environ: Mapping[str, str] = os.environ) -> Path | None:
        """Return the file of patterns that git ignores in every repository (``core.excludesFile``), if it names one."""
        home = Path(environ.get("HOME") or "/")
        user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "git"
        files = [self.common_dir / "config"]
        files += [Path(environ["GIT_CONFIG_GLOBAL"])] if "GIT_CONFIG_GLOBAL" in environ else [home / ".gitconfig"]
        files += [] if "GIT_CONFIG_GLOBAL" in environ else [user / "config"]
        files += [] if environ.get("GIT_CONFIG_NOSYSTEM") else [Path("/etc/gitconfig")]
        for file in files:
            if (value := config_value(file, "core", "excludesfile")) is not None:
                expanded = home / value[2:] if value.startswith("~/") else self.work_tree / value
                return expanded if value and "\0" not in value else None
        return user / "ignore"


def open_repository(work_tree: Path) -> GitRepository | None:
    """Return the repository of a directory that holds ``.git``; ``None`` where that is none."""
    git_dir = work_tree / ".git"
    if not git_dir.is_dir():
        text = read_bounded(git_dir, SMALL_FILE_BYTES_MAX)
        git_dir = _absolute(work_tree, text.removeprefix("gitdir:").strip())
        if not text.startswith("gitdir:") or not (git_dir / "HEAD").is_file():
            return None
    common = read_bounded(git_dir / "commondir", SMALL_FILE_BYTES_MAX).strip()
    return GitRepository(work_tree, git_dir, _absolute(git_dir, common) if common else git_dir)


def config_value(file: Path, section: str, key: str) -> str | None:
    """Return a value of a configuration file of git's, the last one; ``None`` where it has none.

    Files that it includes are not read.

    Args:
        file: The file.
        section: Its section in lower case and without spaces, such as ``core`` or ``remote"origin"``.
        key: The key in lower case.
    """
    found, inside = None, False
    for line in read_bounded(file, CONFIG_BYTES_MAX).split("\n"):
        name, given, value = line.partition("=")
        if name.lstrip().startswith("["):
            inside = "".join(name.split()).lower() == f"[{section}]"
        elif inside and given and name.strip().lower() == key:
            value = value.strip()
            # A quoted value ends with its quote, another one with a comment.
            quoted = value.startswith('"')
            found = value[1:].partition('"')[0] if quoted else value.partition(" #")[0].partition(" ;")[0].rstrip()
    return found


def read_bounded(path: Path, bytes_max: int) -> str:
    """Return a file's text as :func:`read_bytes` returns its bytes; those that are no UTF-8 are lone surrogates."""
    return read_bytes(path, bytes_max).decode(errors="surrogateescape")


def read_bytes(path: Path, bytes_max: int) -> bytes:
    """Return a file's bytes, none where there is no such plain file or it is larger than ``bytes_max``."""
    try:
        # Non-blocking, so that a FIFO cannot hang the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > bytes_max:
                return b""
            return file.read(bytes_max)
    except (OSError, ValueError):
        return b""


def _absolute(base: Path, path: str) -> Path:
    """Return a path of git's, relative to ``base``, without links and dots."""
    return Path(os.path.realpath(base / path)) if "\0" not in path else base
