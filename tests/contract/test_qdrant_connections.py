"""L3: a Qdrant server never sees more connections than are allowed, and sees the same ones again."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from pathlib import Path
from typing import Any

import pytest

from penstock.kernel.context import Context, Deadline
from penstock.kernel.errors import Expired, Unavailable
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.stores.backends.qdrant.server import QdrantServer
from penstock.stores.commands import CreateCollection, ListCollections, UpsertPoints
from penstock.stores.data_model import ArmQuery, ChunkPayload, CollectionInfo, Point
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import search_arm, sparse, unit
from tests.fakes.qdrant import FakeQdrant, Listening
from tests.rigs.certificates import make_certificate

WORK = Context.background()
CALLERS = 120
QUERY = ArmQuery(unit(1, 0), 1)
POINT = Point(ChunkPayload(id="a", chunk=0, text="a"), unit(1, 0), sparse(t1=1))


def slow(seconds: float) -> Any:
    """Return a hook that takes its time over searches."""

    async def hook(_method: str, path: str, _headers: dict[str, str]) -> None:
        if path.endswith("/batch"):
            await asyncio.sleep(seconds)

    return hook


def full(allowed: int) -> Any:
    """Return a hook that answers no search before so many are there at once."""
    there, every = itertools.count(1), asyncio.Event()

    async def hook(_method: str, path: str, _headers: dict[str, str]) -> None:
        if path.endswith("/batch"):
            if next(there) == allowed:
                every.set()
            await every.wait()

    return hook


@pytest.mark.parametrize("allowed", [32, 3])
def test_a_burst_of_callers_shares_the_connections_that_are_allowed(allowed):
    fake = FakeQdrant()

    async def scenario() -> list[int]:
        server = QdrantServer(QdrantSettings(url=door.url, pool_size=allowed), TimeoutSettings(), LoopClock())
        await server.start()
        await server.store.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
        await server.store.run(UpsertPoints("c", [POINT]), WORK)
        fake.hook = full(allowed)
        found = await asyncio.gather(*(search_arm(server.store, "c", QUERY, WORK) for _ in range(CALLERS)))
        assert server.connections == allowed
        await server.close()
        assert server.connections == 0
        return [len(hits) for hits in found]

    with Listening(fake) as door:
        assert asyncio.run(scenario()) == [1] * CALLERS
        assert door.most == allowed
        assert door.accepted == 1 + allowed, "one looks at the start, the others are kept for the next requests"


def test_callers_that_give_up_leave_the_connections_to_the_others():
    fake = FakeQdrant()

    async def scenario() -> None:
        server = QdrantServer(QdrantSettings(url=door.url, pool_size=4), TimeoutSettings(), LoopClock())
        store = server.store
        await store.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
        await store.run(UpsertPoints("c", [POINT]), WORK)
        fake.hook = slow(30.0)
        loop = asyncio.get_running_loop()
        hasty = [search_arm(store, "c", QUERY, Context(Deadline(loop.time() + 0.2, "search"))) for _ in range(40)]
        ends = await asyncio.gather(*hasty, return_exceptions=True)
        assert {type(end) for end in ends} == {Expired}
        fake.hook = slow(0.0)
        found = await asyncio.gather(*(search_arm(store, "c", QUERY, WORK) for _ in range(40)))
        assert all(found)
        await server.close()

    with Listening(fake) as door:
        asyncio.run(scenario())
        assert door.most <= 8, "those given up are closed, and the server has not noticed all of them yet"


def test_a_server_that_ends_and_comes_back_is_asked_over_new_connections():
    fake = FakeQdrant()

    async def scenario(url: str) -> None:
        server = QdrantServer(QdrantSettings(url=url), TimeoutSettings(), LoopClock())
        with Listening(fake, port=int(url.rpartition(":")[2])):
            await server.store.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
        with pytest.raises(Unavailable):
            await server.store.run(ListCollections(), WORK)
        with Listening(fake, port=int(url.rpartition(":")[2])):
            assert [one.name for one in await server.store.run(ListCollections(), WORK)] == ["c"]
        await server.close()

    with Listening(fake) as door:
        url = door.url
    asyncio.run(scenario(url))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """Return a certificate that signs itself, and what a server shows it by."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(directory)
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(certificate, key)
    return certificate, shown


def started(url: str, **settings: str) -> None:
    async def scenario() -> None:
        server = QdrantServer(QdrantSettings(url=url, **settings), TimeoutSettings(), LoopClock())
        try:
            await server.start()
            await server.store.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
        finally:
            await server.close()

    asyncio.run(scenario())


def test_a_server_with_tls_is_believed_by_the_authority_that_is_set(authority):
    certificate, shown = authority
    with Listening(FakeQdrant(key="k3y"), tls=shown) as door:
        started(door.url, ca_file=str(certificate), api_key="k3y")


def test_a_certificate_of_nobody_known_is_refused_and_told(authority):
    with Listening(FakeQdrant(), tls=authority[1]) as door, pytest.raises(Unavailable, match=r"(?i)certificate"):
        started(door.url)
