"""The flow over the API: a frame a second for everyone who watches, none while nothing does, and who sees what."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from penstock.core.traffic import COUNTED_CLIENTS_MAX, RequestCount
from penstock.http.event_streams import CLIENT_STREAMS_MAX, STREAM_S_MAX
from penstock.http.flow_operations import CLIENTS_SHOWN_MAX, BusiestClients
from penstock.http.gate import Gate, GateInputs
from penstock.http.routes import Api as Routes
from penstock.kernel.access import ActiveKeys, ApiKey, KeyRing, Scope, digest_of, format_key
from penstock.kernel.settings import HttpSettings, Settings
from penstock.policies.alerts import ALERT_RULES, Measure
from tests.clock import BEGIN_S, virtual
from tests.fakes.api import Answer, Api, Caller, FakeCore

SECRET = "S" * 43


class Viewer:
    """One who watches until it hangs up."""

    def __init__(self, gate: Any, key: str = "", address: str = "127.0.0.1", **headers: str) -> None:
        self.caller = Caller(gate, address=address)
        said = {"x-api-key": key} if key else {}
        self.watching = asyncio.create_task(self.caller.call("GET", "/v1/flow", headers=said | headers))

    @property
    def events(self) -> list[bytes]:
        sent = b"".join(message.get("body", b"") for message in self.caller.sent)
        return [part for part in sent.split(b"\n\n") if part.startswith(b"event: flow\ndata: ")]

    @property
    def frames(self) -> list[Any]:
        return [json.loads(event.partition(b"data: ")[2]) for event in self.events]

    async def leave(self) -> None:
        self.caller.gone.set()
        await asyncio.sleep(0.1)
        assert self.watching.done()


class Keyed:
    """A server with keys: an administrator's, a reader's, and one of some collections."""

    def __init__(self) -> None:
        self.core = FakeCore(Settings())
        self.keys = self.core.deps.keys.active
        ids = {"admin": "A" * 12, "reader": "R" * 12, "team": "T" * 12}
        scopes = {"admin": Scope.ADMIN, "reader": Scope.SEARCH, "team": Scope.ADMIN}
        self.records = {
            name: ApiKey(id, name, digest_of(SECRET), scopes[name].label, ("team-*",) if name == "team" else ())
            for name, id in ids.items()
        }
        self.keys.ring = KeyRing(self.records.values())
        self.key = {name: format_key(id, SECRET) for name, id in ids.items()}
        inputs = GateInputs(keys=self.keys, traffic=self.core.traffic)
        self.gate = Gate(Routes(self.core), self.core.deps.settings.http, self.core.metrics, inputs)

    async def ask(self, name: str, path: str = "/v1/collections") -> Answer:
        return await Caller(self.gate).ask("GET", path, headers={"x-api-key": self.key[name]})


# One a second, for all


@virtual
async def test_there_is_a_frame_at_once_and_one_each_second() -> None:
    api = Api()
    await asyncio.sleep(0.3)
    viewer = Viewer(api.gate)
    await asyncio.sleep(4)
    frames = viewer.frames
    assert [round(frame["uptime_s"] - BEGIN_S, 1) for frame in frames] == [0.3, 1.0, 2.0, 3.0, 4.0]
    assert viewer.caller.sent[1]["body"] == b"retry: 2000\n\n"
    await viewer.leave()


@virtual
async def test_everyone_gets_the_same_bytes_of_one_frame() -> None:
    api = Api()
    viewers = [Viewer(api.gate, address=f"10.0.0.{n}") for n in range(10)]
    await asyncio.sleep(5.5)
    assert len({tuple(one.events[1:]) for one in viewers}) == 1
    # Reasons and alerts, for each of six seconds.
    assert api.core.told == 2 * 6
    assert viewers[0].frames[-1]["viewers"] == 10
    for one in viewers:
        await one.leave()


@virtual
async def test_nothing_is_made_while_nobody_watches() -> None:
    api = Api()
    await asyncio.sleep(100)
    assert api.core.told == 0
    viewer = Viewer(api.gate)
    await asyncio.sleep(2)
    await viewer.leave()
    told, tasks = api.core.told, len(asyncio.all_tasks())
    await asyncio.sleep(100)
    assert (api.core.told, len(asyncio.all_tasks()), api.gate.traffic.in_flight) == (told, tasks, 0)


@virtual
async def test_a_frame_has_what_the_status_has_but_the_collections() -> None:
    api = await Api().with_collection("secret")
    viewer = Viewer(api.gate)
    await asyncio.sleep(1.5)
    status = (await api.ask("GET", "/v1/status")).json
    frame = viewer.frames[-1]
    for name in ("version", "topics", "pools", "breakers", "ladder", "caches", "memory", "alerts", "models", "ready"):
        assert frame[name] == status[name], name
    assert {*frame} >= {"at", "traffic", "process", "draining", "loop_lag_ms"}
    assert b"secret" not in viewer.events[-1]
    await viewer.leave()


@virtual
async def test_head_has_no_events() -> None:
    assert (await Api().ask("HEAD", "/v1/flow")).body == b""


# Its end


@virtual
async def test_a_stream_ends_after_ten_minutes_and_outlives_a_short_write_timeout() -> None:
    api = Api(HttpSettings(write_timeout=0.9))
    viewer = Viewer(api.gate)
    await viewer.watching
    assert asyncio.get_running_loop().time() == pytest.approx(BEGIN_S + STREAM_S_MAX, abs=0.1)
    assert len(viewer.events) == STREAM_S_MAX
    assert b": nothing new" in viewer.caller.answer().body
    assert api.gate.traffic.cut_off == 0


@virtual
async def test_a_deadline_ends_it_sooner() -> None:
    viewer = Viewer(Api().gate, **{"x-request-timeout-ms": "2500"})
    await viewer.watching
    assert asyncio.get_running_loop().time() == pytest.approx(BEGIN_S + 2.5, abs=0.1)
    assert len(viewer.events) == 3


@virtual
async def test_a_drain_is_the_last_that_it_tells() -> None:
    api = Api()
    viewer = Viewer(api.gate)
    await asyncio.sleep(1.5)
    api.gate.traffic.draining = True
    assert await api.gate.wait_drained(3)
    assert [frame["draining"] for frame in viewer.frames] == [False, False, True]
    late = Viewer(api.gate)
    await late.watching
    assert [frame["draining"] for frame in late.frames] == [True]


@virtual
async def test_a_viewer_that_does_not_read_is_cut_off() -> None:
    api = Api(HttpSettings(write_timeout=6))
    viewer = Viewer(api.gate)
    await asyncio.sleep(0.5)
    viewer.caller.reads = False
    await asyncio.sleep(10)
    assert (viewer.watching.done(), api.gate.traffic.cut_off) == (True, 1)


@virtual
async def test_a_key_that_is_revoked_ends_its_streams_and_no_others() -> None:
    keyed = Keyed()
    viewers = {name: Viewer(keyed.gate, key) for name, key in keyed.key.items()}
    await asyncio.sleep(1)
    keyed.keys.replace(KeyRing(record for name, record in keyed.records.items() if name != "reader"))
    await asyncio.sleep(1)
    assert {name: one.watching.done() for name, one in viewers.items()} == {
        "admin": False,
        "reader": True,
        "team": False,
    }
    # Broken off, so that its client asks again and is told why.
    assert viewers["reader"].caller.sent[-1]["more_body"]
    assert (await keyed.ask("reader", "/v1/flow")).json["code"] == "key_unknown"
    for name in ("admin", "team"):
        await viewers[name].leave()


# How many


@virtual
async def test_a_client_has_so_many_streams_and_all_of_them_a_part_of_the_requests_in_flight() -> None:
    api = Api(HttpSettings(max_concurrent=80))
    viewers = [Viewer(api.gate) for _ in range(CLIENT_STREAMS_MAX)]
    await asyncio.sleep(1)
    refused = await api.ask("GET", "/v1/flow")
    assert (refused.status, refused.json["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    viewers += [Viewer(api.gate, address=f"10.0.0.{n}") for n in range(10)]
    await asyncio.sleep(1)
    refused = await Caller(api.gate, address="10.0.1.0").ask("GET", "/v1/flow")
    assert (refused.status, refused.json["code"]) == (503, "overloaded")
    for one in viewers:
        await one.leave()
    again = Viewer(api.gate)
    await asyncio.sleep(1)
    assert again.frames
    await again.leave()


@virtual
async def test_a_full_server_is_watched_all_the_same_and_refusals_are_seen() -> None:
    api = Api(replace(HttpSettings(), rate_limit=1, rate_burst=1))
    viewer = Viewer(api.gate)
    for _ in range(5):
        await api.ask("GET", "/v1/collections")
    await asyncio.sleep(1)
    frame = viewer.frames[-1]
    assert frame["traffic"]["refused"] == {"rate_limited": 4}
    assert frame["clients"] == [{"client": "127.0.0.1", "requests": 5, "refused": 4, "name": ""}]
    assert (frame["requests"], frame["requests_refused"]) == (5, 4)
    await viewer.leave()


# Who sees what


@virtual
async def test_an_administrator_sees_every_key_and_the_others_only_their_own() -> None:
    keyed = Keyed()
    for name in ("admin", "reader", "reader", "team", "team", "team"):
        await keyed.ask(name)
    viewers = {name: Viewer(keyed.gate, key) for name, key in keyed.key.items()}
    await asyncio.sleep(1)
    seen = {name: [(one["name"], one["requests"]) for one in v.frames[-1]["clients"]] for name, v in viewers.items()}
    assert seen == {
        "admin": [("team", 3), ("reader", 2), ("admin", 1)],
        "reader": [("reader", 2)],
        # An administrator of some collections is none of the server.
        "team": [("team", 3)],
    }
    assert {viewer.frames[-1]["requests"] for viewer in viewers.values()} == {6}
    for name in ("reader", "team"):
        assert keyed.records["admin"].id.encode() not in viewers[name].events[-1]
    for viewer in viewers.values():
        await viewer.leave()


@virtual
async def test_a_key_for_some_collections_is_told_nothing_that_may_name_others() -> None:
    keyed = Keyed()
    keyed.core.reasons = ["the collection 'secret' is damaged"]
    keyed.core.deps.warnings = lambda: ["collection 'secret' is damaged"]
    viewers = {name: Viewer(keyed.gate, key) for name, key in keyed.key.items()}
    await asyncio.sleep(1)
    assert {name: b"secret" in one.events[-1] for name, one in viewers.items()} == {
        "admin": True,
        "reader": True,
        "team": False,
    }
    assert viewers["team"].frames[-1]["ready"] is False
    for viewer in viewers.values():
        await viewer.leave()


def test_no_alert_is_about_a_collection() -> None:
    """Frames show alerts to every key: a rule of another measure must be thought about."""
    about = {Measure.QUEUE, Measure.TASKS, Measure.BREAKER, Measure.MEMORY, Measure.LOOP_LAG, Measure.LADDER}
    assert {rule.measure for rule in ALERT_RULES} <= about


@virtual
async def test_without_keys_a_digest_and_an_address_are_clients() -> None:
    api = Api()
    await api.ask("GET", "/v1/collections", headers={"x-api-key": "anything"})
    viewer = Viewer(api.gate)
    await asyncio.sleep(1)
    (client,) = viewer.frames[-1]["clients"]
    assert client["client"].startswith("key:")
    assert "anything" not in client["client"]
    await viewer.leave()


# Clients


def counts(**requests: int) -> dict[str, RequestCount]:
    return {client: RequestCount(number) for client, number in requests.items()}


def test_the_busiest_are_those_of_late() -> None:
    busiest = BusiestClients()
    assert busiest.observe(counts(old=1000, new=1)) == ["old", "new"]
    assert busiest.observe(counts(old=1000, new=50)) == ["new", "old"]
    assert busiest.observe(counts(old=2000, new=50)) == ["old", "new"]


def test_so_many_are_shown() -> None:
    many = {f"c{number}": RequestCount(number) for number in range(100)}
    assert BusiestClients().observe(many) == [f"c{number}" for number in range(99, 99 - CLIENTS_SHOWN_MAX, -1)]


def test_a_client_that_was_forgotten_does_not_count_below_nothing() -> None:
    busiest = BusiestClients()
    busiest.observe(counts(a=100, b=1))
    assert busiest.observe(counts(a=1, b=3)) == ["b", "a"]


def test_the_quieter_clients_are_forgotten_where_there_are_too_many() -> None:
    gate = Api().gate
    clients = gate.traffic.clients
    for _ in range(3):
        gate._count_client("busy", refused=True)
    for number in range(3 * COUNTED_CLIENTS_MAX):
        gate._count_client(f"once-{number}", refused=False)
        assert len(clients.by_client) <= COUNTED_CLIENTS_MAX
    assert clients.by_client["busy"] == RequestCount(3, 3)
    assert clients.total == RequestCount(3 + 3 * COUNTED_CLIENTS_MAX, 3)


def test_active_keys_name_their_keys() -> None:
    record = ApiKey("A" * 12, "laptop", digest_of(SECRET))
    ring = KeyRing([record])
    assert (ring.name_of(record.id), ring.name_of("none"), ActiveKeys(ring).ring) == ("laptop", "", ring)
