"""Progress bars on a terminal, and what stands for them elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from penstock.cli.terminal import logs_above

_STAGES: Final = {
    "checking": "Checking the model's weights",
    "downloading": "Fetching the model",
    "building": "Preparing the model (once)",
    "writing": "Writing the prepared model",
}


@contextmanager
def progress_bar(
    console: Console, text: str, total: int | None = None, *, transient: bool = True
) -> Iterator[Callable[..., None]]:
    """Show a bar while the body runs, nothing off a terminal.

    Args:
        console: Where to.
        text: What is being done.
        total: How much there is to do, ``None`` while that is not known.
        transient: Whether the bar goes away in the end.

    Yields:
        A function that takes ``advance``, ``completed``, ``total`` or ``description``.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)
    with logs_above(console), bar:
        yield partial(bar.update, bar.add_task(text, total=total))


@contextmanager
def show_model_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback ``(stage, done, total)`` for a model's preparation, which may be called from any thread.

    A terminal gets a bar for each stage, anything else a line. A model that is prepared already shows nothing.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    bars = Progress(*columns, TimeElapsedColumn(), console=console)
    lock, tasks, stage_before = threading.Lock(), dict[str, TaskID](), ""
    with ExitStack() as stack:

        def report(stage: str, done: int, total: int) -> None:
            nonlocal stage_before
            text = _STAGES.get(stage, stage)
            with lock:
                if not console.is_terminal:
                    if stage != stage_before:
                        console.print(f"{text} …")
                    stage_before = stage
                    return
                if not tasks:
                    stack.enter_context(logs_above(console))
                    stack.enter_context(bars)
                if stage not in tasks:
                    tasks[stage] = bars.add_task(text)
                bars.update(tasks[stage], completed=done if total else 1, total=max(total, 1))

        yield report
