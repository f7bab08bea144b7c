"""Scope of an index run: the roots, and which documents of the collection are unchanged, superseded or gone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Final

from penstock.client import StoredDocument
from penstock.indexing.exclusion import SkipReason
from penstock.indexing.sources.index_sources import KnownSources
from penstock.indexing.sources.index_stats import VanishedDocuments
from penstock.indexing.sources.indexed_documents import IndexedDocuments
from penstock.indexing.sources.local_files import (
    IndexableFile,
    IndexRoot,
    hash_file,
    innermost_root,
    is_below,
    is_below_any,
    project_of,
)
from penstock.stores.sources import document_id

#: Unreadable files and directories remembered, so that what is listed below them is not removed; with more of them
#: nothing is removed at all.
UNREADABLE_MAX: Final = 1000
#: Paths that are left out and remembered, so that documents of them are removed however many they are.
LEFT_OUT_MAX: Final = 10_000


@dataclass(slots=True)
class IndexScope:
    """Scope of an index run: its roots, the collection's documents, and what has vanished.

    Attributes:
        roots: The paths to index, with their sources.
        known: The documents that the collection holds of sources, and those without one by the path of their file.
        sources: The sources that the collection has.
        unreadable: Files and directories that could not be read. Documents listed below them have not vanished.
        left_out: Files and directories that are there and left out.
        losses: The documents that have vanished from each directory that is indexed.
        changed: Files and directories that may have changed; ``None`` for any.
    """

    roots: Sequence[IndexRoot]
    known: IndexedDocuments
    sources: KnownSources
    unreadable: list[Path] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    losses: list[VanishedDocuments] = field(default_factory=list)
    changed: frozenset[str] | None = None

    def note_file(self, file: str) -> None:
        """Note that a file is there."""
        for loss in self.losses:
            loss.has_files = loss.has_files or is_below(file, str(loss.directory))

    def note_skipped(self, path: Path, reason: str) -> None:
        """Note that a file or directory is there and not indexed."""
        if reason == SkipReason.UNREADABLE and len(self.unreadable) <= UNREADABLE_MAX:
            self.unreadable.append(path)
        # An empty file may be one that is being written.
        elif reason not in (SkipReason.UNREADABLE, SkipReason.EMPTY) and len(self.left_out) < LEFT_OUT_MAX:
            self.left_out.add(str(path))

    def is_unchanged(self, one: IndexableFile, file_bytes_max: int) -> bool:
        """Note that a file exists, and return whether the collection has it as it is and by its own id."""
        # Whatever the hash: one that still has its path for an id is sent, to be given its own.
        legacy = self.known.note(one.file)
        if not self._may_have_changed(one.file) and self.known.assume_unchanged(one.id):
            return not legacy
        return self.known.is_unchanged(one.id, partial(hash_file, one, file_bytes_max)) and not legacy

    def _may_have_changed(self, file: str) -> bool:
        if self.changed is None:
            return True
        return _is_among(file, self.changed)

    def was_unchanged(self, one: IndexableFile) -> bool:
        """Return whether a file was found unchanged."""
        return self.known.was_unchanged(one.id) and not self.known.holds(one.file)

    def file_of(self, one: StoredDocument) -> str:
        """Return the path that a listed document's file has or had, empty where it is none of the run's sources."""
        if not one.source:
            return one.id if project_of(one.id, one.path) is not None else ""
        project = next((root.project for root in self.roots if root.source == one.source), None)
        below = one.id.removeprefix(document_id(one.source, ""))
        return "" if project is None else os.path.join(project, below)  # noqa: PTH118 - as the walk writes it

    def count_document(self, one: StoredDocument) -> None:
        """Count a listed document."""
        file = self.file_of(one)
        around = [loss for loss in self.losses if is_below(file, str(loss.directory))]
        if not around or self.is_superseded(one):
            return
        # A file that is left out by now is there: its disk is mounted. Whether there is a file at this moment says
        # nothing: the disk may have been mounted since the walk, and a branch switched back.
        vanished = self.may_remove(one) and not _is_among(file, self.left_out)
        for loss in around:
            loss.listed += 1
            loss.vanished += vanished

    def may_remove(self, one: StoredDocument) -> bool:
        """Return whether a listed document has vanished from below what is indexed."""
        file = self.file_of(one)
        return (
            bool(file)
            and self.known.has_vanished(one.id)
            and innermost_root(file, self.roots) is not None
            and not is_below_any(file, self.unreadable)
        )

    def is_superseded(self, one: StoredDocument) -> bool:
        """Return whether a listed document's file belongs to another source by now, which lies inside of its own."""
        root = innermost_root(self.file_of(one), self.roots)
        return bool(one.source) and root is not None and root.source != one.source


def _is_among(file: str, paths: AbstractSet[str]) -> bool:
    """Tell whether a file or one of the directories around it is among the paths."""
    return not paths.isdisjoint((file, *accumulate(file.split("/")[:-1], "{}/{}".format)))
