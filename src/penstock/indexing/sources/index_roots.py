"""Directories below which a server may index files by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from penstock.kernel.errors import Invalid

SETTING: Final = "INDEX_ROOTS"
_FIELD: Final = "concurrency.index.roots"
#: Tells of an open file where it is. Without it a link that takes a directory's place could not be told.
_OPEN_FILES: Final = Path("/proc/self/fd")


class IndexRoots:
    """Directories that an administrator has opened to the server's own indexing.

    Args:
        directories: Absolute paths, with commas between. They may be links: they are an administrator's.
        data_dir: The server's own directory, which is never indexed.

    Raises:
        Invalid: A path is not absolute, or this system cannot tell where an open file is.
    """

    def __init__(self, directories: str, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._directories = [Path(part.strip()) for part in directories.split(",") if part.strip()]
        for one in self._directories:
            if not one.is_absolute():
                raise Invalid(f"{SETTING}: {str(one)!r} is no absolute path", field=_FIELD)
        if self._directories and not _OPEN_FILES.is_dir():
            raise Invalid(f"{SETTING} needs {_OPEN_FILES}, which this system does not have", field=_FIELD)

    @property
    def enabled(self) -> bool:
        """True where the server may index anything by itself."""
        return bool(self._directories)

    def check(self, root: str) -> Path:
        """Return a directory without links, if the server may index it. Blocking.

        Where it may not, the answer is the same whether anything is there.

        Raises:
            Invalid: It may not (``root_not_allowed``), or there is no such directory (``root_not_found``).
        """
        if not self._directories:
            raise _refusal(f"this server indexes no files by itself; {SETTING} names the directories where it may")
        if not Path(root).is_absolute() or "\0" in root:
            raise _refusal(f"{_shown(root)} is no absolute path")
        real = _resolved(Path(root))
        if real is None or not any(real.is_relative_to(_resolved(one) or one) for one in self._directories):
            raise _refusal(f"{_shown(root)} is not below a directory that {SETTING} names")
        if real == Path(real.anchor):
            raise _refusal(f"{real} is too broad; name a directory below it")
        if real.is_relative_to(_resolved(self._data_dir) or self._data_dir):
            raise _refusal(f"{_shown(root)} is in the server's own data directory")
        if not os.path.isdir(real):  # noqa: PTH112 - Path.is_dir raises for names that are too long
            raise Invalid(f"there is no directory {_shown(root)}", field="root", code="root_not_found")
        return real


def _resolved(path: Path) -> Path | None:
    """Return a path without links; ``None`` where they lead in a circle, or the path is too long."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return None


def _shown(root: str) -> str:
    return repr(root) if len(root) <= os.pathconf("/", "PC_NAME_MAX") else f"{root[:100]!r}…"


def _refusal(detail: str) -> Invalid:
    return Invalid(detail, field="root", code="root_not_allowed")
