"""Whatever a body holds, it costs little more than its size, lets the loop run on, and ends in an answer (H1, H2).

The families below grow: what a parser or an error could take badly, many times over, in each place of a body where a
caller can put it. Memory is counted by `tracemalloc`, time is the processor's own, so a busy machine changes neither.
"""

import asyncio
import contextlib
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.indexing.chunk.outline import Chunk
from penstock.kernel.settings import HttpSettings
from tests.clock import run, virtual
from tests.fakes import api, models
from tests.fakes.api import Answer, Api

DOCUMENTS = "/v1/collections/default/documents"
SEARCH = "/v1/search"
#: A collection that is not there: its documents are read, and no fake store keeps them in the memory that is counted.
ABSENT = "/v1/collections/absent/documents"

#: Bytes of a body, and of one twice as large.
SIZE = 100_000
#: Times its size that a body may cost at once, and an answer may have; and what any request may.
SIZES_MAX = 8
FLOOR_BYTES = 3_000_000
ANSWER_BYTES_MAX = 100_000
#: Seconds of the processor that the loop is kept at once.
HELD_S_MAX = 0.05
#: How much more time twice the size takes; what takes less than `UNTIMED_S` is not compared.
GROWTH_MAX = 3.0
UNTIMED_S = 0.05

#: What is repeated as a value, a part of a string or a key.
VALUES = {
    "empty lists": b"[],",
    "empty objects": b"{},",
    "nested": b"[[[[1]]]],",
    "digits": b"1,",
    "long numbers": b"1" * 4000 + b",",
    "fractions": b"0." + b"1" * 400 + b"e-9,",
    "beyond 64 bits": b"18446744073709551616,",
    "out of range": b"1e999,",
    "not a number": b"NaN,",
    "empty strings": b'"",',
    "strings": b'"ab",',
    "null": b"null,",
    "pairs": b'{"a":1,"b":[2]},',
    "documents": b'{"id":"a","text":""},',
    "brackets": b"[",
    "braces": b'{"a":',
    "blanks": b" ",
    "lines": b"1\n",
    "blank lines": b" \n",
}
TEXTS = {
    "letters": b"a",
    "words": b"ab c ",
    "escapes": rb"\u0041",
    "halves of a pair": rb"\ud800",
    "quotes": rb"\"",
    "backslashes": b"\\\\",
    "emoji": "😀".encode(),
    "combining": "e\u0301".encode(),
    "the decoder's own words": b" - at `$.[",
    "backticks": b"`",
    "zeros": rb"\u0000",
    "not UTF-8": b"\xff",
    "brackets": b"([{",
    "dots": b"a.",
    "commas": b"[,",
}
#: Places where values may stand.
AROUND_VALUES = {
    "a body": (SEARCH, b"[", b"1]"),
    "an unknown field": (SEARCH, b'{"query":"q","x":[', b"1]}"),
    "a filter's values": (SEARCH, b'{"query":"q","filter":{"metadata.a":[', b"1]}}"),
    "a filter's value": (SEARCH, b'{"query":"q","filter":{"metadata.a":[[', b"1]]}}"),
    "weights": (SEARCH, b'{"query":"q","weights":{"dense":[', b"1]}}"),
    "documents": (DOCUMENTS, b'{"documents":[', b"1]}"),
    "no documents": (DOCUMENTS, b'{"documents":{"a":[', b"1]}}"),
    "metadata": (DOCUMENTS, b'{"documents":[{"id":"a","text":"t","metadata":{"a":[', b"1]}}]}"),
    "texts to embed": ("/v1/embed", b'{"texts":[', b'""]}'),
    "texts to rank": ("/v1/rerank", b'{"query":"q","texts":[', b'""]}'),
    "ids to delete": ("DELETE", b'{"ids":[', b'""]}'),
    "a collection's body": ("PUT", b'{"a":[', b"1]}"),
    "lines": ("NDJSON", b"", b""),
}
#: Places where a text may stand.
AROUND_TEXTS = {
    "a query": (SEARCH, b'{"query":"', b'"}'),
    "a field's name": (SEARCH, b'{"query":"q","', b'":1}'),
    "a nested name": (SEARCH, b'{"query":"q","weights":{"', b'":1}}'),
    "a filter's key": (SEARCH, b'{"query":"q","filter":{"', b'":1}}'),
    "a metadata key": (SEARCH, b'{"query":"q","filter":{"metadata.', b'":[1,NaN]}}'),
    "a filter's value": (SEARCH, b'{"query":"q","filter":{"id":"', b'"}}'),
    "a prefix": (SEARCH, b'{"query":"q","filter":{"path_prefix":"', b'"}}'),
    "a time": (SEARCH, b'{"query":"q","filter":{"metadata.a":{"gte":"', b'"}}}'),
    "a fusion": (SEARCH, b'{"query":"q","fusion":"', b'"}'),
    "a document's id": (DOCUMENTS, b'{"documents":[{"id":"', b'","text":""}]}'),
    "a document's text": (DOCUMENTS, b'{"documents":[{"id":"a","text":"', b'"}]}'),
    "a document's language": (DOCUMENTS, b'{"documents":[{"id":"a","text":"","language":"', b'"}]}'),
    "a metadata value": (DOCUMENTS, b'{"documents":[{"id":"a","text":"","metadata":{"a":"', b'"}}]}'),
    "a metadata name": (DOCUMENTS, b'{"documents":[{"id":"a","text":"","metadata":{"', b'":[NaN]}}]}'),
    "a text to embed": ("/v1/embed", b'{"texts":["', b'"]}'),
    "a text's kind": ("/v1/sparse", b'{"texts":["a"],"kind":"', b'"}'),
    "a query to rank by": ("/v1/rerank", b'{"texts":["a"],"query":"', b'"}'),
    "an id to delete": ("DELETE", b'{"ids":["', b'"]}'),
    "a prefix to delete": ("DELETE", b'{"path_prefix":"', b'"}'),
    "a line": ("NDJSON", b'{"id":"a","text":"', b'"}\n1'),
    "a snapshot's name": ("/v1/snapshots/restore", b'{"', b'":1}'),
}


