"""Progress display of a model's preparation: a bar on a terminal, plain lines elsewhere, nothing if it is prepared."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from penstock.cli.terminal import logs_above

_STAGES: Final = {
    "checking": "Checking the model's weights",
    "downloading": "Fetching the model",
    "building": "Preparing the model (once)",
    "writing": "Writing the prepared model",
}


@contextmanager
def show_model_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback ``(stage, done, total)`` that may be called from any thread."""
    with ExitStack() as stack:
        shown = _StageBars(console, stack) if console.is_terminal else _StageLines(console)
        yield shown.report


class _StageLines:
    """Prints a line for each stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""

    def report(self, stage: str, _done: int, _total: int) -> None:
        if stage != self._stage:
            self._stage = stage
            self._console.print(f"{_STAGES.get(stage, stage)} …")


class _StageBars:
    """A bar for each stage, made at the first report so that a warm start shows none."""

    def __init__(self, console: Console, stack: ExitStack) -> None:
        self._console = console
        self._stack = stack
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def report(self, stage: str, done: int, total: int) -> None:
        with self._lock:
            progress = self._opened()
            if stage not in self._tasks:
                self._tasks[stage] = progress.add_task(_STAGES.get(stage, stage), total=max(total, 1))
            progress.update(self._tasks[stage], completed=done if total else 1, total=max(total, 1))

    def _opened(self) -> Progress:
        if self._progress is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
            self._progress = Progress(*columns, TimeElapsedColumn(), console=self._console)
            self._stack.enter_context(logs_above(self._console))
            self._stack.enter_context(self._progress)
        return self._progress
