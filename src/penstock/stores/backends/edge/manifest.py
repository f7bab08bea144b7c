"""Manifest of a collection's directory: its layout, and the generation that holds its points.

``collection.json`` is replaced as a whole by one rename, so that it names the old generation or the new one, never
neither. Any generation that the manifest does not name is unfinished or stale.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from penstock.kernel.errors import DECODE_ERRORS, Invalid, Unavailable
from penstock.kernel.files import read_regular
from penstock.stores.backends.layout import check_name
from penstock.stores.data_model import TEXT_FOLDED, TEXT_PLAIN, CollectionInfo
from penstock.stores.sources import SOURCES_MAX, SourceRecord, check_source_name

MANIFEST_FILE: Final = "collection.json"

#: A longer file is no manifest. Some hundred bytes are the layout, the others the sources.
MANIFEST_BYTES_MAX: Final = 256 << 10

#: The largest numbers and the longest texts that a manifest may hold.
DIM_MAX: Final = 65_536
SHARDS_MAX: Final = 64
COUNT_MAX: Final = 1 << 60
TEXT_CHARACTERS_MAX: Final = 512

_BOUNDS: Final = {
    "dim": (1, DIM_MAX),
    "late": (0, DIM_MAX),
    "shards": (1, SHARDS_MAX),
    "text": (TEXT_PLAIN, TEXT_FOLDED),
}

#: The first generation's directory; later ones are ``g2``, ``g3``, ….
FIRST_GENERATION: Final = "shard"

_GENERATION: Final = re.compile(r"shard|g[0-9]{1,18}")

#: The newest layout of a collection's directory that this release knows.
FORMAT_VERSION: Final = 1

#: Beginnings of names of what is half made or half deleted among the collections.
DRAFT_PREFIXES: Final = (".new-", ".gone-", ".snapshot-", ".restore-")


class Manifest(CollectionInfo, frozen=True):
    """A collection's layout, and where its points are.

    Attributes:
        generation: Name of the directory that holds the points.
        format: Number of the directory's layout.
        sources: Records of its sources, by name.
    """

    generation: str = FIRST_GENERATION
    format: int = FORMAT_VERSION
    sources: Annotated[dict[str, SourceRecord], Meta(max_length=SOURCES_MAX)] = msgspec.field(default_factory=dict)

    @property
    def next_generation(self) -> str:
        """The next generation's name."""
        number = 1 if self.generation == FIRST_GENERATION else int(self.generation[1:])
        return f"g{number + 1}"


class InvalidManifest(ValueError):
    """The reason why a manifest cannot be used."""


def read_manifest(directory: Path, name: str = "") -> Manifest:
    """Read the manifest of a collection's directory.

    Raises:
        Unavailable: It cannot be read, or it is not that of the collection (``store_damaged``).
    """
    path = directory / MANIFEST_FILE
    try:
        return decode_manifest(read_regular(path, MANIFEST_BYTES_MAX), name or directory.name)
    except (OSError, InvalidManifest) as error:
        raise _damaged(path, str(error)) from error


def decode_manifest(data: bytes, name: str) -> Manifest:
    """Return the manifest of a collection of that name.

    It cannot lead to a path outside of the collection's directory: its name is ``name`` and one that a collection may
    have, its generation is a plain directory, its numbers are such as a collection can have.

    Raises:
        InvalidManifest: It cannot be used.
    """
    if len(data) > MANIFEST_BYTES_MAX:
        raise InvalidManifest(f"it is longer than {MANIFEST_BYTES_MAX} bytes")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except DECODE_ERRORS as error:
        raise InvalidManifest(str(error)) from error
    check_manifest(manifest)
    if manifest.name != name:
        raise InvalidManifest(f"it is the manifest of {manifest.name!r}, not of {name!r}")
    if manifest.format > FORMAT_VERSION:
        raise InvalidManifest(f"a newer release wrote it, in format {manifest.format}; this one knows {FORMAT_VERSION}")
    return manifest


