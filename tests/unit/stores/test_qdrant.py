"""The adapter to a Qdrant server: what it sends, what it makes of answers and of none."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from penstock.kernel.context import Context, Deadline
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable
from penstock.kernel.settings import GuardSettings, QdrantSettings, TimeoutSettings
from penstock.policies.breaker import BreakerState
from penstock.policies.limit import LimitSettings
from penstock.policies.retry import RetrySettings
from penstock.pools.guard import CircuitOpen, Guard
from penstock.pools.guarded_store import GuardedStore
from penstock.pools.remote_dependency import RemoteDependency
from penstock.stores.backends.qdrant import path_prefixes
from penstock.stores.backends.qdrant.collection_schema import METADATA_KEY
from penstock.stores.backends.qdrant.probe import PROBE_TIMEOUT_S
from penstock.stores.backends.qdrant.server import QdrantServer
from penstock.stores.commands import (
    CountDocuments,
    CreateCollection,
    DeleteDocuments,
    DescribeCollection,
    DropCollection,
    GetDocuments,
    ListCollections,
    SearchBatch,
    UpsertPoints,
)
from penstock.stores.data_model import ArmQuery, ChunkPayload, CollectionInfo, Match, Point, Prefix
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import search_arm, sparse, unit
from tests.fakes.qdrant import FakeQdrant, refusal, told

WORK = Context.background()
INFO = CollectionInfo("c", 2, "m")
THREAD = ThreadPoolExecutor(1)
SECRET = "k3y-of-the-server"


def serving(fake: FakeQdrant, **settings: Any) -> QdrantServer:
    chosen = QdrantSettings(**{"url": "http://qdrant", **settings})
    # Not on the loop's thread: making a client reads files, which the loop is watched for.
    return THREAD.submit(QdrantServer, chosen, TimeoutSettings(), LoopClock(), fake).result()


def point(id: str, chunk: int = 0, path: str = "") -> Point:
    return Point(ChunkPayload(id=id, chunk=chunk, text=f"text of {id}", path=path), unit(1, 0), sparse(t1=1))


def answering(*answers: httpx.Response | Exception | None, path: str = "") -> Any:
    """Return a hook that gives these answers to what goes to a path, then lets everything pass."""
    left = list(answers)

    async def hook(_method: str, asked: str, _headers: dict[str, str]) -> httpx.Response | None:
        if not left or not asked.endswith(path):
            return None
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return hook


# What it makes of answers


@pytest.mark.parametrize(
    ("answer", "family", "code"),
    [
        (refusal(401, "Must provide an API key"), Broken, "store_unauthorized"),
        (refusal(403, "Forbidden"), Broken, "store_unauthorized"),
        (refusal(404, "Not found: Collection `c` doesn't exist!"), Invalid, "collection_not_found"),
        (refusal(404, ""), Broken, "store_not_qdrant"),
        (refusal(404, "Not found: No point with id 7 found"), Invalid, "store_refused"),
        (httpx.Response(301, headers={"location": "https://elsewhere"}), Broken, "store_not_qdrant"),
        (httpx.Response(405), Broken, "store_not_qdrant"),
        (refusal(408, "Timeout"), Unavailable, "store_failed"),
        (refusal(429, "Too many"), Rejected, "dependency_busy"),
        (httpx.Response(429, headers={"retry-after": "7"}), Rejected, "dependency_limited"),
        (httpx.Response(429, headers={"retry-after": "soon"}), Rejected, "dependency_busy"),
        (refusal(400, "Wrong input: Vector dimension error"), Invalid, "store_refused"),
        (refusal(413, "Payload too large"), Invalid, "store_refused"),
        (refusal(500, "Service internal error: No space left on device (os error 28)"), Unavailable, "disk_full"),
        (refusal(500, "Service internal error: task panicked"), Unavailable, "store_failed"),
        (refusal(503, "Not enough replicas"), Unavailable, "store_failed"),
        (httpx.Response(502, content=b"<html>bad gateway</html>"), Unavailable, "store_failed"),
        (httpx.Response(200, content=b"<html>hello</html>"), Broken, "store_bad_response"),
        (httpx.Response(200, content=b'{"result": [{'), Broken, "store_bad_response"),
        (httpx.ConnectError("connection refused"), Unavailable, "store_unreachable"),
        (httpx.ReadError("cut off"), Unavailable, "store_unreachable"),
        (httpx.RemoteProtocolError("no answer"), Unavailable, "store_unreachable"),
    ],
    ids=lambda one: f"{one.status_code}" if isinstance(one, httpx.Response) else None,
)
@virtual
async def test_each_answer_is_told_in_our_words(answer, family, code):
    fake = FakeQdrant()
    store = serving(fake).store
    await store.run(CreateCollection(INFO), WORK)
    await store.run(GetDocuments("c", ["a"]), WORK)
    fake.hook = answering(answer)
    with pytest.raises(family) as caught:
        await store.run(GetDocuments("c", ["a"]), WORK)
    assert caught.value.code == code
    if code == "dependency_limited":
        assert caught.value.retry_after_s == 7.0


@virtual
async def test_a_long_refusal_is_not_told_to_its_end():
    fake = FakeQdrant()
    store = serving(fake).store
    await store.run(CreateCollection(INFO), WORK)
    fake.hook = answering(refusal(400, "x" * 10_000))
    with pytest.raises(Invalid) as caught:
        await store.run(GetDocuments("c", ["a"]), WORK)
    assert len(caught.value.detail) < 500


# Time


@virtual
async def test_the_time_left_is_the_server_s_limit_in_whole_seconds_and_the_call_s_to_the_millisecond():
    fake = FakeQdrant()
    store = serving(fake).store
    await store.run(CreateCollection(INFO), WORK)
    await store.run(GetDocuments("c", []), WORK)

    async def hang(*_: Any) -> None:
        await asyncio.sleep(3600)

    fake.hook = hang
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(Expired) as caught:
        await search_arm(store, "c", ArmQuery(unit(1, 0), 1), Context(Deadline(began_s + 1.2, "search")))
    assert caught.value.operation == "search"
    assert loop.time() - began_s == pytest.approx(1.2, abs=0.05)
    assert fake.asked[-1][2]["timeout"] == "2"
    began_s = loop.time()
    with pytest.raises(Expired) as caught:
        await search_arm(store, "c", ArmQuery(unit(1, 0), 1), WORK)
    assert caught.value.operation == "store"
    assert fake.asked[-1][2]["timeout"] == "10"


@virtual
async def test_what_is_late_already_is_not_even_asked():
    fake = FakeQdrant()
    store = serving(fake).store
    with pytest.raises(Expired):
        await store.run(ListCollections(), replace(WORK, deadline=Deadline(0.0, "search")))
    assert fake.asked == []


@virtual
async def test_no_answer_is_compressed_since_the_server_sends_those_in_small_pieces():
    fake = FakeQdrant()
    server = serving(fake)
    await server.start()
    await server.store.run(CreateCollection(INFO), WORK)
    await server.store.run(GetDocuments("c", ["a"]), WORK)
    assert fake.asked
    assert fake.compressed == 0


# Keys and addresses


@virtual
async def test_the_key_is_sent_and_told_nobody():
    fake = FakeQdrant(key=SECRET)
    server = serving(fake, api_key=SECRET)
    await server.start()
    await server.store.run(CreateCollection(INFO), WORK)
    with pytest.raises(Invalid) as caught:
        await serving(fake, api_key="another").start()
    assert caught.value.code == "store_unauthorized"
    assert "QDRANT_API_KEY" in caught.value.detail
    assert SECRET not in repr(server._connection) + repr(QdrantSettings(api_key=SECRET)) + caught.value.detail


@pytest.mark.parametrize(
    "settings",
    [
        {"url": ""},
        {"url": "qdrant:6333"},
        {"url": "ftp://qdrant"},
        {"url": "http://"},
        {"url": "http://q:6333/?a=b"},
        {"url": "http://user:pass@q:6333"},
        {"url": "http://q:port"},
        {"api_key": "with blank"},
        {"api_key": "ключ"},
        {"prefix": "a/b"},
        {"url": "https://q", "ca_file": "/does/not/exist.pem"},
    ],
    ids=repr,
)
def test_what_cannot_be_an_address_a_key_or_a_certificate_is_refused(settings):
    with pytest.raises(Invalid):
        serving(FakeQdrant(), **settings)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://q", "http://q:6333"),
        ("http://q:80", "http://q:80"),
        ("http://[::1]", "http://[::1]:6333"),
        ("https://q/base/", "https://q:6333/base"),
        ("https://q:443", "https://q:443"),
    ],
)
def test_the_port_is_qdrant_s_where_none_is_named(url, shown):
    assert serving(FakeQdrant(), url=url)._connection.url == shown


# The start


@virtual
async def test_a_server_that_is_not_there_is_told_with_its_address():
    fake = FakeQdrant()
    fake.hook = answering(httpx.ConnectError("Connection refused"))
    with pytest.raises(Unavailable, match=r"QDRANT_URL.*http://qdrant:6333.*refused") as caught:
        await serving(fake).start()
    assert caught.value.code == "store_unreachable"


@virtual
async def test_a_server_that_accepts_and_never_answers_is_told_within_its_time():
    fake = FakeQdrant()

    async def hang(*_: Any) -> None:
        await asyncio.sleep(3600)

    fake.hook = hang
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="has not answered within 2 s"):
        await serving(fake).start()
    assert asyncio.get_running_loop().time() - began_s <= PROBE_TIMEOUT_S + 0.1


@pytest.mark.parametrize(
    "answer", [told({"title": "elasticsearch", "version": "9"}), told([]), httpx.Response(200, content=b"hello")]
)
@virtual
async def test_another_program_at_the_address_is_told(answer):
    fake = FakeQdrant()
    fake.hook = answering(answer)
    with pytest.raises(Invalid, match="cannot be used") as caught:
        await serving(fake).start()
    assert caught.value.code in ("store_not_qdrant", "store_bad_response")


@virtual
async def test_a_server_that_is_too_old_is_refused_by_its_version():
    with pytest.raises(Invalid, match=r"http://qdrant:6333.*Qdrant 1\.16\.0 is too old, 1\.17 is the oldest") as caught:
        await serving(FakeQdrant(version=(1, 16))).start()
    assert caught.value.code == "store_version_unsupported"
    await serving(FakeQdrant(version=(1, 17))).start()


@pytest.mark.parametrize("told_version", ["", "unstable", "1"])
@virtual
async def test_a_server_that_tells_no_version_is_asked_as_the_oldest(told_version):
    fake = FakeQdrant()
    fake.hook = answering(told({"title": "qdrant", "version": told_version}))
    server = serving(fake)
    await server.start()
    assert not server._connection.knows_prefixes


@virtual
async def test_a_prefix_is_spelt_out_where_the_server_knows_none_and_no_longer_once_it_is_updated():
    fake = FakeQdrant(version=(1, 18))
    server = serving(fake)
    await server.start()
    await server.store.run(CreateCollection(INFO), WORK)
    paths = {"a": "src/a.py", "b": "src/b/c.py", "c": "lib/src/a.py", "d": ""}
    await server.store.run(UpsertPoints("c", [point(id, path=path) for id, path in paths.items()]), WORK)
    for prefix, wanted in {"src/": 2, "src/a": 1, "s": 2, "lib": 1, "none": 0, "": 4}.items():
        assert await server.store.run(CountDocuments("c", (Prefix("path", prefix),)), WORK) == wanted
    assert sum(one[1].endswith("/facet") for one in fake.asked) == 5, "the empty one always holds"
    fake._version = (1, 19)
    await server.probe(WORK)
    assert await server.store.run(CountDocuments("c", (Prefix("path", "src/"),)), WORK) == 2
    assert sum(one[1].endswith("/facet") for one in fake.asked) == 5


@virtual
async def test_a_prefix_among_too_many_paths_is_refused_naming_the_version(monkeypatch):
    monkeypatch.setattr(path_prefixes, "PATHS_MAX", 3)
    server = serving(FakeQdrant(version=(1, 18)))
    await server.start()
    await server.store.run(CreateCollection(INFO), WORK)
    await server.store.run(UpsertPoints("c", [point(f"d{n}", path=f"{n}.md") for n in range(4)]), WORK)
    with pytest.raises(Invalid, match=r"more than 3 paths.*1\.19 or newer"):
        await server.store.run(DeleteDocuments("c", (Prefix("path", "1"),)), WORK)


@virtual
async def test_a_server_at_its_limit_is_there():
    fake = FakeQdrant()
    fake.hook = answering(None, refusal(429, "slow down"))
    await serving(fake).start()


# Collections


@virtual
async def test_another_layout_is_refused_naming_both():
    store = serving(FakeQdrant()).store
    await store.run(CreateCollection(INFO), WORK)
    with pytest.raises(Invalid) as caught:
        await store.run(CreateCollection(CollectionInfo("c", 3, "other", sparse="splade")), WORK)
    assert caught.value.code == "collection_conflict"
    assert "m (2-d)" in caught.value.detail
    assert "other (3-d) with splade" in caught.value.detail


@virtual
async def test_a_collection_of_another_program_is_left_alone_and_named():
    fake = FakeQdrant()
    store = serving(fake).store
    body = {"vectors": {"image": {"size": 7, "distance": "Cosine"}}}
    await fake.answer("PUT", "/collections/c", {}, {}, httpx.Request("PUT", "http://x", json=body).content)
    assert await store.run(ListCollections(), WORK) == []
    with pytest.raises(Invalid, match=r"not Penstock's.*image \(7-d\).*m \(2-d\)") as caught:
        await store.run(CreateCollection(INFO), WORK)
    assert caught.value.code == "collection_conflict"
    for ask in (
        store.run(DropCollection("c"), WORK),
        store.run(UpsertPoints("c", [point("a")]), WORK),
        store.run(DeleteDocuments("c", ()), WORK),
    ):
        with pytest.raises(Invalid) as caught:
            await ask
        assert caught.value.code == "collection_not_found"
    assert not [one for one in fake.asked if one[0] == "DELETE" or "/points" in one[1]]


@virtual
async def test_a_server_that_keeps_no_metadata_is_refused_and_left_as_it_was():
    fake = FakeQdrant()
    server = serving(fake)
    described = told({"result": {"config": {"params": {"vectors": {}}}}})
    missing = refusal(404, "Not found: Collection `c` doesn't exist!")
    fake.hook = answering(missing, None, described, path="/collections/c")
    with pytest.raises(Broken, match="too old"):
        await server.store.run(CreateCollection(INFO), WORK)
    assert fake.asked[-1][:2] == ("DELETE", "/collections/c")


@virtual
async def test_an_interrupted_creation_is_made_up_for():
    fake = FakeQdrant()
    store = serving(fake).store
    fake.hook = answering(refusal(500, "killed"), path="/index")
    with pytest.raises(Unavailable):
        await store.run(CreateCollection(INFO), WORK)
    await store.run(CreateCollection(INFO), WORK)
    assert fake.fields["c"].keys() == {"id", "path", "language", "source", "facets", "chunk", "rev"}
    assert fake.fields["c"]["path"]["params"]["prefix"] is True


@virtual
async def test_two_that_create_the_same_at_once_get_the_same():
    fake = FakeQdrant()
    store = serving(fake).store
    await store.run(CreateCollection(INFO), WORK)
    fake.hook = answering(refusal(404, "Not found: Collection `c` doesn't exist!"), path="/collections/c")
    assert (await store.run(CreateCollection(INFO), WORK)).name == "c"


@virtual
async def test_the_layout_is_the_embedded_engine_s():
    fake = FakeQdrant()
    await serving(fake, shards=3, replicas=2).store.run(
        CreateCollection(CollectionInfo("c", 2, "m", token_dim=8)), WORK
    )
    body = next(said for method, path, _, said in fake.asked if (method, path) == ("PUT", "/collections/c"))
    assert body["vectors"]["dense"]["distance"] == "Dot"
    assert set(body["vectors"]) == {"dense"}
    assert body["sparse_vectors"] == {"sparse": {"modifier": "idf"}}
    assert (body["shard_number"], body["replication_factor"]) == (3, 2)
    assert body["metadata"][METADATA_KEY]["model"] == "m"


@virtual
async def test_a_collection_that_another_process_has_made_anew_is_looked_at_again():
    fake = FakeQdrant()
    ours, theirs = serving(fake).store, serving(fake).store
    await ours.run(CreateCollection(INFO), WORK)
    await ours.run(UpsertPoints("c", [point("a")]), WORK)
    await theirs.run(DropCollection("c"), WORK)
    with pytest.raises(Invalid, match="there is no collection 'c'"):
        await search_arm(ours, "c", ArmQuery(sparse(t1=1), 1), WORK)
    await theirs.run(CreateCollection(CollectionInfo("c", 2, "m", sparse="splade")), WORK)
    await theirs.run(UpsertPoints("c", [point("a")]), WORK)
    assert len(await search_arm(ours, "c", ArmQuery(sparse(t1=1), 1), WORK)) == 1


@virtual
async def test_names_have_the_prefix_on_the_server_and_nowhere_else():
    fake = FakeQdrant()
    ours, theirs = serving(fake, prefix="ours-").store, serving(fake, prefix="theirs-").store
    await ours.run(CreateCollection(INFO), WORK)
    assert [one.name for one in await ours.run(ListCollections(), WORK)] == ["c"]
    assert await theirs.run(ListCollections(), WORK) == []
    with pytest.raises(Invalid, match="'c'"):
        await theirs.run(DescribeCollection("c"), WORK)
    assert list(fake.fields) == ["ours-c"]


@virtual
async def test_several_queries_are_one_request_and_those_that_can_find_nothing_are_not_asked():
    fake = FakeQdrant()
    store = serving(fake).store
    await store.run(CreateCollection(INFO), WORK)
    await store.run(UpsertPoints("c", [point("a")]), WORK)
    before = len(fake.asked)
    queries = [
        ArmQuery(unit(1, 0), 1),
        ArmQuery(sparse(), 1),
        ArmQuery(sparse(t1=1), 1),
        ArmQuery(unit(1, 0), 1, among=[]),
    ]
    found = await store.run(SearchBatch("c", queries), WORK)
    assert [len(one) for one in found] == [1, 0, 1, 0]
    assert [one[1] for one in fake.asked[before:]] == ["/collections/c/points/query/batch"]
    assert len(fake.asked[-1][3]["searches"]) == 2


# Behind its guard


def guarded(fake: FakeQdrant) -> tuple[GuardedStore, Guard, RemoteDependency]:
    clock, luck = LoopClock(), random.Random(1).random
    guard = Guard("store", GuardSettings(failures=3), clock, patience_s=5.0, random=luck)
    limits = LimitSettings(initial=8, floor=8, ceiling=32)
    remote = RemoteDependency(guard, clock, limits=limits, retries=RetrySettings(), random=luck)
    return GuardedStore(serving(fake).store, guard, remote=remote), guard, remote


@virtual
async def test_what_fails_in_passing_is_asked_again():
    fake = FakeQdrant()
    store, _, remote = guarded(fake)
    await store.run(CreateCollection(INFO), WORK)
    await store.run(UpsertPoints("c", [point("a")]), WORK)
    fake.hook = answering(httpx.ReadError("cut off"), path="/batch")
    assert len(await search_arm(store, "c", ArmQuery(unit(1, 0), 1), WORK)) == 1
    await asyncio.sleep(2)  # the retry budget allows one a second
    fake.hook = answering(refusal(503, "leader is being elected"), path="/points")
    await store.run(UpsertPoints("c", [point("b")]), WORK)
    assert remote.counts.retries == 2


@virtual
async def test_a_deletion_is_not_asked_again_since_it_would_count_nothing():
    fake = FakeQdrant()
    store, _, remote = guarded(fake)
    await store.run(CreateCollection(INFO), WORK)
    await store.run(UpsertPoints("c", [point("a")]), WORK)
    fake.hook = answering(httpx.ReadError("cut off"), path="/delete")
    with pytest.raises(Unavailable):
        await store.run(DeleteDocuments("c", (Match("id", ["a"]),)), WORK)
    assert remote.counts.retries == 0


@virtual
async def test_a_server_that_fails_again_and_again_is_left_alone():
    fake = FakeQdrant()
    store, guard, _ = guarded(fake)
    await store.run(CreateCollection(INFO), WORK)
    fake.hook = answering(*[refusal(500, "broken")] * 20)
    for _ in range(5):
        with pytest.raises(Unavailable):
            await store.run(GetDocuments("c", ["a"]), WORK)
    assert guard.state is BreakerState.OPEN
    before = len(fake.asked)
    with pytest.raises(CircuitOpen):
        await store.run(GetDocuments("c", ["a"]), WORK)
    assert len(fake.asked) == before
