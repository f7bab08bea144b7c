"""Progress of an index run: its counts, its throughput, and their display.

The display is a live bar on a terminal, and a plain line every few seconds elsewhere.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from penstock.cli.terminal import logs_above
from penstock.cli.text_charts import format_duration
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
#: How far back the past is recent, for the throughput.
WINDOW_S: Final = 20.0
#: Kept however old: with large files few are done in a window, and one alone says little.
SAMPLES_MIN: Final = 6
LINE_EVERY_S: Final = 5.0


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

    ``encodings`` counts the files that were sent and are not UTF-8.

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
    took_s: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
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
            "skipped": dict(sorted(self.skipped.items())),
            "encodings": dict(sorted(self.encodings.items())),
            "chunks": self.chunks,
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


class _ThroughputSample(NamedTuple):
    """Progress of a run at a moment of the monotonic clock."""

    at_s: float
    effort: int
    chunks: int


class Throughput:
    """Rates over the recent past.

    Only what is done counts. While a large file is on its way the time left goes on falling, but never below what would
    be left if all that is on its way were done. A run that stands still longer than that counts as slower.

    Args:
        window_s: How far back the past is recent, in seconds.

    Bounds:
        Samples older than the window are dropped, but for the last ``SAMPLES_MIN``.
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._marks: deque[_ThroughputSample] = deque()

    def record(self, now_s: float, stats: IndexStats) -> None:
        """Record a run's progress. Moments must not go back. Without progress since the last sample none is added."""
        if not self._marks or stats.work_bytes_done > self._marks[-1].effort:
            self._marks.append(_ThroughputSample(now_s, stats.work_bytes_done, stats.chunks))
        while len(self._marks) > SAMPLES_MIN and self._marks[1].at_s <= now_s - self._window_s:
            self._marks.popleft()

    def chunks_per_s(self, now_s: float, stats: IndexStats) -> float:
        """Return chunks a second, 0 before anything is known."""
        elapsed_s = self._elapsed_s(now_s, stats)
        return (self._marks[-1].chunks - self._marks[0].chunks) / elapsed_s if elapsed_s > 0 else 0.0

    def eta_s(self, now_s: float, stats: IndexStats) -> float | None:
        """Return the seconds left for what is left, ``None`` while nothing is known."""
        elapsed_s = self._elapsed_s(now_s, stats)
        if elapsed_s <= 0:
            return None
        first, last = self._marks[0], self._marks[-1]
        rate = (last.effort - first.effort) / elapsed_s
        on_its_way = min((now_s - last.at_s) * rate, stats.work_bytes_in_flight)
        return max(0.0, stats.work_bytes_total - stats.work_bytes_done - on_its_way) / rate

    def _elapsed_s(self, now_s: float, stats: IndexStats) -> float:
        """Return the time that the work between the samples has taken, 0 while that is not known.

        The time since the last sample belongs to the work in flight, as far as that needs it.
        """
        if len(self._marks) < 2:
            return 0.0
        first, last = self._marks[0], self._marks[-1]
        span_s = last.at_s - first.at_s
        due_s = stats.work_bytes_in_flight * span_s / (last.effort - first.effort)
        return span_s + max(0.0, now_s - last.at_s - due_s) if span_s > 0 else 0.0


def progress_line(stats: IndexStats, pace: Throughput, now_s: float) -> str:
    """Return files, chunks, rate and time left in one line."""
    left = format_duration(pace.eta_s(now_s, stats))
    return (
        f"{stats.files_done}/{stats.files_total} files · {stats.chunks} chunks · "
        f"{pace.chunks_per_s(now_s, stats):.0f} chunks/s · {left} left"
    )


class ProgressDisplay:
    """Display that an index run reports to. Lines are printed seldom, and none for a run that is over sooner.

    Args:
        console: Where lines are printed; ``None`` for none.
        bar: The bar that is drawn instead of lines.
        now: Monotonic clock, in seconds.

    Bounds:
        One line in ``LINE_EVERY_S``.
    """

    def __init__(
        self, console: Console | None, bar: Progress | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._bar = bar
        self._now = now
        self._task = bar.add_task("Starting", total=None, shown="") if bar else None
        self._throughput = Throughput()
        self._next_s = now() + LINE_EVERY_S

    def show_stage(self, text: str) -> None:
        """Show what is being done besides sending."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text)
        else:
            self._print(f"{text} …")

    def update(self, stats: IndexStats) -> None:
        """Show the counts. Called at every change, and every second."""
        now_s = self._now()
        self._throughput.record(now_s, stats)
        line = progress_line(stats, self._throughput, now_s)
        if self._bar is not None and self._task is not None:
            done, total = stats.work_bytes_done, max(1, stats.work_bytes_total)
            self._bar.update(self._task, description="Indexing", completed=done, total=total, shown=line)
        else:
            self._print(f"Indexing: {line}")

    def _print(self, text: str) -> None:
        if self._console is not None and self._now() >= self._next_s:
            self._next_s = self._now() + LINE_EVERY_S
            self._console.print(text, soft_wrap=True)


@contextmanager
def progress_display(console: Console, *, quiet: bool = False) -> Iterator[ProgressDisplay]:
    """Yield the display that suits the console; with ``quiet`` it shows nothing unless that is a terminal."""
    if not console.is_terminal:
        yield ProgressDisplay(None if quiet else console)
        return
    shown = TextColumn("{task.fields[shown]}")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=None), shown)
    with logs_above(console), Progress(*columns, console=console, transient=True, expand=True) as progress:
        yield ProgressDisplay(None, progress)
