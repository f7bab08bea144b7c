"""Vector store behind its guard: the same Protocol, refused at once while the breaker is open."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.pools.guard import Guard
from penstock.pools.remote_dependency import RemoteDependency
from penstock.stores.commands import CollectionCommand, DescribeCollection, DropCollection, StoreCommand
from penstock.stores.contract import VectorStore, check_usable
from penstock.stores.data_model import CollectionInfo

R = TypeVar("R")


def ignore_removal(_collection: str) -> None:
    """Ignore a removal."""


#: Collections known to fit; when there are more, all are forgotten and checked again.
COMPATIBLE_MAX: Final = 10_000
#: The name of a prepared model: its own, and the fingerprint of what was prepared, and for which processor.
_PREPARED: Final = re.compile(r"\A(?P<name>.+)-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class VectorLayout:
    """Layout of the vectors of this server's models; vectors of two models never mix.

    Attributes:
        model: The dense model's name.
        dim: Its dimension.
        sparse_model: Name of a model of learned sparse vectors; empty for BM25.
    """

    model: str
    dim: int
    sparse_model: str = ""

    def check(self, info: CollectionInfo) -> None:
        """Refuse a collection that other models made.

        Raises:
            Invalid: Both are named (``collection_conflict``).
        """
        if (info.model, info.dim, info.sparse) == (self.model, self.dim, self.sparse_model):
            return
        theirs, ours = (
            _describe_model(info.model, info.dim, info.sparse),
            _describe_model(self.model, self.dim, self.sparse_model),
        )
        cure = (
            " (made for another kind of processor: see PENSTOCK_MODEL_PRECISION)"
            if _differ_in_fingerprint_only(info.model, self.model)
            else ""
        )
        raise Invalid(
            f"collection {info.name!r} holds vectors of {theirs}, and this server makes those of {ours}; start it with"
            f" the models of the collection{cure}, or index into another one",
            field="collection",
            code="collection_conflict",
        )


def _differ_in_fingerprint_only(*models: str) -> bool:
    names = {found["name"] if (found := _PREPARED.fullmatch(model)) else model for model in models}
    return len(names) == 1 < len(set(models))


def _describe_model(model: str, dim: int, learned: str) -> str:
    return f"{model} ({dim}-d)" + (f" with {learned}" if learned else "")


class GuardedStore:
    """A ``VectorStore`` behind a guard.

    Args:
        inner: The store.
        guard: Its breaker.
        on_removed: Called with the collection's name when something may have been removed from it, so that
            remembered answers are forgotten; also when the removal failed half-way or was cancelled.
        layout: Layout of the server's models; points are written to and searched in a collection of that layout
            only. Without it, in every one.
        remote: Limits and retries toward a store that is another server, by the same guard.

    Bounds: ``COMPATIBLE_MAX`` names of collections that fit.
    """

    def __init__(
        self,
        inner: VectorStore,
        guard: Guard,
        on_removed: Callable[[str], None] = ignore_removal,
        layout: VectorLayout | None = None,
        remote: RemoteDependency | None = None,
    ) -> None:
        self._inner = inner
        self._guard = guard
        self._on_removed = on_removed
        self._layout = layout
        self._remote = remote
        self._compatible: set[str] = set()

    async def run(self, command: StoreCommand[R], ctx: Context) -> R:
        """Execute a command, unless the breaker is open; retry a remote store's transient failure if that is harmless.

        Raises:
            CircuitOpen: The breaker is open.
            Invalid: Other models made the collection (``collection_conflict``).
            PenstockError: See :meth:`penstock.stores.contract.VectorStore.run`.
        """
        collection = command.collection if isinstance(command, CollectionCommand) else ""
        if command.checks_layout:
            await self._check_layout(collection, ctx)
        try:
            if self._remote is None:
                return await self._guard.call(command.operation, lambda: self._inner.run(command, ctx))
            return await self._remote.call(
                command.operation, lambda: self._inner.run(command, ctx), ctx, idempotent=command.idempotent
            )
        finally:
            if command.removes:
                if isinstance(command, DropCollection):
                    self._compatible.discard(collection)
                self._on_removed(collection)

    async def _check_layout(self, collection: str, ctx: Context) -> None:
        """Refuse a collection of another layout; asks the store once for each collection.

        Raises:
            Invalid: Other models made it.
            CollectionDamaged: It cannot be opened.
        """
        if self._layout is None or collection in self._compatible:
            return
        info = await self.run(DescribeCollection(collection), ctx)
        check_usable(info)
        self._layout.check(info)
        if len(self._compatible) >= COMPATIBLE_MAX:
            self._compatible.clear()
        self._compatible.add(collection)
