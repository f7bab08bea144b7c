"""What an index run has done so far, and how fast it goes."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final

#: Failures listed with their reason; the count goes on.
ERRORS_MAX: Final = 1000


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
        ``errors`` holds ``ERRORS_MAX`` entries at most.
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
    took_s: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    errors: list[Failure] = field(default_factory=list)

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
        }


class Pace:
    """Rates over the recent past, so that time left follows what happens now.

    Bounds:
        Marks older than the window are dropped; one mark before it is kept.
    """

    def __init__(self, window_s: float = 20.0) -> None:
        self._window_s = window_s
        self._marks: deque[tuple[float, int, int]] = deque()

    def mark(self, now_s: float, bytes_done: int, chunks: int) -> None:
        """Note the totals at a moment; moments must not go back."""
        self._marks.append((now_s, bytes_done, chunks))
        while len(self._marks) > 2 and self._marks[1][0] <= now_s - self._window_s:
            self._marks.popleft()

    def chunks_per_s(self) -> float:
        """Return chunks a second, 0 before anything is known."""
        return self._rate(2)

    def left_s(self, bytes_total: int) -> float | None:
        """Return the seconds left for the bytes that are left, ``None`` while nothing is known."""
        rate = self._rate(1)
        if rate <= 0:
            return None
        return max(0, bytes_total - self._marks[-1][1]) / rate

    def _rate(self, column: int) -> float:
        if len(self._marks) < 2:
            return 0.0
        first, last = self._marks[0], self._marks[-1]
        elapsed_s = last[0] - first[0]
        return (last[column] - first[column]) / elapsed_s if elapsed_s > 0 else 0.0


def duration_shown(seconds: float | None) -> str:
    """Return ``1h02m``, ``2m05s`` or ``7s``; ``–`` where nothing is known."""
    if seconds is None:
        return "\N{EN DASH}"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 60}m{whole % 60:02}s" if whole >= 60 else f"{whole}s"
