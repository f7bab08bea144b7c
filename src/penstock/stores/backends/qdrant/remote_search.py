"""One search over a Qdrant server in two round trips: the arms, then all else about the best of them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol, TypeVar

from penstock.kernel.context import Context
from penstock.stores import commands, program_runner
from penstock.stores.backends.qdrant.point_memory import ReadPoint
from penstock.stores.commands import StoreCommand
from penstock.stores.data_model import ArmQuery, RetrievalResult

R = TypeVar("R")


class SearchAndRead(Protocol):
    """Runs queries and reads points of a collection, all in one request."""

    def __call__(
        self, collection: str, queries: Sequence[ArmQuery], points: Sequence[str], ctx: Context, *, whole: bool
    ) -> Awaitable[tuple[list[Any], dict[str, ReadPoint]]]:
        """Return the hits of each query, and those of the points that exist; with token vectors where ``whole``."""


class RemoteSearch:
    """The store as one search sees it: what was read once is not asked for again.

    Args:
        ask: Asks the server.

    Bounds: the points of one search; it lives as long as that.
    """

    def __init__(self, ask: SearchAndRead) -> None:
        self._ask: Final = ask
        self._expected: Sequence[str] = ()
        self._read: dict[str, ReadPoint | None] = {}
        self._whole = False

    async def retrieve(self, command: commands.Retrieve, ctx: Context) -> RetrievalResult:
        """Run the search."""
        self._whole = command.query.token_vectors is not None
        return await program_runner.run_retrieval(self, command, ctx, self._expect)

    def _expect(self, points: Sequence[str]) -> None:
        self._expected = points

    async def run(self, command: StoreCommand[R], ctx: Context) -> R:
        """Execute one step of the search."""
        return await self._step(command, ctx)  # type: ignore[no-any-return]

    async def _step(self, command: Any, ctx: Context) -> Any:
        if isinstance(command, commands.SearchBatch):
            return await self._fetch(command.collection, command.queries, self._expected, ctx, whole=self._whole)
        whole = isinstance(command, commands.FetchTokenVectors)
        unread = [point for point in command.points if point not in self._read]
        if unread:
            await self._fetch(command.collection, (), unread, ctx, whole=whole)
        found = {point: read for point in command.points if (read := self._read[point]) is not None}
        if whole:
            return {point: read.token_vectors for point, read in found.items() if read.token_vectors is not None}
        return {point: read.payload for point, read in found.items()}

    async def _fetch(
        self, collection: str, queries: Sequence[ArmQuery], points: Sequence[str], ctx: Context, *, whole: bool
    ) -> list[Any]:
        hits, read = await self._ask(collection, queries, points, ctx, whole=whole)
        self._read.update({point: read.get(point) for point in points})
        return hits
