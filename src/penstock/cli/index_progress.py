"""Progress of an index run: its throughput, and the display of its counts.

The display is a live bar on a terminal, and a plain line every few seconds elsewhere.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from penstock.cli.terminal import logs_above
from penstock.cli.text_charts import format_duration
from penstock.indexing.sources.index_stats import IndexStats

#: How far back the past is recent, for the throughput.
WINDOW_S: Final = 20.0
#: Kept however old: with large files few are done in a window, and one alone says little.
SAMPLES_MIN: Final = 6
LINE_EVERY_S: Final = 5.0


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
    """Return files, chunks, rate and time left, or what is waited for, in one line."""
    left = f"{format_duration(pace.eta_s(now_s, stats))} left"
    if stats.waiting_for:
        left = f"waiting: {stats.waiting_for}"
    return (
        f"{stats.files_done}/{stats.files_total} files · {stats.chunks} chunks · "
        f"{pace.chunks_per_s(now_s, stats):.0f} chunks/s · {left}"
    )


class EmbeddingRate:
    """Rate at which a run's chunks get their vectors, once all are found by words."""

    def __init__(self) -> None:
        self._began_s = 0.0
        self._most = 0

    def line(self, stats: IndexStats, now_s: float) -> str:
        """Return how many chunks have their vectors, at which rate, and the time left, in one line."""
        if stats.chunks_pending > self._most:
            self._began_s, self._most = now_s, stats.chunks_pending
        elapsed_s, made = now_s - self._began_s, self._most - stats.chunks_pending
        rate = made / elapsed_s if elapsed_s > 0 else 0.0
        left = format_duration(stats.chunks_pending / rate if rate > 0 else None)
        done = max(0, stats.chunks - stats.chunks_pending)
        return f"{done}/{max(stats.chunks, stats.chunks_pending)} chunks · {rate:.0f} chunks/s · {left} left"


class ProgressDisplay:
    """Display that an index run reports to. Lines are printed seldom, and none for a run that is over sooner.

    Files are found by words as the first bar grows, and by meaning as the second does.

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
        self._vectors = bar.add_task("Vectors", total=None, shown="", visible=False) if bar else None
        self._throughput = Throughput()
        self._rate = EmbeddingRate()
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
        vectors = self._rate.line(stats, now_s)
        if self._bar is not None and self._task is not None and self._vectors is not None:
            done, total = stats.work_bytes_done, max(1, stats.work_bytes_total)
            self._bar.update(self._task, description="Words", completed=done, total=total, shown=line)
            chunks = max(1, stats.chunks, stats.chunks_pending)
            self._bar.update(
                self._vectors, completed=chunks - stats.chunks_pending, total=chunks, shown=vectors, visible=True
            )
        elif stats.searchable_s:
            self._print(f"Vectors: {vectors}")
        else:
            self._print(f"Words: {line}")

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
