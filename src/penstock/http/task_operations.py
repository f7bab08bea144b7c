"""Operations about tasks: submit, list, show, cancel, and follow as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from penstock.core.core import Core
from penstock.http.decoding import JSON
from penstock.http.endpoints import ApiEndpoint
from penstock.http.event_streams import (
    EVENT_STREAM,
    FIRST,
    KEEPALIVE_S,
    NOTHING_NEW,
    STREAM_S_MAX,
    EventStream,
    OpenStreams,
)
from penstock.http.problem import ProblemDetails, problem_of
from penstock.http.request_context import RequestState, build_context, request_state
from penstock.http.responses import Rfc3339
from penstock.http.task_drafts import TaskDrafts
from penstock.kernel.access import ANYONE, Scope
from penstock.kernel.errors import from_record
from penstock.stores.key_value_cache import Count
from penstock.tasks.queue import Task
from penstock.tasks.records import TASK_ID, TaskKind, TaskStatus

#: Seconds until it makes sense to look at a new task again.
POLL_S: Final = 1

#: Tasks on a page at most.
PAGE_TASKS_MAX: Final = 1000

#: Two events of a stream are at least so far apart, so that a fast task does not flood its followers.
EVENT_PERIOD_S: Final = 0.25

_TASK: Final = "/v1/tasks/{task}"


class TaskWaitQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query parameter of an operation that a task can do.

    Attributes:
        wait: `false`: the answer comes when the operation is accepted, and a task does it.
    """

    wait: Literal["true", "false"] = "true"


class TasksQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query parameters of a page of tasks.

    Attributes:
        status: List only tasks of this status. May be repeated.
        kind: List only tasks of this kind. May be repeated.
        collection: List only tasks that concern this collection.
        after: The `next` cursor of the previous page.
        limit: Tasks on a page at most.
    """

    status: list[TaskStatus] | UnsetType = UNSET
    kind: list[TaskKind] | UnsetType = UNSET
    collection: str | UnsetType = UNSET
    after: Annotated[str, Meta(pattern=f"^{TASK_ID}$")] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=PAGE_TASKS_MAX)] = 100

    def matches(self, task: Task) -> bool:
        """Return whether a task is asked for."""
        record = task.record
        return (
            (self.status is UNSET or record.status in self.status)
            and (self.kind is UNSET or record.kind in self.kind)
            and (self.collection is UNSET or record.collection == self.collection)
        )


class TaskInfo(msgspec.Struct, frozen=True):
    """A task: an operation that goes on when its request has been answered, and after a restart of the server.

    Attributes:
        id: Its id. Later tasks have greater ones.
        kind: The operation.
        status: `waiting`, `running`, or how it ended: `succeeded`, `failed` with its `error`, `cancelled`.
        collection: The collection concerned; empty for all of them.
        client: Who asked for it: id of a key, or an address.
        done: Documents done in this attempt, good or not.
        total: Documents in all; 0 where that is not known.
        body_bytes: Length of the request's body.
        attempts: How often it was begun. More than once: the server ended in the middle.
        accepted_at: When it was accepted.
        started_at: When it was begun last; null before.
        ended_at: When it ended; null before.
        error: Why it failed; null otherwise.
        result: What the operation's own answer would be, with the first 100 failures in the place of all documents;
            null before the end. Absent in a list.
    """

    id: Annotated[str, Meta(pattern=f"^{TASK_ID}$")]
    kind: TaskKind
    status: TaskStatus
    collection: str
    client: str
    done: Count
    total: Count
    body_bytes: Count
    attempts: Count
    accepted_at: Rfc3339
    started_at: Rfc3339 | None
    ended_at: Rfc3339 | None
    error: ProblemDetails | None
    result: dict[str, Any] | UnsetType | None = UNSET


class TaskPage(msgspec.Struct, frozen=True):
    """A page of tasks, the newest first.

    Attributes:
        tasks: The tasks, without their results.
        next: Cursor of the next page; null on the last.
    """

    tasks: list[TaskInfo]
    next: str | None


class TaskCancellation(msgspec.Struct, frozen=True):
    """Outcome of a cancellation.

    Attributes:
        cancelled: Whether this request has cancelled the task.
        detail: What has happened, for a person.
        task: The task as it is now.
    """

    cancelled: bool
    detail: str
    task: TaskInfo


def task_info(task: Task, result: msgspec.Raw | UnsetType = UNSET) -> TaskInfo:
    """Return a task as the API tells it."""
    record = task.record
    done = record.total if record.status is TaskStatus.SUCCEEDED else task.done
    return TaskInfo(
        id=record.id,
        kind=record.kind,
        status=record.status,
        collection=record.collection,
        client=record.client,
        done=done,
        total=record.total,
        body_bytes=record.body_bytes,
        attempts=record.attempts,
        accepted_at=record.accepted_at,
        started_at=record.started_at or None,
        ended_at=record.ended_at or None,
        error=problem_of(from_record(record.error), record.id) if record.error is not None else None,
        # A record's fields are not checked when it is made: bytes that are JSON already stand for any of them.
        result=result,  # type: ignore[arg-type]
    )


class TaskOperations:
    """Operations about tasks. A client sees its own."""

    def __init__(self, core: Core) -> None:
        self._tasks = core.tasks
        self._clock = core.deps.clock
        self._drafts = TaskDrafts(core)
        self._streams = OpenStreams()
        self._keepalive_s = min(KEEPALIVE_S, core.deps.settings.http.write_timeout / 3)

    async def submit(self, kind: TaskKind, request: Request) -> Response:
        """Accept an operation as a task, and answer 202 once it is on the disk."""
        draft, body = await self._drafts.make(kind, request)
        record = await self._tasks.accept(draft.changed(client=request_state(request.scope).client), body)
        headers = {"location": f"/v1/tasks/{record.id}", "retry-after": str(POLL_S)}
        told = msgspec.json.encode(task_info(self._tasks.queue.find(record.id)))
        return Response(told, 202, headers, JSON)

    @ApiEndpoint("GET", "/v1/tasks", query=TasksQuery, scope=Scope.WRITE)
    async def list_tasks(self, request: Request) -> TaskPage:
        """List tasks, the newest first, a page at a time."""
        state = request_state(request.scope)
        query: TasksQuery = state.query
        found = list[TaskInfo]()
        for task in self._tasks.queue.newest_first("" if query.after is UNSET else query.after):
            if query.matches(task) and may_see(state, task):
                if len(found) == query.limit:
                    return TaskPage(found, found[-1].id)
                found.append(task_info(task))
        return TaskPage(found, None)

    @ApiEndpoint("GET", _TASK, scope=Scope.WRITE, error_statuses=(404,))
    async def get_task(self, request: Request) -> TaskInfo:
        """Show a task, with its result once it has ended."""
        task = self._find(request)
        return task_info(task, await self._tasks.read_result(task))

    @ApiEndpoint("POST", f"{_TASK}/cancel", scope=Scope.WRITE, error_statuses=(404, 507))
    async def cancel_task(self, request: Request) -> TaskCancellation:
        """Cancel a task. What it has written stays.

        To cancel one that has ended changes nothing. A restore that has begun is not stopped halfway.
        """
        task = self._find(request)
        if await self._tasks.cancel(task):
            return TaskCancellation(cancelled=True, detail="the task was cancelled", task=task_info(task))
        detail = "a restore that has begun is not stopped halfway"
        if task.record.status.ended:
            detail = f"nothing was changed: the task had ended before, as {task.record.status}"
        return TaskCancellation(cancelled=False, detail=detail, task=task_info(task))

    @ApiEndpoint("GET", f"{_TASK}/events", media_type=EVENT_STREAM, scope=Scope.WRITE, error_statuses=(404,))
    async def follow_task(self, request: Request) -> EventStream:
        """Follow a task as server-sent events: each has the event `task`, and the task as its data.

        The stream ends with the task, when the server shuts down, or after ten minutes. Ask again to go on.
        """
        task, state = self._find(request), request_state(request.scope)
        build_context(request, self._clock)
        self._streams.check(state.client)
        return EventStream(self._events(task, state), self._streams)

    async def _events(self, task: Task, state: RequestState) -> AsyncGenerator[bytes, None]:
        """Yield the task whenever it has changed, as it is then: a slow reader misses what was in between."""
        ends_s = min(self._clock.now() + STREAM_S_MAX, state.deadline_s)
        yield FIRST
        with self._tasks.watch(task.record.id) as changed:
            while self._clock.now() < ends_s:
                changed.clear()
                ended = task.record.status.ended
                yield b"event: task\ndata: %b\n\n" % msgspec.json.encode(task_info(task))
                if ended or self._tasks.stopping:
                    return
                await asyncio.sleep(EVENT_PERIOD_S)
                while not changed.is_set() and self._clock.now() < ends_s:
                    if not await _set_within(changed, self._keepalive_s):
                        yield NOTHING_NEW

    def _find(self, request: Request) -> Task:
        """Return the task that a request's path names.

        Raises:
            Invalid: There is none, or it is another client's (``task_not_found``).
        """
        state = request_state(request.scope)
        return self._tasks.queue.find(request.path_params["task"], lambda task: may_see(state, task))


def may_see(state: RequestState, task: Task) -> bool:
    """Return whether a request may be told of a task: its client, or an administrator of what it concerns."""
    principal = state.principal
    if principal is ANYONE:
        return True
    own = task.record.client == state.client or principal.allows(Scope.ADMIN)
    return own and principal.may_see(task.record.collection)


async def _set_within(event: asyncio.Event, limit_s: float) -> bool:
    try:
        async with asyncio.timeout(limit_s):
            return await event.wait()
    except TimeoutError:
        return False
