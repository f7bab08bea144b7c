"""Reading of one document: its head and as many of its chunks as an answer may hold."""

from __future__ import annotations

from penstock.http.decoding import ChunksQuery
from penstock.http.responses import DocumentText, StoredChunk
from penstock.kernel.context import Context, point_id
from penstock.kernel.errors import Invalid, truncated
from penstock.stores.commands import FetchPayloads, GetDocuments
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import ChunkPayload
from penstock.stores.program_runner import HitPayloadReader


async def read_document(store: VectorStore, collection: str, id: str, query: ChunksQuery, ctx: Context) -> DocumentText:
    """Return a document with the chunks that were asked for.

    Raises:
        Invalid: There is no such document (``document_not_found``), or it has no chunk of that number
            (``chunk_not_found``).

    Bounds: ``RESULT_BYTES_MAX`` bytes of texts and metadata.
    """
    head = (await store.run(GetDocuments(collection, [id]), ctx)).get(id)
    if head is None:
        detail = f"collection {collection!r} has no document {truncated(id)!r}"
        raise Invalid(detail, field="id", code="document_not_found")
    end = query.chunk + query.limit
    if head.hash:
        end = min(end, head.chunks)
    reading = HitPayloadReader([point_id(id, number) for number in range(query.chunk, end)])
    while points := reading.next_batch():
        reading.add(await store.run(FetchPayloads(collection, points), ctx))
    found = list(reading.payloads.values())
    if not found:
        has = f"it has {head.chunks}" if head.hash else "it is being written"
        detail = f"document {truncated(id)!r} has no chunk {query.chunk}: {has}"
        raise Invalid(detail, field="chunk", code="chunk_not_found")
    following = found[-1].chunk + 1
    more = following < head.chunks if head.hash else following == end
    first = found[0]
    return DocumentText(
        id=id,
        path=first.path,
        language=first.language,
        metadata=first.metadata,
        hash=head.hash,
        total=head.chunks,
        chunks=[_stored_chunk(payload) for payload in found],
        next=following if more else None,
    )


def _stored_chunk(payload: ChunkPayload) -> StoredChunk:
    return StoredChunk(payload.chunk, payload.start_line, payload.end_line, payload.symbol, payload.text)
