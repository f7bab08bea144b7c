"""The two clients. They share every request, every answer and every decision to retry; only I/O is their own."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar, Unpack

import httpx

from penstock.client import calls, uploads
from penstock.client.calls import DEFAULT, ApiCall
from penstock.client.errors import NotReachable, error_from, retry_after_s
from penstock.client.records import Hit, IndexReport, SearchOptions, StoredDocument
from penstock.client.task_records import ServerTask, wait_steps
from penstock.kernel.errors import Expired, PenstockError
from penstock.policies.retry import RetryBudget, RetrySettings

T = TypeVar("T")
S = TypeVar("S")
P = ParamSpec("P")
M = TypeVar("M", bound=Callable[..., Any])

URL: Final = "http://127.0.0.1:8080"
CONNECT_TIMEOUT_S: Final = 5.0
#: A server that keeps the deadline answers 504; this is for one that does not.
DEADLINE_SLACK_S: Final = 1.0
FIRST_DELAY_S: Final = 0.5
DELAY_S_MAX: Final = 15.0
#: A server that asks for more is not waited for.
RETRY_AFTER_S_MAX: Final = 60.0
#: One in ten calls may be a retry, and ten retries a second besides.
BUDGET: Final = RetrySettings(ratio=0.1, saved_max=10.0, per_s_min=10.0)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of calls.

    Attributes:
        timeout_s: Seconds for a call with its retries, told to the server as its deadline. ``None`` for the server's.
        criticality: ``interactive``, ``standard`` or ``bulk``; empty for the endpoint's own class.
        api_key: Key that tells this client from others; empty to be told by the address.
        attempts_max: Attempts at most; ``None`` for those of the call: 4, or 12 for bulk work.
        patience_s: Seconds that a refused call waits in all, however many attempts that makes; 0 to count those.
        on_wait: Called with the refusal and the seconds until the next attempt, before each wait.
    """

    timeout_s: float | None = None
    criticality: str = ""
    api_key: str = ""
    attempts_max: int | None = None
    patience_s: float = 0.0
    on_wait: Callable[[PenstockError, float], object] = lambda _error, _wait_s: None


def delay_s(attempt: int, asked_s: float, jitter: float) -> float:
    """Return the seconds before the next attempt.

    They are the server's ``Retry-After`` or an exponential delay, whichever is longer, plus up to half of it: clients
    that were refused together should not come back together.

    Args:
        attempt: Attempts made so far, from 1.
        asked_s: The ``Retry-After``.
        jitter: Uniform in [0, 1).
    """
    backoff_s = min(DELAY_S_MAX, FIRST_DELAY_S * 2.0 ** min(attempt - 1, 10))
    return max(asked_s, backoff_s) * (1 + jitter / 2)


def _following(options: SearchOptions, cursor: str) -> SearchOptions:
    """Return the options of the next page. An offset counts once, from the beginning."""
    following = options.copy()
    following.pop("offset", None)
    following["cursor"] = cursor
    return following


class _CallRunner:
    """Attempts of a client's calls, without I/O.

    Bounds: ``attempts_max`` attempts of a call, and the retries that ``BUDGET`` allows.
    """

    def __init__(self, build_request: Callable[..., httpx.Request], label: str) -> None:
        self._build_request = build_request
        self._label = label
        self._budget = RetryBudget(BUDGET)

    def run(self, call: ApiCall[T], options: CallOptions) -> Generator[httpx.Request | float, Any, T]:
        """Yield requests to send and seconds to wait, take in answers or errors of httpx, and return the answer."""
        ends_s = None if options.timeout_s is None else time.monotonic() + options.timeout_s
        attempts_max = options.attempts_max or call.attempts_max
        attempt, waited_s = 0, 0.0
        self._budget.earn()
        while True:
            attempt += 1
            answer = yield self._request(call, options, ends_s)
            if isinstance(answer, httpx.TimeoutException):
                raise Expired("request", f"no answer from {self._label} in time") from answer
            if isinstance(answer, httpx.TransportError):
                reason = str(answer) or type(answer).__name__
                raise NotReachable(f"lost {self._label}: {reason}", dependency="server") from answer
            if answer.status_code < 400:
                return call.read(answer.content)
            error = error_from(answer.status_code, answer.headers, answer.content)
            more = attempt < attempts_max or waited_s < options.patience_s
            wait_s = self._wait_s(answer, attempt, ends_s) if more else None
            if wait_s is None:
                raise error
            waited_s += wait_s
            options.on_wait(error, wait_s)
            yield wait_s

    def _wait_s(self, answer: httpx.Response, attempt: int, ends_s: float | None) -> float | None:
        """Return the seconds before the next attempt, ``None`` if there is to be none."""
        asked_s = retry_after_s(answer.headers) if answer.status_code in {429, 503} else None
        if asked_s is None or asked_s > RETRY_AFTER_S_MAX:
            return None
        wait_s, now_s = delay_s(attempt, asked_s, random.random()), time.monotonic()  # noqa: S311
        in_time = ends_s is None or now_s + wait_s < ends_s
        return wait_s if in_time and self._budget.spend(now_s) else None

    def _request(self, call: ApiCall[Any], options: CallOptions, ends_s: float | None) -> httpx.Request:
        headers = {"content-type": "application/json"} if call.body is not None else {}
        told = {"x-criticality": options.criticality, "x-api-key": options.api_key}
        headers |= {name: value for name, value in told.items() if value}
        read_s = call.read_timeout_s
        if ends_s is not None:
            left_s = max(0.001, ends_s - time.monotonic())
            headers["x-request-timeout-ms"] = str(round(left_s * 1000) or 1)
            read_s = left_s + DEADLINE_SLACK_S
        timeout = httpx.Timeout(read_s, connect=min(read_s, CONNECT_TIMEOUT_S))
        query = call.query or None
        return self._build_request(
            call.method, call.path, content=call.body, params=query, headers=headers, timeout=timeout
        )


