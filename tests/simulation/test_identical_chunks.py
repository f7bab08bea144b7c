"""Identical chunks are embedded once: within a document, across documents, while others are still at it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from penstock.kernel.context import Context
from penstock.kernel.messages import EmbedBatch, SparseBatch
from tests.clock import virtual
from tests.simulation.world import World

LINES = ("the licence", "of this program", "in three lines")


class CountingWorld(World):
    """A world that counts the texts that its models are given."""

    def __init__(self) -> None:
        super().__init__()
        self.dense_texts: Counter[str] = Counter()
        self.sparse_texts: Counter[str] = Counter()

    async def _embed(self, batch: EmbedBatch, ctx: Context) -> Any:
        self.dense_texts.update(batch.texts)
        return await super()._embed(batch, ctx)

    async def _encode(self, batch: SparseBatch, ctx: Context) -> Any:
        self.sparse_texts.update(batch.texts)
        return await super()._encode(batch, ctx)

    async def index(self, *documents: tuple[str, str]) -> None:
        """Index documents, given by id and text, in one request."""
        body = {"documents": [{"id": name, "text": text} for name, text in documents]}
        reply = await self.ask("POST", "/v1/collections/default/documents", body)
        assert reply.json["indexed"] == len(documents), reply


@virtual
async def test_lines_that_repeat_are_embedded_once_within_and_across_documents() -> None:
    async with CountingWorld() as world:
        await world.index(("a", "\n".join(LINES * 3)), ("b", "\n".join(LINES)))
        await world.index(("c", "\n".join(reversed(LINES))))
        assert world.dense_texts == dict.fromkeys(LINES, 1)
        assert len(world.sparse_texts) == len(LINES)
        assert set(world.sparse_texts.values()) == {1}


@virtual
async def test_requests_at_the_same_time_share_the_work() -> None:
    async with CountingWorld() as world:
        await asyncio.gather(*(world.index((f"copy {number}", "\n".join(LINES))) for number in range(3)))
        assert world.dense_texts == dict.fromkeys(LINES, 1)
        assert set(world.sparse_texts.values()) == {1}


@virtual
async def test_a_changed_document_is_embedded_only_where_it_changed() -> None:
    async with CountingWorld() as world:
        await world.index(("a", "\n".join(LINES)))
        await world.index(("a", "\n".join([*LINES, "and a fourth"])))
        assert world.dense_texts == dict.fromkeys([*LINES, "and a fourth"], 1)