@pytest.fixture(autouse=True)
def _fakes_read_little(monkeypatch):
    """Let the fakes read the beginning of a text: they work on the loop, where no real model or chunker does."""

    async def chunk(message: Any, _ctx: Any) -> list[Chunk]:
        return [Chunk(message.text[:1000], 1, 1, "")]

    monkeypatch.setattr(api, "_one_chunk", chunk)
    monkeypatch.setattr("penstock.http.routes.openapi_document", lambda: b"{}")
    for name in ("embedding", "token_vectors", "terms"):
        make = getattr(models, name)
        monkeypatch.setattr(models, name, lambda text, make=make: make(text[:1000]))


def grown(before: bytes, unit: bytes, after: bytes, size: int) -> bytes:
    return before + unit * ((size - len(before) - len(after)) // len(unit)) + after


def _numbered(one: bytes, between: bytes) -> Callable[[int], bytes]:
    """Return what makes a body of distinct documents or lines of a size."""
    return lambda size: between.join(one.replace(b"#", b"%d" % n) for n in range(size // (len(one) + 4)))


#: Each place, with what is repeated there.
PLACES = {
    where: (path, before, after, units)
    for around, units in ((AROUND_VALUES, VALUES), (AROUND_TEXTS, TEXTS))
    for where, (path, before, after) in around.items()
}
MANY = {
    "good lines": ("LINES", _numbered(b'{"id":"#","text":""}', b"\n")),
    "lines of unknown fields": ("NDJSON", _numbered(b'{"id":"#","text":"","x":1}', b"\n")),
    "lines with NaN": ("NDJSON", _numbered(b'{"id":"#","text":"","metadata":{"a":NaN}}', b"\n")),
    "lines beyond 64 bits": ("NDJSON", _numbered(b'{"id":"#","text":"","metadata":{"a":99999999999999999999}}', b"\n")),
    "keys of a filter": (
        SEARCH,
        lambda size: b'{"query":"q","filter":{%s}}' % _numbered(b'"metadata.#":1', b",")(size),
    ),
    "documents": ("LIST", lambda size: b'{"documents":[%s]}' % _numbered(b'{"id":"#","text":""}', b",")(size)),
    "documents of much metadata": (
        "LIST",
        lambda size: (
            b'{"documents":[%s]}'
            % _numbered(b'{"id":"#","text":"","metadata":{"a":[%s1]}}' % (b"[]," * 3000), b",")(size)
        ),
    ),
}


@dataclass
class Cost:
    """What a request cost.

    Attributes:
        took_s: The processor's time for all of it.
        held_s: The longest that the loop was kept.
        peak_bytes: The most memory at once, beyond what was there before.
    """

    took_s: float = 0.0
    held_s: float = 0.0
    peak_bytes: int = 0
    answer: Answer = field(default_factory=lambda: Answer(0, {}, b""))


@contextlib.asynccontextmanager
async def watched(cost: Cost) -> AsyncIterator[None]:
    """Note how long the loop is kept, and in all."""

    async def tick() -> None:
        last_s = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now_s = time.thread_time()
            cost.held_s, last_s = max(cost.held_s, now_s - last_s), now_s

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    began_s = time.thread_time()
    yield
    cost.took_s = time.thread_time() - began_s
    ticking.cancel()


async def send(server: Api, path: str, body: bytes) -> Answer:
    method = {"PUT": "PUT", "DELETE": "DELETE"}.get(path, "POST")
    where = {"NDJSON": DOCUMENTS, "DELETE": DOCUMENTS, "PUT": "/v1/collections/c"}.get(path, path)
    kind = "application/x-ndjson" if path in ("NDJSON", "LINES") else "application/json"
    where = ABSENT if path in ("LINES", "LIST") else where
    return await server.ask(method, where, body, {"content-type": kind})


async def cost_of(server: Api, path: str, body: bytes, *, traced: bool = False) -> Cost:
    """Send a body and return what that cost."""
    cost = Cost()
    if traced:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
    async with watched(cost):
        cost.answer = await send(server, path, body)
    if traced:
        cost.peak_bytes = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
    return cost


async def check(server: Api, what: str, path: str, make: Callable[[int], bytes]) -> None:
    body, twice = make(SIZE), make(2 * SIZE)
    # What is made once for each process and each kind of request is no cost of this one.
    await send(server, path, b'{"a":1}')
    cost = await cost_of(server, path, body)
    assert 200 <= cost.answer.status < 500, (what, cost.answer.body[:300])
    assert len(cost.answer.body) <= max(ANSWER_BYTES_MAX, SIZES_MAX * len(body)), what
    if cost.answer.status >= 400:
        assert len(cost.answer.body) < 1500, f"{what}: an error echoes little"
    if cost.held_s > HELD_S_MAX:
        cost.held_s = min([(await cost_of(server, path, body)).held_s for _ in range(3)])
    assert cost.held_s <= HELD_S_MAX, what
    if cost.took_s > UNTIMED_S:
        once, again = [min([(await cost_of(server, path, data)).took_s for _ in range(3)]) for data in (body, twice)]
        assert again < GROWTH_MAX * once, f"{what}: time grows faster than the body"
    traced = await cost_of(server, path, twice, traced=True)
    assert traced.peak_bytes <= FLOOR_BYTES + SIZES_MAX * len(twice), what


@pytest.mark.parametrize("place", PLACES)
@virtual
async def test_a_body_costs_little_more_than_its_size_whatever_is_repeated(place):
    path, before, after, units = PLACES[place]
    server = await Api(HttpSettings(rate_limit=0)).with_collection()
    for what, unit in units.items():
        await check(server, what, path, partial(grown, before, unit, after))


@pytest.mark.parametrize(("path", "make"), MANY.values(), ids=MANY)
@virtual
async def test_many_small_things_cost_little_more_than_their_size(path, make):
    await check(await Api(HttpSettings(rate_limit=0)).with_collection(), path, path, make)


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.just(2**64),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
NAMES = """
query limit filter weights fusion timeout_ms rerank strict explain documents ids path_prefix texts kind id text path
language metadata metadata.a force dense
"""
names = st.sampled_from(NAMES.split())
objects: st.SearchStrategy[Any] = st.recursive(
    st.dictionaries(names, anything, max_size=4),
    lambda inner: st.dictionaries(names, inner | st.lists(inner, max_size=3) | anything, max_size=4),
    max_leaves=6,
)
ROUTES = (SEARCH, DOCUMENTS, "NDJSON", "DELETE", "PUT", "/v1/embed", "/v1/sparse", "/v1/rerank")


@settings(max_examples=60)
@given(st.sampled_from(ROUTES), objects | anything | st.binary(max_size=40))
def test_any_body_is_answered_or_refused(path, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode("utf-8", "surrogatepass")

    async def main() -> None:
        server = await Api(HttpSettings(rate_limit=0)).with_collection()
        assert (await send(server, path, data)).status < 500

    run(main())
