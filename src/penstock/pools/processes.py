"""Worker processes for Python work that would hold up the event loop, such as parsing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from penstock.kernel.errors import Broken
from penstock.pools.threads import settle

T = TypeVar("T")


def _begin(prepare: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Start a worker: deaf to the terminal's Ctrl-C, which is for the parent, but not to its death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare(*args)


def _end_with_parent() -> None:
    """End this worker when the parent has died: its queue would never be closed by anybody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Processes:
    """A bounded set of worker processes, started when first needed.

    Args:
        count: Processes at most.
        prepare: Run once in each new process.
        args: Arguments of ``prepare``.
    """

    def __init__(self, count: int, prepare: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.count = count
        self._prepare = prepare
        self._args = args
        self._executor: ProcessPoolExecutor | None = None

    def _start(self) -> ProcessPoolExecutor:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self.count,
                mp_context=multiprocessing.get_context("forkserver"),
                initializer=_begin,
                initargs=(self._prepare, self._args),
            )
        return self._executor

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` (picklable) in a process.

        Raises:
            Broken: The worker process died; the next call starts new ones.

        Cancellation: As :func:`penstock.pools.threads.settle`.
        """
        executor = self._start()
        try:
            job = executor.submit(call)
        except BrokenProcessPool:  # a process died before this call, and nobody was told
            self._drop(executor)
            executor = self._start()
            job = executor.submit(call)
        try:
            return await settle(job)
        except BrokenProcessPool:
            self._drop(executor)
            raise Broken("a worker process died while it worked", code="worker_died") from None

    def _drop(self, executor: ProcessPoolExecutor) -> None:
        """Let go of broken processes; a later call may have done so already."""
        if self._executor is executor:
            self._executor = None
            executor.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Let running calls end and stop the processes."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
