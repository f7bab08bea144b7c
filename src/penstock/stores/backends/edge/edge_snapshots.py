"""Snapshots of the embedded store: every collection in one file, and back again.

Each collection is consistent in itself: it is flushed and copied while its updates wait and its searches
go on. Packing works on the copy. A restore is unpacked beside the collections and proven to be readable. Only then are
its collections installed: all of them, even if the process dies on the way.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import msgspec

from penstock import __version__
from penstock.kernel.context import Context, enforce_deadline
from penstock.kernel.errors import Invalid, PenstockError, Rejected, Unavailable
from penstock.stores.backends.edge import archive, ipc, manifest, restore_check, restore_commit
from penstock.stores.backends.edge.disk import COPY_FREE_BYTES_MIN, check_cancelled, check_copy_space, free_bytes
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.process_client import StoreProcessClient
from penstock.stores.backends.edge.restore_check import ExpectedCollection
from penstock.stores.backends.edge.restore_commit import DirectoryMove
from penstock.stores.backends.edge.sharded_store import ShardedStore
from penstock.stores.backends.edge.snapshot_files import SnapshotFiles
from penstock.stores.backends.edge.snapshot_format import SnapshotContents, SnapshotHeader, shard_directory_name
from penstock.stores.backends.layout import describe_models
from penstock.stores.commands import DescribeCollection, DropCollection, ListCollections
from penstock.stores.contract import CollectionDamaged, OnRestored, SnapshotStore, ignore_restored
from penstock.stores.data_model import CollectionInfo, SnapshotInfo

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often a store process that dies while a collection takes its place is asked again.
INSTALL_ATTEMPTS_MAX: Final = 5

#: What a file takes up beside its bytes.
FILE_BYTES: Final = 4096

#: Seconds after which a request that was refused because of another one may be repeated.
BUSY_RETRY_S: Final = 5.0

#: Called at each step of a restore, see ``STEPS``.
OnRestoreStep = Callable[[str], None]

#: Every place at which a crash is tried.
RESTORE_STEPS: Final = ("verified", "unpacked", "proven", "committed", "placed", "done")


def ignore_restore_step(_: str) -> None:
    """Pass a step and do nothing."""


class EdgeSnapshots(SnapshotStore):
    """Snapshots in a directory of the data directory.

    Args:
        data_dir: The data directory.
        clients: The store processes, the first for ``collections`` and so on.
        store: The collections in all of them.
        keep: Snapshots of the server's own making that are kept; 0: all.
        on_step: Called at each of ``STEPS``.

    Bounds: one snapshot is made or restored at a time; it takes two further copies on the disk.
    """

    def __init__(
        self,
        data_dir: Path,
        clients: Sequence[StoreProcessClient],
        store: ShardedStore,
        keep: int = 0,
        on_step: OnRestoreStep = ignore_restore_step,
    ) -> None:
        self._data_dir = data_dir
        self._files = SnapshotFiles(data_dir / "snapshots", keep)
        self._clients = clients
        self._store = store
        self._on_step = on_step
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = threading.Event()

    # --- Public operations

    async def create(self, ctx: Context) -> SnapshotInfo:
        """Make a snapshot of every collection, and remove the oldest of the server's own beyond those it keeps."""
        return await self._run_exclusively(self._create, ctx)

    async def restore(
        self, name: str, layout: CollectionInfo, ctx: Context, *, force: bool, on_restored: OnRestored = ignore_restored
    ) -> list[CollectionInfo]:
        """Restore a snapshot: all of its collections or none."""
        return await self._run_exclusively(lambda: self._restore(name, layout, on_restored, force=force), ctx)

    async def list_snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots that are there, by name."""
        return await self._in_thread(self._files.list_snapshots)

    async def delete(self, name: str) -> None:
        """Delete a snapshot."""
        await self._in_thread(self._files.delete, name)

    def remove_leftovers(self) -> None:
        """Remove leftovers of a crash, before the store processes start and again after that.

        A disk that cannot be written does not prevent the start: the leftovers are logged.
        """
        try:
            restore_commit.sweep_staging(self._data_dir)
            self._files.sweep()
        except OSError as error:
            log.warning("leftovers of a snapshot or restore in %s cannot be removed: %s", self._data_dir, error)

    async def close(self) -> None:
        """Cancel the snapshot or restore that runs and wait for it; a committed restore runs to its end."""
        self._cancelled.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run_exclusively(self, begin: Callable[[], Awaitable[T]], ctx: Context) -> T:
        """Run one snapshot or restore at a time; refuse others until it has ended.

        It runs in its own task, which no cancellation ends at an arbitrary place. When its requester is cancelled,
        it is told so, ends where it can, and removes what it has made.

        Raises:
            Rejected: Something else is at work (``snapshot_busy``).
            Expired: The deadline in ``ctx`` passed.
        """
        if self._task is not None and not self._task.done():
            raise Rejected(
                "another snapshot is being made or restored; ask again when it is done",
                code="snapshot_busy",
                retry_after_s=BUSY_RETRY_S,
            )
        self._cancelled = stopped = threading.Event()
        task = self._task = asyncio.ensure_future(begin())
        task.add_done_callback(_note)
        try:
            async with enforce_deadline(ctx.deadline):
                return await asyncio.shield(task)
        except BaseException:
            stopped.set()
            raise

    # --- Creating a snapshot

    async def _create(self) -> SnapshotInfo:
        now = dt.datetime.now(dt.UTC)
        draft = await self._in_thread(restore_commit.staging_path, self._data_dir)
        try:
            stated, left_out = await self._copy(draft)
            opening = SnapshotHeader(__version__, now.isoformat(timespec="seconds"), stated)
            file = await self._in_thread(self._files.new_path, now)
            size = await self._in_thread(archive.pack, draft, file, opening, self._cancelled)
        finally:
            await asyncio.to_thread(restore_commit.discard_staging, draft)
        if not left_out:
            # An older one may be the last that holds what this one does not.
            await self._in_thread(self._files.prune, file)
        return SnapshotInfo(file.name, size, opening.made_at, [one.name for one in stated], left_out=left_out)

    async def _copy(self, draft: Path) -> tuple[list[Manifest], list[str]]:
        """Copy every collection, one after the other; return their manifests, and the names of damaged ones."""
        await self._in_thread(draft.mkdir, parents=True)
        found = await self._collections()
        # A copy, and the file that is made of it.
        self._check_room(2 * sum(info.disk_bytes for info in found))
        left_out = []
        for info in found:
            try:
                await self._copy_one(info, draft)
            except Unavailable as error:
                if error.code != CollectionDamaged.code:
                    raise
                log.warning("collection %s is not in the snapshot: %s", info.name, error.detail)
                left_out.append(info.name)
                for number in range(info.shards):
                    await asyncio.to_thread(manifest.remove_path, draft / shard_directory_name(info.name, number))
        there = [info.name for info in found if info.name not in left_out]
        return [await self._in_thread(manifest.read_manifest, draft / name) for name in there], left_out

    async def _copy_one(self, info: CollectionInfo, draft: Path) -> None:
        """Copy a collection, shard by shard.

        Raises:
            Unavailable: It cannot be opened (``collection_damaged``).
        """
        for number, client in enumerate(self._clients[: info.shards]):
            await self._in_thread(check_cancelled, self._cancelled)
            target = draft / shard_directory_name(info.name, number)
            await client.call(ipc.CopyCollection(info.name, str(target)), Context.background())

    # --- Restoring a snapshot

    async def _restore(
        self, name: str, layout: CollectionInfo, restored: OnRestored, *, force: bool
    ) -> list[CollectionInfo]:
        reader = await self._in_thread(self._files.open, name)
        staging: Path | None = None
        try:
            # First the cheap checks, then the one that reads all of it.
            opening = await self._in_thread(archive.read_header, reader)
            await self._check(opening, layout, force=force)
            contents = await self._in_thread(archive.verify, reader, self._cancelled)
            self._on_step("verified")
            self._check_room(contents.data_bytes + FILE_BYTES * contents.entries)
            staging = await self._in_thread(restore_commit.staging_path, self._data_dir)
            await self._in_thread(self._unpack, reader, staging, contents)
            await self._check(opening, layout, force=force)
            return await self._install_collections(staging, contents, restored)
        finally:
            reader.close()
            if staging is not None:
                await asyncio.to_thread(restore_commit.sweep_staging, self._data_dir)

    def _unpack(self, reader: IO[bytes], staging: Path, contents: SnapshotContents) -> None:
        """Unpack a snapshot beside the collections, and check that it can be read."""
        archive.unpack(reader, staging, contents, self._cancelled)
        self._on_step("unpacked")
        claims = [ExpectedCollection(str(staging / part), stated) for part, stated in contents.parts.items()]
        file = staging / "claims.json"
        file.write_bytes(msgspec.json.encode(claims))
        restore_check.check_restored(file, contents.data_bytes, self._cancelled)
        self._on_step("proven")
        check_copy_space(self._data_dir)
        check_cancelled(self._cancelled)

    async def _install_collections(
        self, staging: Path, contents: SnapshotContents, restored: OnRestored
    ) -> list[CollectionInfo]:
        """Commit the restore, then install every collection."""
        stated = [one for name, one in sorted(contents.parts.items()) if name == one.name]
        moves = {one.name: self._moves(one) for one in stated}
        await self._in_thread(restore_commit.commit_moves, staging, [move for each in moves.values() for move in each])
        self._on_step("committed")
        placed: list[CollectionInfo] = []
        try:
            for one in stated:
                async with self._store.block_searches(one.name):
                    for move in moves[one.name]:
                        await self._move(staging, move)
                        self._on_step("placed")
                restored(one.name)
                placed += await self._placed(one.name)
        except PenstockError as error:
            # The next start must not do it after all: by then the collections may be others.
            await self._in_thread(restore_commit.withdraw_commit, staging)
            raise _half_done(placed, stated, error) from error
        self._on_step("done")
        return placed

    async def _placed(self, name: str) -> list[CollectionInfo]:
        """Describe an installed collection; nothing, if it was deleted since."""
        try:
            return [await self._store.run(DescribeCollection(name), Context.background())]
        except Invalid as error:
            if error.code != "collection_not_found":
                raise
            return []

    def _moves(self, stated: Manifest) -> list[DirectoryMove]:
        """Return a collection's directory moves; the first shard's comes last, as it makes the collection visible."""
        moves = []
        for number, client in reversed([*enumerate(self._clients)]):
            # Where the one before was spread over more processes, nothing of it is left.
            part = shard_directory_name(stated.name, number) if number < stated.shards else ""
            moves.append(DirectoryMove(client.directory.name, stated.name, part))
        return moves

    async def _move(self, staging: Path, move: DirectoryMove) -> None:
        """Have a store process install or drop a directory; retry if the process dies."""
        client = next(client for client in self._clients if client.directory.name == move.shelf)
        command: ipc.InstallCollection | DropCollection = DropCollection(move.name)
        if move.part:
            command = ipc.InstallCollection(move.name, str(staging / move.part), force=True)
        for tries_left in reversed(range(INSTALL_ATTEMPTS_MAX)):
            try:
                await client.call(command, Context.background())
            except Invalid as error:
                if move.part or error.code != "collection_not_found":
                    raise
            except Unavailable:
                if tries_left:
                    continue
                raise
            return

    async def _check(self, opening: SnapshotHeader, layout: CollectionInfo, *, force: bool) -> None:
        """Refuse collections that could not be searched, or that would replace others without ``force``."""
        there = {info.name for info in await self._collections()} if not force else set()
        for stated in opening.collections:
            _check(stated, layout, len(self._clients), there)

    # --- Shared by both

    async def _collections(self) -> list[CollectionInfo]:
        return await self._clients[0].call(ListCollections(), Context.background())

    def _check_room(self, needed: int) -> None:
        """Refuse an operation that the disk has no room for.

        Raises:
            Unavailable: There is too little room (``disk_full``).
        """
        lacking = needed + COPY_FREE_BYTES_MIN - free_bytes(self._data_dir)
        if lacking > 0:
            raise _full(f"{-(-lacking >> 20)} MiB more are needed")

    async def _in_thread(self, do: Callable[..., T], *args: Any, **named: Any) -> T:
        """Run a file operation in a thread.

        Raises:
            Unavailable: The disk is full (``disk_full``), or the files cannot be read or written.
        """
        try:
            return await asyncio.to_thread(do, *args, **named)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full("nothing has changed") from error
            what = f"{self._data_dir} cannot be read or written: {error.strerror or error}; nothing has changed"
            raise Unavailable(what, dependency="data directory", code="directory_unusable") from error


def _check(stated: CollectionInfo, layout: CollectionInfo, shards: int, there: set[str]) -> None:
    """Refuse a collection of other models, of more shards than there are, or in whose place there is one."""
    theirs, ours = (stated.model, stated.dim, stated.sparse), (layout.model, layout.dim, layout.sparse)
    if theirs != ours or (layout.token_dim and stated.token_dim not in (0, layout.token_dim)):
        raise Invalid(
            f"the snapshot's collection {stated.name!r} holds vectors of {describe_models(stated)}, not of"
            f" {describe_models(layout)} with which this server works; token vectors have {stated.token_dim}"
            f" components there, {layout.token_dim} here",
            field="snapshot",
            code="collection_conflict",
        )
    if stated.shards > shards:
        raise Invalid(
            f"the snapshot's collection {stated.name!r} is spread over {stated.shards} store processes, of which"
            f" {shards} run; set store.shards to {stated.shards} or more",
            field="snapshot",
            code="shards_missing",
        )
    if stated.name in there:
        raise Invalid(
            f"there is a collection {stated.name!r} already; delete it first, or restore with force",
            field="snapshot",
            code="collection_exists",
        )


def _note(task: asyncio.Future[Any]) -> None:
    """Log a task's error: its requester may be gone."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("the snapshot was not made or restored: %s", error)


def _half_done(placed: Sequence[CollectionInfo], stated: Sequence[Manifest], error: PenstockError) -> Unavailable:
    """Return the error of a committed restore of which a collection could not be installed."""
    names = ", ".join(info.name for info in placed) or "none"
    return Unavailable(
        f"only {len(placed)} of {len(stated)} collections were restored ({names}), because the store failed:"
        f" {error.detail}; restore the snapshot again, with force",
        dependency="store",
    )


def _full(what: str) -> Unavailable:
    return Unavailable(
        f"there is no room on the disk of the data directory: {what}; delete snapshots (DELETE /v1/snapshots/NAME) or"
        " collections, or make room there, and try again",
        dependency="store",
        code="disk_full",
    )
