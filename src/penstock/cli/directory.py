"""Which data directory a command works on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

LOCAL: Final = ".penstock"


def choose(wanted: str, environ: Mapping[str, str], cwd: Path, home: Path) -> Path:
    """Return the data directory.

    Args:
        wanted: What the flag, ``PENSTOCK_DATA_DIR`` or the file says (``store.data_dir``), empty for nothing.
        environ: The environment, for ``XDG_DATA_HOME``.
        cwd: The current directory.
        home: The user's home directory.

    Returns:
        An absolute path: the wanted one, else ``./.penstock`` where it is a directory, else the user's
        (``$XDG_DATA_HOME/penstock`` or ``~/.local/share/penstock``). It need not exist.
    """
    if wanted:
        return cwd / _expanded(wanted, home)
    if (cwd / LOCAL).is_dir():
        return cwd / LOCAL
    # The XDG base directory specification: a relative path there is to be ignored.
    shared = Path(environ.get("XDG_DATA_HOME", ""))
    return (shared if shared.is_absolute() else home / ".local" / "share") / "penstock"


def _expanded(wanted: str, home: Path) -> Path:
    if wanted == "~" or wanted.startswith("~/"):
        return home / wanted[2:]
    return Path(wanted)
