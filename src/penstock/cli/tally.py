"""What an index run has done so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.cli.planning import Loss

#: Failures listed with their reason; the count goes on.
ERRORS_MAX: Final = 1000

#: What a file costs besides its bytes, as bytes: a request, two messages, a write. Measured with files of one line and
#: of many.
FILE_EFFORT_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that was not indexed although it should have been."""

    path: str
    code: str
    detail: str


@dataclass(slots=True)
class Tally:
    """Counts of one run; the run writes, the display and the summary read.

    Bounds:
        ``errors`` holds ``ERRORS_MAX`` entries at most, ``kept`` one for each directory that the user named and
        from which nothing was removed, since too much had vanished.
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
    errors: list[Failure] = field(default_factory=list)
    kept: list[Loss] = field(default_factory=list)

    @property
    def effort_done(self) -> int:
        """What has been done, as bytes."""
        return self.bytes_done + FILE_EFFORT_BYTES * self.files_done

    @property
    def effort_total(self) -> int:
        """What is to be done in all, as bytes."""
        return self.bytes_total + FILE_EFFORT_BYTES * self.files_total

    @property
    def effort_in_flight(self) -> int:
        """What has been sent and not been answered yet, as bytes."""
        return self.bytes_in_flight + FILE_EFFORT_BYTES * self.files_in_flight

    def set_off(self, files: int, size: int) -> None:
        """Count files with their bytes as sent; negative where they have been answered."""
        self.files_in_flight += files
        self.bytes_in_flight += size

    def fail(self, path: str, code: str, detail: str) -> None:
        """Count a file that failed."""
        self.failed += 1
        if len(self.errors) < ERRORS_MAX:
            self.errors.append(Failure(path, code, detail))

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
            "kept": [{"path": str(one.named), "documents": one.listed, "vanished": one.vanished} for one in self.kept],
        }
