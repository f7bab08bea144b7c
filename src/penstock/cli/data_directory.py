"""Choice of the data directory, by what is said, the current directory and the user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LOCAL_DATA_DIR: Final = ".penstock"
VARIABLE: Final = "PENSTOCK_DATA_DIR"


def choose_data_dir(wanted: str, environ: Mapping[str, str], cwd: Path, home: Path) -> Path:
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
    if (cwd / LOCAL_DATA_DIR).is_dir():
        return cwd / LOCAL_DATA_DIR
    # The XDG base directory specification: a relative path there is to be ignored.
    shared = Path(environ.get("XDG_DATA_HOME", ""))
    return (shared if shared.is_absolute() else home / ".local" / "share") / "penstock"


def _expanded(wanted: str, home: Path) -> Path:
    if wanted == "~" or wanted.startswith("~/"):
        return home / wanted[2:]
    return Path(wanted)


def home_directory() -> Path:
    """Return the user's home directory; ``~`` where there is none."""
    return Path(os.path.expanduser("~"))  # noqa: PTH111 - unlike Path.home it does not raise without one


def default_data_dir(wanted: str) -> Path:
    """Return the data directory for a command that reads no settings file.

    Args:
        wanted: What its flag says; empty for nothing.
    """
    said = wanted or os.environ.get(VARIABLE, "")
    return choose_data_dir(said, os.environ, Path.cwd(), home_directory())