class _Configurable:
    """Options that a client applies to each call."""

    options: CallOptions

    def with_options(self, **changes: Any) -> Self:
        """Return a client on the same connections with other :class:`CallOptions`, such as ``timeout_s=2``."""
        other = copy.copy(self)
        other.options = replace(self.options, **changes)
        return other


def _blocking(build: Callable[P, ApiCall[T]]) -> Callable[Concatenate[Client, P], T]:
    """Return the method of :class:`Client` that makes a call."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    return _named_after(build, method)


def _awaited(build: Callable[P, ApiCall[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Return the method of :class:`AsyncClient` that makes a call."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(build(*args, **kwargs))

    return _named_after(build, method)


def _named_after(build: Callable[..., Any], method: M) -> M:
    functools.update_wrapper(method, build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    signature = inspect.signature(build)
    method.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])  # type: ignore[attr-defined]
    return method


class Client(_Configurable):
    """Client of one server.

    Its methods raise the errors of the families in :mod:`penstock.kernel.errors`, each with ``code``, ``status`` and
    ``request_id``. Calls that were refused are repeated after the server's ``Retry-After``.

    Args:
        url: The server.
        options: Options of every call.
        transport: Transport of httpx; the default connects to the server, without the environment's proxies.
        label: What errors call the server.
        sleep: Waits before a retry.
    """

    def __init__(
        self,
        url: str = URL,
        options: CallOptions = CallOptions(),
        *,
        transport: httpx.BaseTransport | None = None,
        label: str = "",
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.options = options
        # Loading the certificates takes time that plain HTTP need not pay.
        tls = url.startswith("https")
        self._http = httpx.Client(base_url=url, transport=transport, trust_env=False, verify=tls)
        self._runner = _CallRunner(self._http.build_request, label or f"the server at {url}")
        self._sleep = sleep

    def send(self, call: ApiCall[T]) -> T:
        """Make a call of :mod:`penstock.client.calls` and return its answer."""
        return self._drive(self._runner.run(call, self.options), self._http.send)

    def _drive(self, steps: Generator[S | float, Any, T], perform: Callable[[S], object]) -> T:
        """Do what the steps ask for, and return what they return."""
        outcome: object = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                answer: T = done.value
                return answer
            try:
                outcome = self._sleep(step) if isinstance(step, float) else perform(step)
            except (httpx.TransportError, PenstockError) as error:
                outcome = error

    def iter_documents(self, collection: str = DEFAULT, path_prefix: str | None = None) -> Iterator[StoredDocument]:
        """Yield the documents of a collection, page by page."""
        after: str | None = None
        while True:
            page = self.list_documents(collection, after=after, path_prefix=path_prefix)
            yield from page.documents
            if page.next is None or page.next == after:
                return
            after = page.next

    def iter_search(
        self, query: str | None, collection: str | Sequence[str] = DEFAULT, **options: Unpack[SearchOptions]
    ) -> Iterator[Hit]:
        """Yield the hits of a search, page by page, ``limit`` on each; 1 000 in all at most."""
        while True:
            page = self.search(query, collection, **options)
            yield from page.hits
            if page.next is None:
                return
            options = _following(options, page.next)

    def wait_for(
        self, id: str, progress: Callable[[ServerTask], object] | None = None, timeout_s: float | None = None
    ) -> ServerTask:
        """Wait until a task has ended, also through a restart of the server, and return it as it ended.

        Args:
            id: The task's id.
            progress: Called with the task at each look.
            timeout_s: How long to wait at most.

        Raises:
            Expired: It has not ended in time. It goes on.
        """
        steps = wait_steps(calls.get_task(id), progress, timeout_s, time.monotonic)
        return self._drive(steps, self.send)

    def upload(
        self,
        documents: Iterable[uploads.UploadDocument],
        collection: str = DEFAULT,
        settings: uploads.UploadSettings = uploads.UPLOAD_DEFAULTS,
        *,
        progress: Callable[[uploads.UploadReport], object] | None = None,
        failed: Callable[[uploads.UploadFailure], object] | None = None,
    ) -> uploads.UploadReport:
        """uploads.Upload any number of documents, in batches, several at once, as fast as the server takes them.

        To go on with an upload that was interrupted, repeat it: what the server has is told as ``unchanged``.

        Args:
            documents: Records, mappings, or JSON objects as ``msgspec.Raw``. They are taken when they are sent.
            collection: The collection, which must be there.
            settings: Bounds.
            progress: Called after each answer, in this thread.
            failed: Called with each document that could not be uploaded, in this thread.

        Raises:
            PenstockError: The upload cannot go on, or nothing was taken for ``patience_s``.
        """
        upload = uploads.Upload(documents, collection, settings, progress, failed)
        under_way: dict[Future[IndexReport], uploads.UploadBatch] = {}
        with ThreadPoolExecutor(settings.concurrency, "penstock-upload") as pool:
            while not upload.done:
                step = upload.next(time.monotonic())
                if isinstance(step, uploads.UploadBatch):
                    under_way[pool.submit(self.send, upload.call(step))] = step
                elif under_way:
                    for one in futures.wait(under_way, step, return_when=futures.FIRST_COMPLETED).done:
                        upload.answered(under_way.pop(one), uploads.outcome_of(one), time.monotonic())
                elif step is not None:
                    self._sleep(step)
        return upload.report

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    search = _blocking(calls.search)
    list_collections = _blocking(calls.list_collections)
    create_collection = _blocking(calls.create_collection)
    get_collection = _blocking(calls.get_collection)
    renew_collection = _blocking(calls.renew_collection)
    delete_collection = _blocking(calls.delete_collection)
    index_documents = _blocking(calls.index_documents)
    list_documents = _blocking(calls.list_documents)
    get_document = _blocking(calls.get_document)
    delete_documents = _blocking(calls.delete_documents)
    list_sources = _blocking(calls.list_sources)
    put_source = _blocking(calls.put_source)
    delete_source = _blocking(calls.delete_source)
    embed = _blocking(calls.embed)
    sparse = _blocking(calls.sparse)
    rerank = _blocking(calls.rerank)
    make_snapshot = _blocking(calls.make_snapshot)
    list_snapshots = _blocking(calls.list_snapshots)
    delete_snapshot = _blocking(calls.delete_snapshot)
    restore_snapshot = _blocking(calls.restore_snapshot)
    list_keys = _blocking(calls.list_keys)
    create_key = _blocking(calls.create_key)
    rotate_key = _blocking(calls.rotate_key)
    revoke_key = _blocking(calls.revoke_key)
    submit = _blocking(calls.submit)
    list_tasks = _blocking(calls.list_tasks)
    get_task = _blocking(calls.get_task)
    cancel_task = _blocking(calls.cancel_task)
    status = _blocking(calls.status)
    alerts = _blocking(calls.alerts)


class AsyncClient(_Configurable):
    """Client of one server, for asyncio. Otherwise as :class:`Client`.

    Args:
        url: The server.
        options: Options of every call.
        transport: Transport of httpx; the default connects to the server, without the environment's proxies.
        label: What errors call the server.
        sleep: Waits before a retry.
    """

    def __init__(
        self,
        url: str = URL,
        options: CallOptions = CallOptions(),
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        label: str = "",
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.options = options
        tls = url.startswith("https")
        self._http = httpx.AsyncClient(base_url=url, transport=transport, trust_env=False, verify=tls)
        self._runner = _CallRunner(self._http.build_request, label or f"the server at {url}")
        self._sleep = sleep

    async def send(self, call: ApiCall[T]) -> T:
        """Make a call of :mod:`penstock.client.calls` and return its answer."""
        return await self._drive(self._runner.run(call, self.options), self._http.send)

    async def _drive(self, steps: Generator[S | float, Any, T], perform: Callable[[S], Awaitable[object]]) -> T:
        """Do what the steps ask for, and return what they return."""
        outcome: object = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                answer: T = done.value
                return answer
            try:
                outcome = await (self._sleep(step) if isinstance(step, float) else perform(step))
            except (httpx.TransportError, PenstockError) as error:
                outcome = error

    async def iter_documents(
        self, collection: str = DEFAULT, path_prefix: str | None = None
    ) -> AsyncIterator[StoredDocument]:
        """Yield the documents of a collection, page by page."""
        after: str | None = None
        while True:
            page = await self.list_documents(collection, after=after, path_prefix=path_prefix)
            for one in page.documents:
                yield one
            if page.next is None or page.next == after:
                return
            after = page.next

    async def iter_search(
        self, query: str | None, collection: str | Sequence[str] = DEFAULT, **options: Unpack[SearchOptions]
    ) -> AsyncIterator[Hit]:
        """Yield the hits of a search, page by page, ``limit`` on each; 1 000 in all at most."""
        while True:
            page = await self.search(query, collection, **options)
            for one in page.hits:
                yield one
            if page.next is None:
                return
            options = _following(options, page.next)

    async def wait_for(
        self, id: str, progress: Callable[[ServerTask], object] | None = None, timeout_s: float | None = None
    ) -> ServerTask:
        """Wait until a task has ended, as :meth:`Client.wait_for`."""
        steps = wait_steps(calls.get_task(id), progress, timeout_s, time.monotonic)
        return await self._drive(steps, self.send)

    async def upload(
        self,
        documents: Iterable[uploads.UploadDocument],
        collection: str = DEFAULT,
        settings: uploads.UploadSettings = uploads.UPLOAD_DEFAULTS,
        *,
        progress: Callable[[uploads.UploadReport], object] | None = None,
        failed: Callable[[uploads.UploadFailure], object] | None = None,
    ) -> uploads.UploadReport:
        """uploads.Upload any number of documents, as :meth:`Client.upload`."""
        upload = uploads.Upload(documents, collection, settings, progress, failed)
        under_way: dict[asyncio.Task[IndexReport], uploads.UploadBatch] = {}
        try:
            while not upload.done:
                step = upload.next(time.monotonic())
                if isinstance(step, uploads.UploadBatch):
                    under_way[asyncio.create_task(self.send(upload.call(step)))] = step
                elif under_way:
                    ended, _ = await asyncio.wait(under_way, timeout=step, return_when=asyncio.FIRST_COMPLETED)
                    for one in ended:
                        upload.answered(under_way.pop(one), uploads.outcome_of(one), time.monotonic())
                elif step is not None:
                    await self._sleep(step)
        finally:
            for one in under_way:
                one.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        return upload.report

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    search = _awaited(calls.search)
    list_collections = _awaited(calls.list_collections)
    create_collection = _awaited(calls.create_collection)
    get_collection = _awaited(calls.get_collection)
    renew_collection = _awaited(calls.renew_collection)
    delete_collection = _awaited(calls.delete_collection)
    index_documents = _awaited(calls.index_documents)
    list_documents = _awaited(calls.list_documents)
    get_document = _awaited(calls.get_document)
    delete_documents = _awaited(calls.delete_documents)
    list_sources = _awaited(calls.list_sources)
    put_source = _awaited(calls.put_source)
    delete_source = _awaited(calls.delete_source)
    embed = _awaited(calls.embed)
    sparse = _awaited(calls.sparse)
    rerank = _awaited(calls.rerank)
    make_snapshot = _awaited(calls.make_snapshot)
    list_snapshots = _awaited(calls.list_snapshots)
    delete_snapshot = _awaited(calls.delete_snapshot)
    restore_snapshot = _awaited(calls.restore_snapshot)
    list_keys = _awaited(calls.list_keys)
    create_key = _awaited(calls.create_key)
    rotate_key = _awaited(calls.rotate_key)
    revoke_key = _awaited(calls.revoke_key)
    submit = _awaited(calls.submit)
    list_tasks = _awaited(calls.list_tasks)
    get_task = _awaited(calls.get_task)
    cancel_task = _awaited(calls.cancel_task)
    status = _awaited(calls.status)
    alerts = _awaited(calls.alerts)
