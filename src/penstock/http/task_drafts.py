"""Drafts of tasks: an operation is checked as its request would be, before it is accepted."""

from __future__ import annotations

from starlette.requests import Request

from penstock.core.core import Core
from penstock.http import request_bodies
from penstock.http.decoding import decode_body
from penstock.http.documents import media_type, parse_documents
from penstock.http.request_context import build_context
from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.stores.commands import DescribeCollection
from penstock.stores.contract import check_usable
from penstock.tasks.records import TaskKind, TaskRecord


class TaskDrafts:
    """Maker of drafts."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._clock = core.deps.clock

    async def make(self, kind: TaskKind, request: Request) -> tuple[TaskRecord, bytes]:
        """Return the record and the body of a request's task, once the request is known to be sound.

        Raises:
            PenstockError: What the operation itself would refuse it for, as far as that can be told now.
        """
        drafts = {
            TaskKind.INDEX_DOCUMENTS: self._draft_documents,
            TaskKind.RENEW_COLLECTION: self._draft_renewal,
            TaskKind.MAKE_SNAPSHOT: self._draft_snapshot,
            TaskKind.RESTORE_SNAPSHOT: self._draft_restore,
        }
        return await drafts[kind](request)

    async def _draft_documents(self, request: Request) -> tuple[TaskRecord, bytes]:
        collection, kind, body = request.path_params["name"], media_type(request), await request.body()
        found = await parse_documents(body, kind, self._clock, lambda wish: build_context(request, self._clock, wish))
        found.raise_if_all_failed([])
        await self._check_collection(collection, found.ctx)
        record = _record(TaskKind.INDEX_DOCUMENTS, collection, media_type=kind)
        return record.changed(total=len(found.entries) + found.unreported), body

    async def _draft_renewal(self, request: Request) -> tuple[TaskRecord, bytes]:
        collection = request.path_params["name"]
        await self._check_collection(collection, build_context(request, self._clock))
        return _record(TaskKind.RENEW_COLLECTION, collection), b""

    async def _draft_snapshot(self, request: Request) -> tuple[TaskRecord, bytes]:
        build_context(request, self._clock)  # refuses what has come too late
        return _record(TaskKind.MAKE_SNAPSHOT), b""

    async def _draft_restore(self, request: Request) -> tuple[TaskRecord, bytes]:
        body = await decode_body(await request.body() or b"{}", request_bodies.RestoreBody)
        name = request.path_params["name"]
        if all(one.name != name for one in await self._core.deps.snapshots.list_snapshots()):
            detail = f"there is no snapshot {name!r}; `GET /v1/snapshots` lists them"
            raise Invalid(detail, field="name", code="snapshot_not_found")
        force = "true" if body.force else "false"
        return _record(TaskKind.RESTORE_SNAPSHOT, snapshot=name, force=force), b""

    async def _check_collection(self, name: str, ctx: Context) -> None:
        """Refuse a collection that cannot be written.

        Raises:
            PenstockError: It does not exist, is damaged, or another model made it.
        """
        info = self._core.incompatible.get(name)
        if info is not None:
            self._core.layout.check(info)
        check_usable(await self._core.store.run(DescribeCollection(name), ctx))


def _record(kind: TaskKind, collection: str = "", **arguments: str) -> TaskRecord:
    return TaskRecord(id="", kind=kind, client="", collection=collection, arguments=arguments)
