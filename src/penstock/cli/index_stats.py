"""Counts of an index run: work done, in flight and in all, and failures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.cli.index_planning import VanishedDocuments

#: Failures listed with their reason; the count goes on.
ERRORS_MAX: Final = 1000

#: What a file costs besides its bytes, as bytes: a request, two messages, a write. Measured with files of one line and
#: of many.
FILE_OVERHEAD_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class FileFailure:
    """A file that was not indexed although it should have been."""

    path: str
    code: str
    detail: str


@dataclass(slots=True)
class IndexStats:
    """Counts of one run, written by the run and read by the display and the summary.

    Bounds:
        ``errors`` holds ``ERRORS_MAX`` entries at most, ``kept_directories`` one for each directory that the user named
        and from which nothing was removed, since too much had vanished.
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
    took_s: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    errors: list[FileFailure] = field(default_factory=list)
    kept_directories: list[VanishedDocuments] = field(default_factory=list)

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
            "skipped": dict(sorted(self.skipped.items())),
            "chunks": self.chunks,
            "took_s": round(self.took_s, 3),
            "errors": [{"path": one.path, "code": one.code, "detail": one.detail} for one in self.errors],
            "kept": [
                {"path": str(one.directory), "documents": one.listed, "vanished": one.vanished}
                for one in self.kept_directories
            ],
        }
