"""Progress display of an index run: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from penstock.cli.index_stats import IndexStats
from penstock.cli.terminal import logs_above
from penstock.cli.text_charts import format_duration
from penstock.cli.throughput import Throughput

LINE_EVERY_S: Final = 5.0


class ProgressDisplay(Protocol):
    """Display that an index run reports to."""

    def show_stage(self, text: str) -> None:
        """Show what is being done besides sending."""
        ...

    def update(self, stats: IndexStats) -> None:
        """Show the counts. Called at every change, and every second."""
        ...


@contextmanager
def progress_display(console: Console, *, quiet: bool = False) -> Iterator[ProgressDisplay]:
    """Yield the display that suits the console.

    Args:
        console: Where to show it.
        quiet: Show nothing unless the console is a terminal.
    """
    if console.is_terminal:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[shown]}"),
        )
        with logs_above(console), Progress(*columns, console=console, transient=True, expand=True) as progress:
            yield _IndexBar(progress)
    elif quiet:
        yield _NoProgress()
    else:
        yield _IndexLines(console)


class _IndexBar:
    def __init__(self, progress: Progress, now: Callable[[], float] = time.monotonic) -> None:
        self._progress = progress
        self._now = now
        self._task = progress.add_task("Starting", total=None, shown="")
        self._pace = Throughput()

    def show_stage(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def update(self, stats: IndexStats) -> None:
        now_s = self._now()
        self._pace.record(now_s, stats)
        self._progress.update(
            self._task,
            description="Indexing",
            completed=stats.work_bytes_done,
            total=max(1, stats.work_bytes_total),
            shown=progress_line(stats, self._pace, now_s),
        )


class _IndexLines:
    """Prints plain lines, none for a run that is over sooner.

    Bounds:
        One line in ``LINE_EVERY_S``.
    """

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._now = now
        self._pace = Throughput()
        self._next_s = now() + LINE_EVERY_S

    def show_stage(self, text: str) -> None:
        self._say(self._now(), f"{text} …")

    def update(self, stats: IndexStats) -> None:
        now_s = self._now()
        self._pace.record(now_s, stats)
        self._say(now_s, f"Indexing: {progress_line(stats, self._pace, now_s)}")

    def _say(self, now_s: float, text: str) -> None:
        if now_s >= self._next_s:
            self._next_s = now_s + LINE_EVERY_S
            self._console.print(text, soft_wrap=True)


class _NoProgress:
    def show_stage(self, text: str) -> None:
        """Show nothing."""

    def update(self, stats: IndexStats) -> None:
        """Show nothing."""


def progress_line(stats: IndexStats, pace: Throughput, now_s: float) -> str:
    """Return files, chunks, rate and time left in one line."""
    left = format_duration(pace.eta_s(now_s, stats))
    return (
        f"{stats.files_done}/{stats.files_total} files · {stats.chunks} chunks · "
        f"{pace.chunks_per_s(now_s, stats):.0f} chunks/s · {left} left"
    )
