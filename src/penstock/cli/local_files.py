"""Files on disk as an index run sees them: found, skipped, hashed, encoded. Blocking, so it runs in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from penstock.cli.index_planning import UNREADABLE_NAME, IndexableFile, IndexRoot, indexable_file
from penstock.cli.index_stats import FileFailure
from penstock.indexing.document_records import document_hash
from penstock.indexing.file_reader import FileChanged, read_text
from penstock.indexing.language import language_of
from penstock.indexing.walk import FoundFile, WalkSettings, project_root, refuse_broad_root, walk
from penstock.kernel.errors import Invalid

FIRST_LINE_CHARS: Final = 200


def resolve_roots(paths: Sequence[Path], known_roots: Sequence[Path], *, force: bool) -> list[IndexRoot]:
    """Return the named paths, resolved, with the directories that shown paths are relative to.

    Raises:
        Invalid: A path is absent (``path_not_found``), or too broad and not forced (``root_too_broad``).
    """
    roots = []
    for path in paths:
        if not os.path.lexists(path):
            raise Invalid(f"{path}: no such file or directory", field="path", code="path_not_found")
        if not force:
            refuse_broad_root(path)
        roots.append(IndexRoot(path.resolve(), project_root(path, known_roots)))
    return roots


def find_files(
    roots: Sequence[IndexRoot], file_bytes_max: int, on_skip: Callable[[Path, str], None] = lambda _path, _reason: None
) -> Iterator[IndexableFile]:
    """Yield the files below the roots, one by one: however many there are, none is kept.

    Args:
        roots: From :func:`resolve_roots`.
        file_bytes_max: Larger files are skipped.
        on_skip: Called with each skipped file or directory and the reason.
    """
    for entry in walk([root.path for root in roots], WalkSettings(file_bytes_max=file_bytes_max)):
        if not isinstance(entry, FoundFile):
            on_skip(entry.path, str(entry.reason))
        elif (one := indexable_file(entry.path, entry.size, roots)) is not None:
            yield one
        else:
            on_skip(entry.path, UNREADABLE_NAME)


def hash_file(one: IndexableFile, file_bytes_max: int) -> str:
    """Return a file's content hash; empty for one that cannot be read: it is tried again later."""
    try:
        text, language = _read(one, file_bytes_max)
    except (OSError, FileChanged, Invalid):
        return ""
    return document_hash(text, one.path, language, {})


def encode_document(one: IndexableFile, file_bytes_max: int, body_bytes_max: int) -> bytes | FileFailure:
    """Return the document of a file as JSON, or why there is none."""
    shown = one.id
    try:
        text, language = _read(one, file_bytes_max)
    except (FileChanged, Invalid) as error:
        return FileFailure(shown, error.code, error.detail)
    except FileNotFoundError:
        return FileFailure(shown, "file_vanished", f"{shown} was removed while it was to be read")
    except OSError as error:
        return FileFailure(shown, "file_unreadable", f"{shown} cannot be read: {error.strerror or error}")
    document = msgspec.json.encode({"id": one.id, "text": text, "path": one.path, "language": language})
    if len(document) > body_bytes_max:
        message = f"{shown} takes {len(document)} bytes as a request, more than the {body_bytes_max} allowed"
        return FileFailure(shown, "too_large", message)
    return document


def _read(one: IndexableFile, file_bytes_max: int) -> tuple[str, str]:
    text = read_text(one.file, file_bytes_max).text
    first_line = text[:FIRST_LINE_CHARS].partition("\n")[0]
    return text, language_of(one.file, first_line)
