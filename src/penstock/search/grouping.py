"""Grouping of hits by document: the best chunk of each, its other chunks folded into it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.ranking.program import RESCORED_CANDIDATES, block_ends
from penstock.search.request import LIMIT_MAX, OtherChunk, SearchHit
from penstock.search.several_collections import collection_of
from penstock.stores.data_model import RetrievedHit

#: Other chunks of a document that are told; ``others_total`` counts all.
OTHERS_MAX: Final = 20

#: Ranked chunks that are looked at for documents: as many as are rescored together, or more, block by block.
DEPTHS: Final = block_ends(RESCORED_CANDIDATES, LIMIT_MAX)

#: Returns so many of the best chunks, fewer where there are no more.
RankChunks = Callable[[int], Awaitable[list[RetrievedHit]]]


@dataclass(frozen=True, slots=True)
class DocumentGroup:
    """The chunks of a document among the ranked ones.

    Attributes:
        best: The best chunk.
        end: Place from which on chunks are not folded into it any more.
        others: The other chunks, best first.
    """

    best: RetrievedHit
    end: int
    others: list[RetrievedHit] = field(default_factory=list)

    def search_hit(self, **parts: Any) -> SearchHit:
        """Return the best chunk as a hit, with ``OTHERS_MAX`` others at most and the parts that were requested."""
        others = [
            OtherChunk(one.payload.chunk, one.score, one.payload.start_line, one.payload.end_line)
            for one in self.others[:OTHERS_MAX]
        ]
        return SearchHit.of(self.best, others=others, others_total=len(self.others), **parts)


def within(ranked: list[RetrievedHit], depth: int, rank: RankChunks) -> RankChunks:
    """Return a way to the best chunks that begins with those known already: as many as ``depth`` where there are."""

    async def best(count: int) -> list[RetrievedHit]:
        return ranked[:count] if count <= depth or len(ranked) < depth else await rank(count)

    return best


async def ranked_groups(rank: RankChunks, wanted: int) -> list[DocumentGroup]:
    """Return the groups of at least so many documents, best first, if there are so many.

    Bounds: the first ``DEPTHS[-1]`` chunks are looked at.
    """
    groups: list[DocumentGroup] = []
    for depth in (one for one in DEPTHS if one >= min(wanted, DEPTHS[-1])):
        ranked = await rank(depth)
        groups = group_by_document(ranked)
        if len(groups) >= wanted or len(ranked) < depth:
            break
    return groups


def group_by_document(ranked: Sequence[RetrievedHit]) -> list[DocumentGroup]:
    """Return the documents of ranked chunks by their best chunk.

    A chunk is folded in if it stands in the block of the best one or above that block's end, so that the group is the
    same however many chunks were looked at.
    """
    groups: dict[tuple[str, str], DocumentGroup] = {}
    for place, hit in enumerate(ranked, 1):
        document = collection_of(hit.point), hit.payload.id
        group = groups.get(document)
        if group is None:
            groups[document] = DocumentGroup(hit, block_ends(RESCORED_CANDIDATES, place)[-1])
        elif place <= group.end:
            group.others.append(hit)
    return list(groups.values())
