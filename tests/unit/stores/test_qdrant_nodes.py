"""A Qdrant server at several addresses: nodes that die, hang, fail, come back, and what is no node."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from penstock.kernel.context import Context, Deadline
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import QdrantSettings, TimeoutSettings
from penstock.policies.breaker import BreakerState
from penstock.stores.backends.qdrant.server import QdrantServer
from penstock.stores.commands import (
    CountDocuments,
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    UpsertPoints,
)
from penstock.stores.data_model import ArmQuery, CollectionInfo, Match
from tests.clock import virtual
from tests.contract.shop import WORK, point
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import search_arm, unit
from tests.fakes.qdrant import FakeQdrant, refusal, told

THREAD = ThreadPoolExecutor(1)
NAMES = ("q0", "q1", "q2")
QUERY = ArmQuery(unit(1, 0), 5)


class Cluster(httpx.AsyncBaseTransport):
    """Three nodes with the same points, by their names."""

    def __init__(self) -> None:
        first = FakeQdrant()
        self.nodes = {"q0": first, "q1": FakeQdrant(beside=first), "q2": FakeQdrant(beside=first)}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self.nodes[request.url.host].handle_async_request(request)

    def set(self, hook: Any, *names: str) -> None:
        for name in names or NAMES:
            self.nodes[name].hook = hook

    def asked(self, name: str, end: str = "/batch") -> int:
        return sum(one[1].endswith(end) for one in self.nodes[name].asked)


def serving(cluster: Cluster, **settings: Any) -> QdrantServer:
    chosen = QdrantSettings(url=",".join(f"http://{name}" for name in NAMES), **settings)
    return THREAD.submit(QdrantServer, chosen, TimeoutSettings(), LoopClock(), cluster).result()


async def filled(cluster: Cluster, **settings: Any) -> QdrantServer:
    server = serving(cluster, **settings)
    await server.start()
    await server.store.run(CreateCollection(CollectionInfo("c", 2, "m")), WORK)
    await server.store.run(UpsertPoints("c", [point("a"), point("b")]), WORK)
    return server


def states(server: QdrantServer) -> list[BreakerState]:
    return [node.state for node in server.breakers]


async def dead(*_: Any) -> httpx.Response:
    raise httpx.ConnectError("Connection refused")


async def cut(*_: Any) -> httpx.Response:
    raise httpx.ReadError("cut off")


async def silent(*_: Any) -> httpx.Response:
    await asyncio.sleep(3600)
    raise AssertionError


async def well(*_: Any) -> None:
    """Let every request pass."""


def saying(answer: httpx.Response) -> Any:
    async def hook(*_: Any) -> httpx.Response:
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return hook


async def healthy(server: QdrantServer) -> None:
    """Let the health checks of one beat of the heart run."""
    server.check_processes()
    await asyncio.sleep(1)


@virtual
async def test_the_nodes_are_asked_in_turn():
    cluster = Cluster()
    server = await filled(cluster)
    for _ in range(9):
        await search_arm(server.store, "c", QUERY, WORK)
    assert [cluster.asked(name) for name in NAMES] == [3, 3, 3]


@pytest.mark.parametrize("death", [dead, cut], ids=["refused", "cut off"])
@virtual
async def test_a_node_that_dies_under_load_costs_no_answer_and_is_asked_no_more(death):
    cluster = Cluster()
    server = await filled(cluster)
    cluster.set(death, "q1")
    found = await asyncio.gather(*(search_arm(server.store, "c", QUERY, WORK) for _ in range(60)))
    assert [len(one) for one in found] == [2] * 60
    before = cluster.asked("q1")
    await asyncio.gather(*(search_arm(server.store, "c", QUERY, WORK) for _ in range(60)))
    assert cluster.asked("q1") == before
    assert states(server) == [BreakerState.CLOSED, BreakerState.OPEN, BreakerState.CLOSED]
    assert [one for one in server.warnings if "http://q1:6333 is left alone" in one]
    cluster.set(well, "q1")
    await healthy(server)
    assert server.warnings == []
    await asyncio.gather(*(search_arm(server.store, "c", QUERY, WORK) for _ in range(6)))
    assert cluster.asked("q1") > before


@virtual
async def test_a_node_that_falls_silent_costs_a_second_and_all_that_waited_go_elsewhere():
    cluster = Cluster()
    server = await filled(cluster)
    cluster.set(silent, "q2")
    began_s = asyncio.get_running_loop().time()
    ctx = Context(Deadline(began_s + 5, "search"))
    found = await asyncio.gather(*(search_arm(server.store, "c", QUERY, ctx) for _ in range(30)))
    assert [len(one) for one in found] == [2] * 30
    assert asyncio.get_running_loop().time() - began_s <= 1.1
    began_s = asyncio.get_running_loop().time()
    await asyncio.gather(*(search_arm(server.store, "c", QUERY, WORK) for _ in range(30)))
    assert asyncio.get_running_loop().time() == began_s


@virtual
async def test_a_node_that_is_slow_and_well_is_not_left_alone():
    cluster = Cluster()
    server = await filled(cluster)

    async def slow(_method: str, path: str, _headers: dict[str, str]) -> None:
        if path.endswith("/batch"):
            await asyncio.sleep(2)

    cluster.set(slow, "q0")
    found = await asyncio.gather(*(search_arm(server.store, "c", QUERY, WORK) for _ in range(6)))
    assert [len(one) for one in found] == [2] * 6
    assert states(server) == [BreakerState.CLOSED] * 3


@virtual
async def test_health_is_told_where_every_connection_is_taken():
    cluster = Cluster()
    server = await filled(cluster)

    async def slow(_method: str, path: str, _headers: dict[str, str]) -> None:
        if path.endswith("/batch"):
            await asyncio.sleep(2)

    cluster.set(slow)
    found = await asyncio.gather(*(search_arm(server.store, "c", QUERY, WORK) for _ in range(120)))
    assert [len(one) for one in found] == [2] * 120
    assert states(server) == [BreakerState.CLOSED] * 3


@virtual
async def test_a_point_that_is_gone_is_no_fault_of_a_node():
    cluster = Cluster()
    server = await filled(cluster)
    cluster.set(saying(refusal(404, "Not found: No point with id 7 found")))
    with pytest.raises(Invalid):
        await search_arm(server.store, "c", QUERY, WORK)
    assert states(server) == [BreakerState.CLOSED] * 3


@pytest.mark.parametrize(
    "answer",
    [
        refusal(500, "task panicked"),
        refusal(503, "not enough replicas"),
        httpx.Response(502, content=b"<html>bad gateway</html>"),
        httpx.Response(200, content=b'{"result": [{'),
        httpx.Response(200, content=b"<html>hello</html>"),
        httpx.Response(404, content=b"<html>no such page</html>"),
    ],
    ids=["500", "503", "502", "half an answer", "another program", "another program's 404"],
)
@virtual
async def test_a_node_that_fails_or_is_another_program_by_now_is_left_aside(answer):
    cluster = Cluster()
    server = await filled(cluster)
    cluster.set(saying(answer), "q0")
    for _ in range(12):
        assert len(await search_arm(server.store, "c", QUERY, WORK)) == 2
    assert states(server)[0] is BreakerState.OPEN
    before = cluster.asked("q0")
    for _ in range(12):
        await search_arm(server.store, "c", QUERY, WORK)
    assert cluster.asked("q0") == before
    cluster.set(well, "q0")
    await healthy(server)
    await asyncio.sleep(10)
    for _ in range(6):
        await search_arm(server.store, "c", QUERY, WORK)
    assert states(server)[0] is BreakerState.CLOSED


@virtual
async def test_all_down_is_told_at_once_and_the_first_that_is_back_is_asked():
    cluster = Cluster()
    server = await filled(cluster)
    returned = []
    server.when_ready(lambda: returned.append(True))
    cluster.set(dead)
    for _ in range(4):
        with pytest.raises(Unavailable, match="does not answer"):
            await search_arm(server.store, "c", QUERY, WORK)
    await healthy(server)
    assert returned == []
    assert len(server.warnings) == 3
    for left, name in zip((2, 1, 0), NAMES, strict=True):
        cluster.set(well, name)
        await healthy(server)
        assert returned == [True], "the store's own breaker is told once"
        assert len(await search_arm(server.store, "c", QUERY, WORK)) == 2
        assert len(server.warnings) == left


@virtual
async def test_a_write_goes_elsewhere_and_a_deletion_only_if_it_was_not_sent():
    cluster = Cluster()
    server = await filled(cluster)
    cluster.set(cut, "q0", "q1")
    for id in ("c", "d"):
        await server.store.run(UpsertPoints("c", [point(id)]), WORK)
    cluster.set(well)
    await healthy(server)
    assert await server.store.run(CountDocuments("c", ()), WORK) == 4

    async def lost_on_the_way_back(_method: str, path: str, _headers: dict[str, str]) -> None:
        if path.endswith("/delete"):
            raise httpx.ReadError("cut off")

    cluster.set(lost_on_the_way_back)
    before = sum(cluster.asked(name, "/delete") for name in NAMES)
    with pytest.raises(Unavailable):
        await server.store.run(DeleteDocuments("c", (Match("id", ["c"]),)), WORK)
    assert sum(cluster.asked(name, "/delete") for name in NAMES) == before + 1
    await healthy(server)
    cluster.set(well)
    cluster.set(dead, "q0", "q1")
    assert await server.store.run(DeleteDocuments("c", (Match("id", ["c"]),)), WORK) == 1


@virtual
async def test_a_cluster_without_a_leader_is_read_and_told_and_written_once_it_has_one():
    cluster = Cluster()
    server = await filled(cluster)
    for node in cluster.nodes.values():
        node.has_leader = False
    await healthy(server)
    assert len(server.warnings) == 3
    assert "has no leader yet" in server.warnings[0]
    assert len(await search_arm(server.store, "c", QUERY, WORK)) == 2
    with pytest.raises(Unavailable):
        await server.store.run(UpsertPoints("c", [point("c")]), WORK)
    cluster.nodes["q2"].has_leader = True
    await healthy(server)
    await server.store.run(UpsertPoints("c", [point("c")]), WORK)
    assert "PUT" in [one[0] for one in cluster.nodes["q2"].asked[-3:]], "a node that is ready is asked first"


@virtual
async def test_another_number_of_replicas_than_wanted_is_told_and_not_refused():
    cluster = Cluster()
    server = await filled(cluster, replicas=2)
    await server.store.run(DescribeCollection("c"), WORK)
    assert [one for one in server.warnings if "'c' has 1 replicas, not the 2 of QDRANT_REPLICAS" in one]
    for node in cluster.nodes.values():
        node.replicas = 2
    await server.store.run(DescribeCollection("c"), WORK)
    assert server.warnings == []


# The start


@virtual
async def test_a_start_needs_one_node_and_refuses_another_program_by_its_address():
    cluster = Cluster()
    cluster.set(dead, "q0", "q2")
    server = await filled(cluster)
    assert len(server.warnings) == 2
    cluster.set(saying(told({"title": "elasticsearch"})), "q2")
    with pytest.raises(Invalid, match=r"http://q2:6333 cannot be used: there is another program"):
        await serving(cluster).start()
    cluster.set(dead)
    with pytest.raises(Unavailable, match=r"QDRANT_URL.*http://q0"):
        await serving(cluster).start()


@virtual
async def test_a_prefix_is_spelt_out_as_long_as_one_node_knows_none():
    cluster = Cluster()
    cluster.nodes["q1"]._version = (1, 18)
    server = await filled(cluster)
    assert not server._connection.knows_prefixes
    cluster.nodes["q1"]._version = (1, 19)
    await healthy(server)
    assert server._connection.knows_prefixes


def test_an_address_is_taken_once_and_a_wrong_one_among_them_is_refused():
    def made(url: str) -> QdrantServer:
        return QdrantServer(QdrantSettings(url=url), TimeoutSettings(), LoopClock())

    assert made("http://a, http://a:6333,https://b")._connection.url == "http://a:6333, https://b:6333"
    for wrong in ("http://a,", "http://a,b:6333", ","):
        with pytest.raises(Invalid):
            made(wrong)
