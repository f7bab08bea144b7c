"""Shows an index run while it works: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from penstock.cli.tally import Pace, Tally, duration_shown
from penstock.cli.terminal import logs_above

LINE_EVERY_S: Final = 5.0


class Display(Protocol):
    """What a run reports to."""

    def stage(self, text: str) -> None:
        """Say what is being done before the number of files to send is known."""
        ...

    def advance(self, tally: Tally) -> None:
        """Show the tally; called at every change."""
        ...


@contextmanager
def display(console: Console, *, quiet: bool = False) -> Iterator[Display]:
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
            yield _Bar(progress)
    elif quiet:
        yield _Nothing()
    else:
        yield _Lines(console)


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("Starting", total=None, shown="")
        self._pace = Pace()

    def stage(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def advance(self, tally: Tally) -> None:
        self._pace.mark(time.monotonic(), tally.bytes_done, tally.chunks)
        self._progress.update(
            self._task,
            description="Indexing",
            completed=tally.bytes_done,
            total=max(1, tally.bytes_total),
            shown=line(tally, self._pace),
        )


class _Lines:
    """Plain lines; a run that is over sooner shows none.

    Bounds:
        One line in ``LINE_EVERY_S``.
    """

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._now = now
        self._pace = Pace()
        self._next_s = now() + LINE_EVERY_S

    def stage(self, text: str) -> None:
        self._say(self._now(), f"{text} …")

    def advance(self, tally: Tally) -> None:
        now_s = self._now()
        self._pace.mark(now_s, tally.bytes_done, tally.chunks)
        self._say(now_s, f"Indexing: {line(tally, self._pace)}")

    def _say(self, now_s: float, text: str) -> None:
        if now_s >= self._next_s:
            self._next_s = now_s + LINE_EVERY_S
            self._console.print(text, soft_wrap=True)


class _Nothing:
    def stage(self, text: str) -> None:
        """Show nothing."""

    def advance(self, tally: Tally) -> None:
        """Show nothing."""


def line(tally: Tally, pace: Pace) -> str:
    """Return files, chunks, rate and time left in one line."""
    left = duration_shown(pace.left_s(tally.bytes_total))
    return (
        f"{tally.files_done}/{tally.files_total} files · {tally.chunks} chunks · "
        f"{pace.chunks_per_s():.0f} chunks/s · {left} left"
    )
