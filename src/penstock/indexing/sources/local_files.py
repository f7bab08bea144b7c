"""Files on disk as an index run sees them: found, skipped, hashed, encoded. Blocking, so it runs in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from penstock.indexing import notebook
from penstock.indexing.document_records import document_hash
from penstock.indexing.encoding import UTF_8, DecodedText, UnreadableText
from penstock.indexing.exclusion import SkipReason
from penstock.indexing.file_reader import FileChanged, read_text
from penstock.indexing.inclusion import Inclusion
from penstock.indexing.language import NOTEBOOK, language_of
from penstock.indexing.walk import NOTEBOOK_SIZE_FACTOR, FoundFile, refuse_broad_root, walk
from penstock.kernel.errors import Invalid
from penstock.stores.sources import document_id

UNREADABLE_NAME: Final = "unreadable_name"
FIRST_LINE_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class IndexableFile:
    """A file that belongs in the collection.

    Attributes:
        id: The document's id: its source, a colon and its path.
        path: The path shown to people, relative to the source's root.
        size: Bytes when it was found.
        file: Absolute real path of the file, which was the id in earlier releases.
        source: Name of its source.
    """

    id: str
    path: str
    size: int
    file: str
    source: str


@dataclass(frozen=True, slots=True)
class IndexRoot:
    """A path to index: with the root of its source, which shown paths are relative to, and the source's name.

    Attributes:
        path: The path.
        project: The source's root.
        source: The source's name.
        include: Patterns that an earlier run has kept with the source, relative to its root.
    """

    path: Path
    project: Path
    source: str
    include: Sequence[str] = ()


def resolve_path(path: Path, *, force: bool) -> Path:
    """Return a named path, absolute and without links.

    Raises:
        Invalid: It is absent (``path_not_found``), or too broad and not forced (``root_too_broad``).
    """
    if not os.path.lexists(path):
        raise Invalid(f"{path}: no such file or directory", field="path", code="path_not_found")
    if not force:
        refuse_broad_root(path)
    return path.resolve()


def find_files(
    roots: Sequence[IndexRoot],
    file_bytes_max: int,
    on_skip: Callable[[Path, str], None] = lambda _path, _reason: None,
    include: Sequence[str] = (),
) -> Iterator[IndexableFile]:
    """Yield the files below the roots, one by one: however many there are, none is kept.

    Args:
        roots: What is indexed.
        file_bytes_max: Larger files are skipped.
        on_skip: Called with each skipped file or directory and the reason.
        include: Patterns of what is not skipped, relative to each path.
    """
    inclusions = [Inclusion(root.project, root.include, is_kept=True) for root in roots if root.include]
    inclusions += [Inclusion(root.path, include) for root in roots if include]
    for entry in walk([root.path for root in roots], file_bytes_max, inclusions):
        if not isinstance(entry, FoundFile):
            on_skip(entry.path, str(entry.reason))
        elif (one := indexable_file(entry.path, entry.size, roots)) is not None:
            yield one
        else:
            on_skip(entry.path, UNREADABLE_NAME)


def hash_file(one: IndexableFile, file_bytes_max: int) -> str:
    """Return a file's content hash; empty for one that cannot be read: it is tried again later."""
    try:
        read, language = _read(one, file_bytes_max)
    except (OSError, FileChanged, Invalid):
        return ""
    return document_hash(read.text, one.path, language, {})


def encode_document(
    one: IndexableFile,
    file_bytes_max: int,
    body_bytes_max: int,
    on_encoding: Callable[[str], None] = lambda _encoding: None,
    *,
    replaces_legacy: bool = False,
    find_duplicate: Callable[[str], str] = lambda _hash: "",
) -> bytes:
    """Return the document of a file as JSON.

    Args:
        one: The file.
        file_bytes_max: A larger file has none.
        body_bytes_max: Bytes of a request.
        on_encoding: Called with the encoding of a file that is not UTF-8.
        replaces_legacy: Whether it takes the place of a document whose id is the file's path.
        find_duplicate: Returns the id of a document with the given content hash, empty for none.

    Raises:
        UnreadableText: The file has no text to index.
        Invalid: There is none; the code says why.
        FileChanged: The file kept changing.
    """
    try:
        read, language = _read(one, file_bytes_max)
    except FileNotFoundError as error:
        raise Invalid(f"{one.file} was removed while it was to be read", code="file_vanished") from error
    except OSError as error:
        raise Invalid(f"{one.file} cannot be read: {error.strerror or error}", code="file_unreadable") from error
    fields = {"id": one.id, "text": read.text, "path": one.path, "language": language, "source": one.source}
    if replaces_legacy:
        fields["replaces"] = one.file
    if duplicate := find_duplicate(document_hash(read.text, one.path, language, {})):
        fields["same_as"] = duplicate
    document = msgspec.json.encode(fields)
    if len(document) > body_bytes_max:
        message = f"{one.file} takes {len(document)} bytes as a request, more than the {body_bytes_max} allowed"
        raise Invalid(message, code="too_large")
    if read.encoding != UTF_8:
        on_encoding(read.encoding)
    return document


def _read(one: IndexableFile, file_bytes_max: int) -> tuple[DecodedText, str]:
    """Return a file's text and language; of a notebook, the cells."""
    file = Path(one.file)
    if file.suffix == notebook.SUFFIX:
        return _read_notebook(file, file_bytes_max), NOTEBOOK
    read = read_text(file, file_bytes_max)
    return read, language_of(file, read.text[:FIRST_LINE_CHARS].partition("\n")[0])


def _read_notebook(file: Path, file_bytes_max: int) -> DecodedText:
    read = read_text(file, file_bytes_max * NOTEBOOK_SIZE_FACTOR)
    cells = notebook.condense(read.text)
    text = read.text if cells is None else cells
    if len(text) > file_bytes_max:
        raise UnreadableText(SkipReason.TOO_LARGE)
    return DecodedText(text, read.encoding)


def indexable_file(file: Path, size: int, roots: Sequence[IndexRoot]) -> IndexableFile | None:
    """Return the document that a found file becomes, ``None`` where its name is no Unicode text.

    Args:
        file: Absolute real path, below at least one of ``roots``.
        size: Its bytes.
        roots: What is indexed; the innermost decides which source the file belongs to.
    """
    name = str(file)
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    root = innermost_root(name, roots)
    if root is None:
        return None
    project = str(root.project)
    shown = Path(os.path.relpath(name, project) if is_below(name, project) else file.name).as_posix()
    return IndexableFile(document_id(root.source, shown), shown, size, name, root.source)


def innermost_root(name: str, roots: Sequence[IndexRoot]) -> IndexRoot | None:
    """Return the innermost of the roots that an absolute path lies in, if there is one."""
    around = [root for root in roots if is_below(name, str(root.path))]
    return max(around, key=lambda root: len(str(root.path)), default=None)


def project_of(id_: str, path: str) -> str | None:
    """Return the directory that a listed document's path is relative to: its id without its shown path."""
    if not path or not id_.endswith(f"/{path}"):
        return None
    return id_.removesuffix(f"/{path}") or "/"


def is_below(name: str, directory: str) -> bool:
    """Tell whether the absolute path ``name`` is ``directory`` or lies in it."""
    return name == directory or name.startswith(directory.rstrip("/") + "/")


def is_below_any(name: str, directories: Iterable[Path]) -> bool:
    """Tell whether the absolute path ``name`` is one of the directories or lies in one."""
    return any(is_below(name, str(directory)) for directory in directories)
