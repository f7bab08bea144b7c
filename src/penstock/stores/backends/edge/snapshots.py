"""Snapshots of the embedded store: every collection in one file, and back again.

Each collection is consistent in itself: it is flushed and copied while its updates wait and its searches
go on. Packing works on the copy. A restore is unpacked beside the collections and proven to be readable; only then
its collections take their places, all of them whatever happens meanwhile.
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
from penstock.kernel.context import Context
from penstock.kernel.deadline import limit
from penstock.kernel.errors import Invalid, PenstockError, Rejected, Unavailable
from penstock.stores.backends.edge import adoption, archive, manifest, proof, wire
from penstock.stores.backends.edge.adoption import Move
from penstock.stores.backends.edge.contents import Contents, Opening, part_name
from penstock.stores.backends.edge.copying import FREE_BYTES_MIN, check_space, check_stopped
from penstock.stores.backends.edge.link import StoreLink
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.proof import Claim
from penstock.stores.backends.edge.shards import ShardedStore
from penstock.stores.backends.edge.snapshot_files import SnapshotFiles
from penstock.stores.backends.edge.space import free_bytes
from penstock.stores.backends.layout import said
from penstock.stores.contract import Restored, unheard
from penstock.stores.errors import CollectionDamaged
from penstock.stores.records import CollectionInfo, Snapshot

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often a store process that dies while a collection takes its place is asked again.
TRIES: Final = 5

#: What a file takes up beside its bytes.
FILE_BYTES: Final = 4096

#: Seconds after which those who came while another was at work may ask again.
BUSY_RETRY_S: Final = 5.0

#: Called at each step of a restore, see ``STEPS``.
Step = Callable[[str], None]

#: Every place at which a crash is tried.
STEPS: Final = ("verified", "unpacked", "proven", "committed", "placed", "done")


def unwatched(_: str) -> None:
    """Pass a step and do nothing."""


class EdgeSnapshots:
    """Snapshots in a directory of the data directory; see :class:`penstock.stores.contract.Snapshots`.

    Args:
        data_dir: The data directory.
        links: The store processes, the first for ``collections`` and so on.
        store: The collections in all of them.
        keep: Snapshots of the server's own making that are kept; 0: all.
        step: Called at each of ``STEPS``.

    Bounds: one snapshot is made or restored at a time; on the disk two further copies meanwhile.
    """

    def __init__(
        self,
        data_dir: Path,
        links: Sequence[StoreLink],
        store: ShardedStore,
        keep: int = 0,
        step: Step = unwatched,
    ) -> None:
        self._data_dir = data_dir
        self._files = SnapshotFiles(data_dir / "snapshots", keep)
        self._links = links
        self._store = store
        self._step = step
        self._at_work: asyncio.Task[Any] | None = None
        self._stopped = threading.Event()

    # --- What is asked

    async def make(self, ctx: Context) -> Snapshot:
        """Make a snapshot of every collection, and remove the oldest of the server's own beyond those it keeps."""
        return await self._alone(self._make, ctx)

    async def restore(
        self, name: str, layout: CollectionInfo, ctx: Context, *, force: bool, restored: Restored = unheard
    ) -> list[CollectionInfo]:
        """Take in what a snapshot holds, all of it or nothing."""
        return await self._alone(lambda: self._restore(name, layout, restored, force=force), ctx)

    async def kept(self) -> list[Snapshot]:
        """Return the snapshots that are there, by name."""
        return await self._in_thread(self._files.kept)

    async def delete(self, name: str) -> None:
        """Delete a snapshot."""
        await self._in_thread(self._files.delete, name)

    def recover(self) -> None:
        """Remove what a crash has left, before the store processes start and again when they have.

        A disk that cannot be written is no reason not to start: what is left there is told.
        """
        try:
            adoption.sweep(self._data_dir)
            self._files.sweep()
        except OSError as error:
            log.warning("what a snapshot or restore has left in %s cannot be removed: %s", self._data_dir, error)

    async def close(self) -> None:
        """End what is being made or restored; a restore that is committed comes to its end."""
        self._stopped.set()
        if self._at_work is not None:
            await asyncio.wait([self._at_work])

    async def _alone(self, begin: Callable[[], Awaitable[T]], ctx: Context) -> T:
        """Do one thing at a time, and tell whoever comes meanwhile.

        It is a task of its own, which no cancellation ends at an arbitrary place: it is told that nobody waits any
        more, ends where it can, and removes what it has made.

        Raises:
            Rejected: Something else is at work (``snapshot_busy``).
            Expired: At the work's deadline.
        """
        if self._at_work is not None and not self._at_work.done():
            raise Rejected(
                "another snapshot is being made or restored; ask again when it is done",
                code="snapshot_busy",
                retry_after_s=BUSY_RETRY_S,
            )
        self._stopped = stopped = threading.Event()
        task = self._at_work = asyncio.ensure_future(begin())
        task.add_done_callback(_note)
        try:
            async with limit(ctx.deadline):
                return await asyncio.shield(task)
        except BaseException:
            stopped.set()
            raise

    # --- Making one

    async def _make(self) -> Snapshot:
        now = dt.datetime.now(dt.UTC)
        draft = await self._in_thread(adoption.stage, self._data_dir)
        try:
            stated, left_out = await self._copy(draft)
            opening = Opening(__version__, now.isoformat(timespec="seconds"), stated)
            file = await self._in_thread(self._files.unused, now)
            size = await self._in_thread(archive.pack, draft, file, opening, self._stopped)
        finally:
            await asyncio.to_thread(adoption.discard, draft)
        if not left_out:
            # An older one may be the last that holds what this one does not.
            await self._in_thread(self._files.prune, file)
        return Snapshot(file.name, size, opening.made_at, [one.name for one in stated], left_out=left_out)

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
                    await asyncio.to_thread(manifest.remove, draft / part_name(info.name, number))
        there = [info.name for info in found if info.name not in left_out]
        return [await self._in_thread(manifest.read, draft / name) for name in there], left_out

    async def _copy_one(self, info: CollectionInfo, draft: Path) -> None:
        """Copy a collection, shard by shard.

        Raises:
            Unavailable: It cannot be opened (``collection_damaged``).
        """
        for number, link in enumerate(self._links[: info.shards]):
            await self._in_thread(check_stopped, self._stopped)
            target = draft / part_name(info.name, number)
            await link.ask(wire.Copy(info.name, str(target)), object, Context.background())

    # --- Restoring one

    async def _restore(
        self, name: str, layout: CollectionInfo, restored: Restored, *, force: bool
    ) -> list[CollectionInfo]:
        reader = await self._in_thread(self._files.open, name)
        staging: Path | None = None
        try:
            # First what is told at once, then what takes reading all of it.
            opening = await self._in_thread(archive.read_opening, reader)
            await self._check(opening, layout, force=force)
            contents = await self._in_thread(archive.verify, reader, self._stopped)
            self._step("verified")
            self._check_room(contents.data_bytes + FILE_BYTES * contents.entries)
            staging = await self._in_thread(adoption.stage, self._data_dir)
            await self._in_thread(self._unpack, reader, staging, contents)
            await self._check(opening, layout, force=force)
            return await self._exchange(staging, contents, restored)
        finally:
            reader.close()
            if staging is not None:
                await asyncio.to_thread(adoption.sweep, self._data_dir)

    def _unpack(self, reader: IO[bytes], staging: Path, contents: Contents) -> None:
        """Write what a snapshot holds beside the collections, and have it proven that it can be read."""
        archive.unpack(reader, staging, contents, self._stopped)
        self._step("unpacked")
        claims = [Claim(str(staging / part), stated) for part, stated in contents.parts.items()]
        file = staging / "claims.json"
        file.write_bytes(msgspec.json.encode(claims))
        proof.prove(file, contents.data_bytes, self._stopped)
        self._step("proven")
        check_space(self._data_dir)
        check_stopped(self._stopped)

    async def _exchange(self, staging: Path, contents: Contents, restored: Restored) -> list[CollectionInfo]:
        """Let every collection take its place; nothing undoes that any more."""
        stated = [one for name, one in sorted(contents.parts.items()) if name == one.name]
        moves = {one.name: self._moves(one) for one in stated}
        await self._in_thread(adoption.commit, staging, [move for each in moves.values() for move in each])
        self._step("committed")
        placed: list[CollectionInfo] = []
        try:
            for one in stated:
                async with self._store.exchanging(one.name):
                    for move in moves[one.name]:
                        await self._move(staging, move)
                        self._step("placed")
                restored(one.name)
                placed += await self._placed(one.name)
        except PenstockError as error:
            # The next start must not do it after all: by then the collections may be others.
            await self._in_thread(adoption.withdraw, staging)
            raise _half_done(placed, stated, error) from error
        self._step("done")
        return placed

    async def _placed(self, name: str) -> list[CollectionInfo]:
        """Describe a collection that has taken its place; nothing, if it was deleted since."""
        try:
            return [await self._store.collection(name, Context.background())]
        except Invalid as error:
            if error.code != "collection_not_found":
                raise
            return []

    def _moves(self, stated: Manifest) -> list[Move]:
        """Return what happens to a collection: the first shard comes last, it says that the collection is there."""
        moves = []
        for number, link in reversed([*enumerate(self._links)]):
            # Where the one before was spread over more processes, nothing of it is left.
            part = part_name(stated.name, number) if number < stated.shards else ""
            moves.append(Move(link.directory.name, stated.name, part))
        return moves

    async def _move(self, staging: Path, move: Move) -> None:
        """Have a store process let a directory take its place; one that dies is asked again."""
        link = next(link for link in self._links if link.directory.name == move.shelf)
        command: wire.Adopt | wire.Drop = wire.Drop(move.name)
        if move.part:
            command = wire.Adopt(move.name, str(staging / move.part), force=True)
        for tries_left in reversed(range(TRIES)):
            try:
                await link.ask(command, object, Context.background())
            except Invalid as error:
                if move.part or error.code != "collection_not_found":
                    raise
            except Unavailable:
                if tries_left:
                    continue
                raise
            return

    async def _check(self, opening: Opening, layout: CollectionInfo, *, force: bool) -> None:
        """Refuse, before anything is touched, what could not be searched or would be replaced unasked."""
        there = {info.name for info in await self._collections()} if not force else set()
        for stated in opening.collections:
            _check(stated, layout, len(self._links), there)

    # --- What both need

    async def _collections(self) -> list[CollectionInfo]:
        return await self._links[0].ask(wire.ListCollections(), list[CollectionInfo], Context.background())

    def _check_room(self, needed: int) -> None:
        """Refuse what the disk has no room for.

        Raises:
            Unavailable: It has not (``disk_full``).
        """
        lacking = needed + FREE_BYTES_MIN - free_bytes(self._data_dir)
        if lacking > 0:
            raise _full(f"{-(-lacking >> 20)} MiB more are needed")

    async def _in_thread(self, do: Callable[..., T], *args: Any, **named: Any) -> T:
        """Do something with files in a thread.

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
    if theirs != ours or (layout.late and stated.late not in (0, layout.late)):
        raise Invalid(
            f"the snapshot's collection {stated.name!r} holds vectors of {said(stated)}, not of"
            f" {said(layout)} with which this server works; late is {stated.late} there, {layout.late} here",
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
            f"there is a collection {stated.name!r} already; delete it first, or restore by force",
            field="snapshot",
            code="collection_exists",
        )


def _note(task: asyncio.Future[Any]) -> None:
    """Look at how a task has ended: nobody may be waiting for it any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("no snapshot was made or restored: %s", error)


def _half_done(placed: Sequence[CollectionInfo], stated: Sequence[Manifest], error: PenstockError) -> Unavailable:
    """Return the error of a restore whose collections were proven, and of which one could not take its place."""
    names = ", ".join(info.name for info in placed) or "none"
    return Unavailable(
        f"only {len(placed)} of {len(stated)} collections have taken their places ({names}), since the store failed:"
        f" {error.detail}; restore the snapshot again, by force",
        dependency="store",
    )


def _full(what: str) -> Unavailable:
    return Unavailable(
        f"there is no room on the disk of the data directory: {what}; delete snapshots (DELETE /v1/snapshots/NAME) or"
        " collections, or make room there, and try again",
        dependency="store",
        code="disk_full",
    )
