"""Operations about snapshots."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from penstock.core.core import Core
from penstock.http import request_bodies, responses
from penstock.http.endpoints import ApiEndpoint
from penstock.http.request_context import build_context
from penstock.http.task_operations import TaskWaitQuery
from penstock.kernel.context import Context
from penstock.kernel.messages import CollectionCreated, Topic
from penstock.stores.data_model import TEXT_FOLDED, CollectionInfo, SnapshotInfo
from penstock.tasks.records import TaskKind

_SNAPSHOT: Final = "/v1/snapshots/{name}"


def collection_layout(core: Core, name: str = "") -> CollectionInfo:
    """Return a collection as this server makes it."""
    layout, token_dim = core.layout, core.embedder.token_dim
    return CollectionInfo(
        name, layout.dim, layout.model, token_dim=token_dim, sparse=layout.sparse_model, text=TEXT_FOLDED
    )


class SnapshotOperations:
    """The operations, one method for each endpoint."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @ApiEndpoint("POST", "/v1/snapshots", query=TaskWaitQuery, task=TaskKind.MAKE_SNAPSHOT, error_statuses=(507,))
    async def make_snapshot(self, request: Request) -> SnapshotInfo:
        """Make a snapshot of every collection, a file in the data directory."""
        return await self._core.deps.snapshots.create(build_context(request, self._core.deps.clock))

    @ApiEndpoint("GET", "/v1/snapshots")
    async def list_snapshots(self, _request: Request) -> responses.SnapshotList:
        """List the snapshots in the data directory."""
        return responses.SnapshotList(await self._core.deps.snapshots.list_snapshots())

    @ApiEndpoint("DELETE", _SNAPSHOT, error_statuses=(404,))
    async def delete_snapshot(self, request: Request) -> responses.DeleteResponse:
        """Delete a snapshot in the data directory."""
        await self._core.deps.snapshots.delete(request.path_params["name"])
        return responses.DeleteResponse(1)

    @ApiEndpoint(
        "POST",
        f"{_SNAPSHOT}/restore",
        body_required=False,
        query=TaskWaitQuery,
        task=TaskKind.RESTORE_SNAPSHOT,
        error_statuses=(404, 409, 507),
    )
    async def restore_snapshot(self, request: Request, body: request_bodies.RestoreBody) -> responses.CollectionList:
        """Restore the collections of a snapshot in the data directory."""
        name, ctx = request.path_params["name"], build_context(request, self._core.deps.clock)
        return responses.CollectionList(await self.restore(name, ctx, force=body.force))

    async def restore(self, name: str, ctx: Context, *, force: bool) -> list[CollectionInfo]:
        """Restore a snapshot, and publish its collections on the bus."""
        # ``on_restored`` runs even if the caller has hung up, since restored collections stay in place.
        restored = await self._core.deps.snapshots.restore(
            name, collection_layout(self._core), ctx, force=force, on_restored=self._on_restored
        )
        for info in restored:
            await self._core.bus.publish(Topic.COLLECTION_CREATED, CollectionCreated(info.name), ctx)
        return restored

    def _on_restored(self, collection: str) -> None:
        """Drop the cached results and the incompatibility of a collection that a restore has replaced."""
        self._core.forget(collection)
        self._core.incompatible.pop(collection, None)
        self._core.deps.source_watches.changed.set()
