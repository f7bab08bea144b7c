"""Files of hits on this host: found below their source's root only, and compared with what was indexed of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from penstock.client import Hit
from penstock.kernel.errors import Invalid, PenstockError
from penstock.stores.sources import SEPARATOR

#: A larger file is not compared.
COMPARED_BYTES_MAX: Final = 16 << 20

#: Lines of these are JSON in the file and code in the index.
_NOTEBOOK: Final = ".ipynb"

#: What has become of a file that cannot be found, by the code of the error.
_BECAME: Final = {"file_not_found": "is gone", "outside_of_root": "has left its root"}

#: Directory on this host of each source by its name, empty for one that only other hosts feed.
Roots = Mapping[str, str]


def find_file(hit: Hit, roots: Roots) -> Path:
    """Return the file of a hit on this host, absolute and without links.

    Args:
        hit: The hit.
        roots: Those of its collection.

    Raises:
        Invalid: It is no file of a source (``no_local_file``), its source is not on this host (``source_elsewhere``),
            the file is not there (``file_not_found``), or it is outside of the root (``outside_of_root``).
    """
    source, _, path = hit.id.partition(SEPARATOR)
    if source not in roots or path != hit.path:
        detail = f"{hit.id!r} is no file of a source and cannot be opened; -C shows more of it"
        raise Invalid(detail, field="id", code="no_local_file")
    if not roots[source]:
        detail = f"{path!r} belongs to the source {source!r} of another host; `penstock sources` tells which"
        raise Invalid(detail, field="id", code="source_elsewhere")
    root, relative = Path(roots[source]), PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise _outside(path, root)
    try:
        file = (root / relative).resolve(strict=True)
        inside, regular = file.is_relative_to(root.resolve(strict=True)), file.is_file()
    except (OSError, RuntimeError, ValueError):
        # RuntimeError is a loop of links, ValueError a NUL in the name.
        inside, regular = True, False
    if not inside:
        raise _outside(path, root)
    if not regular:
        detail = f"there is no file {path!r} in {str(root)!r} any more; `penstock index` brings its source up to date"
        raise Invalid(detail, field="id", code="file_not_found")
    return file


def _outside(path: str, root: Path) -> Invalid:
    return Invalid(f"{path!r} leads out of {str(root)!r}, and is not opened", field="id", code="outside_of_root")


def file_or_none(hit: Hit, roots: Roots) -> Path | None:
    """Return the file of a hit on this host, ``None`` where there is none that may be opened."""
    try:
        return find_file(hit, roots)
    except Invalid:
        return None


def staleness(hit: Hit, roots: Roots) -> str:
    """Return what has become of a hit's lines in its file since they were indexed, empty for nothing that is known."""
    try:
        lines = read_lines(find_file(hit, roots))
    except Invalid as error:
        return _BECAME.get(error.code, "")
    if lines is None or not has_own_lines(hit):
        return ""
    return "" if is_as_indexed(hit, hit.text, lines[hit.start_line - 1 : hit.end_line]) else "has changed"


def is_as_indexed(hit: Hit, text: str, now: Sequence[str]) -> bool:
    """Return whether a text of a hit is what its lines hold now. An over-long line is in several hits."""
    return text in "".join(now) if hit.start_line == hit.end_line else text == "\n".join(now)


def has_own_lines(hit: Hit) -> bool:
    """Return whether a hit's lines are its file's: a notebook's are in JSON there, and some documents have no lines."""
    return hit.start_line > 0 and not hit.path.endswith(_NOTEBOOK)


def read_lines(file: Path) -> list[str] | None:
    """Return the lines of a file as they are indexed, ``None`` where it cannot be read as text.

    Bounds:
        ``COMPARED_BYTES_MAX`` bytes.
    """
    # Imported here, since most searches read no file.
    from penstock.indexing.file_reader import read_text  # noqa: PLC0415

    try:
        return read_text(file, COMPARED_BYTES_MAX).text.split("\n")
    except (OSError, PenstockError):
        return None


def present_line(lines: Sequence[str], number: int, text: str) -> int | None:
    """Return the number of the line that has a text now, the nearest to where it was, ``None`` where it is gone.

    Args:
        lines: The file's.
        number: Where it was, from 1.
        text: The line as it was indexed.
    """
    found = [at for at, line in enumerate(lines, 1) if line == text]
    return min(found, key=lambda at: (abs(at - number), at), default=None)


def file_url(file: Path, host: str) -> str:
    """Return the URL of a file on a host, every other character than plain ones in percent form."""
    from urllib.parse import quote  # noqa: PLC0415

    return f"file://{quote(host)}{quote(os.fsencode(file))}"
