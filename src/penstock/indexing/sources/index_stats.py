"""Counts of an index run, and what is told of them while it runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from penstock.client import RunFailure, RunSummary

#: Failures listed with their reason; the count goes on.
ERRORS_MAX: Final = 1000
#: Failures recorded with a source.
SOURCE_FAILURES_MAX: Final = 5

#: What a file costs besides its bytes, as bytes: a request, two messages, a write. Measured with files of one line and
#: of many.
FILE_OVERHEAD_BYTES: Final = 256
#: Fewer documents than these may vanish from a tree that still has files, whatever share of it they are.
VANISHED_MIN: Final = 5


class FileFailure(NamedTuple):
    """A file that was not indexed although it should have been."""

    path: str
    code: str
    detail: str


@dataclass(slots=True)
class VanishedDocuments:
    """Documents that a collection has of a named directory, and how many of them have vanished."""

    directory: Path
    has_files: bool = False
    listed: int = 0
    vanished: int = 0

    @property
    def looks_unmounted(self) -> bool:
        """True if the loss looks like a disk that is not mounted rather than like deleted files."""
        if not self.has_files:
            return self.vanished > 0
        return self.vanished >= VANISHED_MIN and 2 * self.vanished > self.listed


@dataclass(slots=True)
class SourceStats:
    """Counts of one run over one source: its files, and what became of its documents.

    Bounds:
        ``failures`` holds ``SOURCE_FAILURES_MAX`` entries at most.
    """

    root: str
    files: int = 0
    indexed: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    kept: int = 0
    failures: list[RunFailure] = field(default_factory=list)

    def add_failure(self, path: str, code: str) -> None:
        """Count a file that failed."""
        self.failed += 1
        if len(self.failures) < SOURCE_FAILURES_MAX:
            self.failures.append(RunFailure(path, code))

    def summary(self) -> RunSummary:
        """Return the counts as they are recorded with the source."""
        return RunSummary(self.indexed, self.unchanged, self.removed, self.failed, self.kept, self.failures)


@dataclass(slots=True)
class IndexStats:
    """Counts of one run, written by the run and read by the display and the summary.

    ``encodings`` counts the files that were sent and are not UTF-8, ``shared`` those that were not embedded, by the
    source whose vectors they have, ``chunks_pending`` the collection's chunks that have no vectors yet.
    ``waiting_for`` says why the server took nothing the last time, ``refused`` how many documents were sent again.
    ``searchable_s`` is when all was found by words, ``took_s`` when by meaning too.

    Bounds:
        ``errors`` holds ``ERRORS_MAX`` entries at most, ``kept_directories`` one for each directory that the user named
        and from which nothing was removed, since too much had vanished, ``sources`` one for each source of the run, and
        ``notes`` one for each source of the collection.
    """

    indexed: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    chunks: int = 0
    files_total: int = 0
    files_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    files_in_flight: int = 0
    bytes_in_flight: int = 0
    chunks_pending: int = 0
    refused: int = 0
    waiting_for: str = ""
    searchable_s: float = 0.0
    took_s: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    shared: Counter[str] = field(default_factory=Counter)
    errors: list[FileFailure] = field(default_factory=list)
    kept_directories: list[VanishedDocuments] = field(default_factory=list)
    sources: dict[str, SourceStats] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def work_bytes_done(self) -> int:
        """Work that has been done, as bytes."""
        return self.bytes_done + FILE_OVERHEAD_BYTES * self.files_done

    @property
    def work_bytes_total(self) -> int:
        """Work to be done in all, as bytes."""
        return self.bytes_total + FILE_OVERHEAD_BYTES * self.files_total

    @property
    def work_bytes_in_flight(self) -> int:
        """Work that has been sent and not been answered yet, as bytes."""
        return self.bytes_in_flight + FILE_OVERHEAD_BYTES * self.files_in_flight

    def add_in_flight(self, files: int, size: int) -> None:
        """Count files with their bytes as sent; negative where they have been answered."""
        self.files_in_flight += files
        self.bytes_in_flight += size

    def add_failure(self, path: str, code: str, detail: str) -> None:
        """Count a file that failed."""
        self.failed += 1
        if len(self.errors) < ERRORS_MAX:
            self.errors.append(FileFailure(path, code, detail))

    def as_json(self, collection: str) -> dict[str, Any]:
        """Return the object that ``penstock index --json`` prints."""
        return {
            "collection": collection,
            "indexed": self.indexed,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "failed": self.failed,
            "refused": self.refused,
            "skipped": dict(sorted(self.skipped.items())),
            "encodings": dict(sorted(self.encodings.items())),
            "shared": dict(sorted(self.shared.items())),
            "chunks": self.chunks,
            "pending": self.chunks_pending,
            "searchable_s": round(self.searchable_s, 3),
            "took_s": round(self.took_s, 3),
            "errors": [one._asdict() for one in self.errors],
            "sources": [
                {
                    "name": name,
                    "root": one.root,
                    "indexed": one.indexed,
                    "unchanged": one.unchanged,
                    "removed": one.removed,
                    "failed": one.failed,
                    "kept": one.kept,
                }
                for name, one in sorted(self.sources.items())
            ],
            "notes": self.notes,
            "kept": [
                {"path": str(one.directory), "documents": one.listed, "vanished": one.vanished}
                for one in self.kept_directories
            ],
        }


def kept_line(loss: VanishedDocuments, collection: str) -> str:
    """Return the line about a directory that keeps its documents, for a person."""
    found = "" if loss.has_files else "no file to index is in it; "
    return (
        f"kept: {loss.directory}: {found}{loss.vanished} of the {loss.listed} documents that {collection} has of it"
        " have no file any more. None was removed, since a disk may not be mounted. If the files are really gone,"
        " `penstock index --prune` removes them."
    )


class RunDisplay(Protocol):
    """Display that an index run reports to."""

    def show_stage(self, text: str) -> None:
        """Show what is being done besides sending."""

    def update(self, stats: IndexStats) -> None:
        """Show the counts. Called at every change, and every second."""


class NoDisplay:
    """Display that shows nothing."""

    def show_stage(self, text: str) -> None:
        """Show nothing."""

    def update(self, stats: IndexStats) -> None:
        """Show nothing."""
