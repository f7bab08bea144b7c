"""An executor moved by hand: no thread, and a test decides when a call begins and ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class HandExecutor(Executor):
    """Calls wait until they are begun, run until they are ended.

    Attributes:
        jobs: Every call submitted, in order.
    """

    def __init__(self) -> None:
        self.jobs: list[Future[Any]] = []
        self.calls: list[Callable[[], Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        job: Future[Any] = Future()
        self.jobs.append(job)
        self.calls.append(lambda: fn(*args, **kwargs))
        return job

    def begin(self, number: int = 0) -> bool:
        """Begin a call; False if it was taken back."""
        return self.jobs[number].set_running_or_notify_cancel()

    def end(self, number: int = 0) -> None:
        """Run a begun call to its end."""
        try:
            result = self.calls[number]()
        except Exception as error:  # noqa: BLE001 - as a real executor does
            self.jobs[number].set_exception(error)
        else:
            self.jobs[number].set_result(result)

    def forget(self) -> None:
        """Let go of all calls, so that an outcome nobody looked at is complained of in time."""
        self.jobs.clear()
        self.calls.clear()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Cancel what has not begun."""
        for job in self.jobs:
            job.cancel()
