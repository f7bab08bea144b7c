"""Records of tasks, and of what waiting for one takes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

import msgspec

from penstock.client.records import Problem
from penstock.kernel.errors import Expired, PenstockError

C = TypeVar("C")

#: Seconds between two looks at a task: at first, and in the end.
POLL_S: Final = 0.1
POLL_S_MAX: Final = 2.0

#: A server that restarts is waited for as long as this.
AWAY_S_MAX: Final = 60.0


class ServerTask(msgspec.Struct, frozen=True):
    """A task of the server: an operation that goes on when its request has been answered.

    Attributes:
        id: Its id.
        kind: ``index_documents``, ``renew_collection``, ``make_snapshot`` or ``restore_snapshot``.
        status: ``waiting``, ``running``, ``succeeded``, ``failed`` or ``cancelled``.
        collection: The collection concerned; empty for all of them.
        client: Who asked for it.
        done: Documents done in this attempt.
        total: Documents in all; 0 where that is not known.
        body_bytes: Length of the request's body.
        attempts: How often it was begun.
        accepted_at: When it was accepted, RFC 3339 in UTC.
        started_at: When it was begun last.
        ended_at: When it ended.
        error: Why it failed.
        result: What it brought, once it has ended.
    """

    id: str
    kind: str = ""
    status: str = ""
    collection: str = ""
    client: str = ""
    done: int = 0
    total: int = 0
    body_bytes: int = 0
    attempts: int = 0
    accepted_at: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    error: Problem | None = None
    result: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """True once nothing will change any more."""
        return self.status not in ("waiting", "running")


class TaskListing(msgspec.Struct, frozen=True):
    """A page of tasks, the newest first. ``next`` is the ``after`` of the next page."""

    tasks: list[ServerTask]
    next: str | None = None


class TaskCancelled(msgspec.Struct, frozen=True):
    """Outcome of a cancellation: whether it has cancelled the task, what has happened, and the task."""

    cancelled: bool
    detail: str
    task: ServerTask


def wait_steps(
    look: C, progress: Callable[[ServerTask], object] | None, timeout_s: float | None, now: Callable[[], float]
) -> Generator[C | float, Any, ServerTask]:
    """Yield the call that looks at a task, or seconds to wait; take in the task or an error; return the one that ended.

    A server that cannot be reached, or has no time, is asked again: a task outlives a restart.

    Raises:
        Expired: The task has not ended in time. It goes on.
        PenstockError: There is no such task, or the server stayed away.
    """
    ends_s = None if timeout_s is None else now() + timeout_s
    wait_s, answered_s = POLL_S, now()
    while True:
        seen: ServerTask | PenstockError = yield look
        if isinstance(seen, PenstockError):
            if not seen.retryable or now() - answered_s > AWAY_S_MAX:
                raise seen
        else:
            answered_s = now()
            if progress is not None:
                progress(seen)
            if seen.ended:
                return seen
        if ends_s is not None and now() + wait_s > ends_s:
            raise Expired("task", "the task has not ended in time; it goes on, and can be waited for again")
        yield wait_s
        wait_s = min(POLL_S_MAX, wait_s * 1.5)
