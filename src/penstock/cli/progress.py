"""Shows an index run while it works: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from penstock.cli.pace import Pace, duration_shown
from penstock.cli.tally import Tally
from penstock.cli.terminal import logs_above

LINE_EVERY_S: Final = 5.0


class Display(Protocol):
    """What a run reports to."""

    def stage(self, text: str) -> None:
        """Say what is being done besides sending."""
        ...

    def advance(self, tally: Tally) -> None:
        """Show the tally; called at every change, and every second."""
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
    def __init__(self, progress: Progress, now: Callable[[], float] = time.monotonic) -> None:
        self._progress = progress
        self._now = now
        self._task = progress.add_task("Starting", total=None, shown="")
        self._pace = Pace()

    def stage(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def advance(self, tally: Tally) -> None:
        now_s = self._now()
        self._pace.mark(now_s, tally)
        self._progress.update(
            self._task,
            description="Indexing",
            completed=tally.effort_done,
            total=max(1, tally.effort_total),
            shown=line(tally, self._pace, now_s),
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
        self._pace.mark(now_s, tally)
        self._say(now_s, f"Indexing: {line(tally, self._pace, now_s)}")

    def _say(self, now_s: float, text: str) -> None:
        if now_s >= self._next_s:
            self._next_s = now_s + LINE_EVERY_S
            self._console.print(text, soft_wrap=True)


class _Nothing:
    def stage(self, text: str) -> None:
        """Show nothing."""

    def advance(self, tally: Tally) -> None:
        """Show nothing."""


def line(tally: Tally, pace: Pace, now_s: float) -> str:
    """Return files, chunks, rate and time left in one line."""
    left = duration_shown(pace.left_s(now_s, tally))
    return (
        f"{tally.files_done}/{tally.files_total} files · {tally.chunks} chunks · "
        f"{pace.chunks_per_s(now_s, tally):.0f} chunks/s · {left} left"
    )