def check_manifest(manifest: Manifest) -> None:
    """Refuse a manifest that no collection can have.

    Raises:
        InvalidManifest: It names another place, or its numbers or texts are out of bounds.
    """
    try:
        check_name(manifest.name)
    except Invalid as error:
        raise InvalidManifest(f"{manifest.name[:TEXT_CHARACTERS_MAX]!r} is no name: {error.detail}") from error
    if not _GENERATION.fullmatch(manifest.generation):
        raise InvalidManifest(f"{manifest.generation[:TEXT_CHARACTERS_MAX]!r} is no generation")
    for field, name in zip(manifest.__struct_encode_fields__, manifest.__struct_fields__, strict=True):
        value = getattr(manifest, name)
        least, most = _BOUNDS.get(field, (0, COUNT_MAX))
        if isinstance(value, int) and not least <= value <= most:
            raise InvalidManifest(f"{field} is {value}, and must be {least} to {most}")
        if isinstance(value, str) and not (len(value) <= TEXT_CHARACTERS_MAX and value.isprintable()):
            raise InvalidManifest(f"{field} is {value[:TEXT_CHARACTERS_MAX]!r}")
    for name, source in manifest.sources.items():
        try:
            check_source_name(name)
        except Invalid as error:
            raise InvalidManifest(f"{name[:TEXT_CHARACTERS_MAX]!r} is no source: {error.detail}") from error
        if name != source.name:
            raise InvalidManifest(f"the source {name!r} is recorded as {source.name!r}")


def with_source(manifest: Manifest, source: SourceRecord) -> Manifest:
    """Return the manifest with the record of a source.

    Raises:
        Invalid: There is no room for it (``too_many_sources``).
    """
    changed = msgspec.structs.replace(manifest, sources={**manifest.sources, source.name: source})
    if len(changed.sources) > SOURCES_MAX or len(_written(changed)) > MANIFEST_BYTES_MAX:
        raise Invalid(
            f"collection {manifest.name!r} has {len(manifest.sources)} sources and no room for more;"
            " forget one, or index into another collection",
            field="source",
            code="too_many_sources",
        )
    return changed


def without_source(manifest: Manifest, name: str) -> Manifest:
    """Return the manifest without the record of a source."""
    others = {other: source for other, source in manifest.sources.items() if other != name}
    return msgspec.structs.replace(manifest, sources=others)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace a directory's manifest by one rename: after a crash there is the old or the new one.

    Raises:
        OSError: It could not be written; the old one is still there.
    """
    draft = directory / f".{MANIFEST_FILE}"
    with draft.open("wb") as file:
        file.write(_written(manifest))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(directory / MANIFEST_FILE)
    fsync_directory(directory)


def _written(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest))


def fsync_directory(directory: Path) -> None:
    """Make the directory's entries durable."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(directory: Path) -> None:
    """Make everything on a directory's file system durable, at once: hundreds of files one by one take seconds.

    Raises:
        OSError: It could not be written.
    """
    fd = os.open(directory, os.O_RDONLY)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "syncfs"):
            os.sync()
        elif library.syncfs(fd):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    finally:
        os.close(fd)


def remove_stale_generations(directory: Path, manifest: Manifest) -> None:
    """Remove leftovers of other generations after a crash."""
    for entry in directory.iterdir():
        outlived = _GENERATION.fullmatch(entry.name) and entry.name != manifest.generation
        if entry.name.startswith(".") or outlived:
            remove_path(entry)


def is_collection_directory(directory: Path) -> bool:
    """Return whether a directory is a collection's, whole or damaged, and not something else that lies there."""
    if not directory.is_dir():
        return False
    return any(entry.name == MANIFEST_FILE or _GENERATION.fullmatch(entry.name) for entry in directory.iterdir())


def remove_path(path: Path) -> None:
    """Remove a file or a directory, whichever it is, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _damaged(path: Path, reason: str) -> Unavailable:
    return Unavailable(
        f"{path} is damaged: {reason}; restore it, or move {path.parent} away and index again",
        dependency="store",
        code="store_damaged",
    )
