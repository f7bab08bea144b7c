"""Keys over HTTP: made, rotated and revoked by those who may, and told of without their secrets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock.http.gate import Gate, GateInputs
from penstock.http.routes import Api
from penstock.kernel.access import PLAIN_ID, ApiKey, digest_of, format_key, make_key
from penstock.kernel.settings import Settings
from penstock.stores.server_keys import ServerKeys
from tests.clock import virtual
from tests.fakes.api import Caller, FakeCore
from tests.fakes.keys import MemoryKeyStore
from tests.unit.http.test_access import SECRET, NotedAudit

ADMIN = ApiKey("a" * 12, "admin", digest_of(SECRET), "admin")
ADMIN_TEXT = format_key(ADMIN.id, SECRET)
FIRST = {"name": "first", "scope": "admin", "close_server": True}


class Server:
    """An API behind a gate, with keys that can be changed; without any where ``keys`` is ``None``."""

    def __init__(self, keys: list[ApiKey] | None = None, environment: list[ApiKey] | None = None) -> None:
        settings = Settings()
        self.core = FakeCore(replace(settings, http=replace(settings.http, rate_limit=0)))
        self.audit = self.core.deps.audit = NotedAudit()
        self.store = MemoryKeyStore(keys)
        self.keys = self.core.deps.keys = ServerKeys([self.store], environment or [], required=keys is not None)
        inputs = GateInputs(rng=lambda: 0.0, keys=self.keys.active)
        self.gate = Gate(Api(self.core), self.core.deps.settings.http, self.core.metrics, inputs)

    async def ask(self, method: str, path: str, body: Any = None, key: str = ADMIN_TEXT, **headers: str) -> Any:
        await self.keys.reload()
        caller = Caller(self.gate)
        return await caller.ask(method, path, body, ({"x-api-key": key} if key else {}) | headers)


def refusal(answer: Any) -> tuple[int, str, str]:
    return answer.status, answer.json["code"], answer.json.get("field", "")


@virtual
async def test_a_new_key_is_told_once_and_works_at_once():
    server = Server([ADMIN])
    wanted = {"name": "ci", "scope": "write", "collections": ["team-*"], "rate": 20, "expires_at": "2031-01-31"}
    made = await server.ask("POST", "/v1/keys", wanted)
    assert (made.status, made.headers["cache-control"]) == (200, "no-store")
    secret = made.json["secret"]
    assert secret.startswith(f"psk_{made.json['key']['id']}_")
    assert (await server.ask("GET", "/v1/collections", key=secret)).status == 200
    listed = await server.ask("GET", "/v1/keys")
    ci = listed.json["keys"][1]
    assert {name: ci[name] for name in wanted} == wanted | {"expires_at": "2031-01-31T00:00:00Z"}
    assert (ci["place"], ci["expired"], ci["used_at"] is None) == ("store", False, False)
    assert (listed.json["own"], listed.json["open"]) == (ADMIN.id, False)
    for kept in (secret.rpartition("_")[2], server.store.keys[1].digest, ADMIN.digest):
        assert kept not in listed.body.decode()
    events = [(event, facts["key"]) for event, facts in server.audit.acts if event.startswith("key_")]
    assert events == [("key_created", ci["id"])]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"name": "two words"}, (422, "invalid_name", "name")),
        ({"name": ""}, (422, "invalid_name", "name")),
        ({"name": "admin"}, (409, "key_exists", "name")),
        ({"name": ADMIN.id}, (409, "key_exists", "name")),
        ({"name": PLAIN_ID}, (409, "key_exists", "name")),
        ({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}, (422, "invalid", "expires_at")),
        ({"name": "x", "expires_at": "2999-01-01T00:00:00Z"}, (422, "invalid", "expires_at")),
        ({"name": "x", "expires_at": "soon"}, (422, "invalid", "expires_at")),
        ({"name": "x", "collections": ["a b"]}, (422, "invalid", "collections")),
        ({"name": "x", "collections": ["a"] * 101}, (422, "invalid", "collections")),
        ({"name": "x", "scope": "root"}, (422, "invalid", "scope")),
        ({"name": "x", "rate": 0}, (422, "invalid", "rate")),
        ({"name": "x", "rate": 1e9}, (422, "invalid", "rate")),
        ({"name": "x", "secret": "mine"}, (422, "invalid", "secret")),
    ],
)
@virtual
async def test_a_key_that_cannot_be_is_refused_and_its_field_named(body, told):
    server = Server([ADMIN], [ApiKey(PLAIN_ID, PLAIN_ID, digest_of("x"), "admin")])
    assert refusal(await server.ask("POST", "/v1/keys", body)) == told
    assert server.store.keys == [ADMIN]


@virtual
async def test_a_rotated_key_goes_on_for_its_grace():
    server = Server([ADMIN])
    done = await server.ask("POST", f"/v1/keys/{ADMIN.id}/rotate", {"grace_s": 60})
    assert done.headers["cache-control"] == "no-store"
    assert [key["name"] for key in (await server.ask("GET", "/v1/keys", key=done.json["secret"])).json["keys"]] == [
        "admin",
        "admin",
    ]
    assert server.store.keys[0].expires_at > 0
    ended = await server.ask("POST", f"/v1/keys/{done.json['key']['id']}/rotate", {"grace_s": 0})
    assert (await server.ask("GET", "/v1/keys")).json["code"] == "key_expired"
    assert (await server.ask("GET", "/v1/keys", key=ended.json["secret"])).status == 200


@virtual
async def test_a_revoked_key_ends_at_once_and_the_last_that_administers_stays():
    other, some = make_key(ApiKey("", "other", "", "admin"), 0), make_key(ApiKey("", "some", "", "admin", ("a",)), 0)
    server = Server([ADMIN, other.key, some.key])
    gone = await server.ask("DELETE", f"/v1/keys/{other.key.id}")
    assert (gone.status, gone.json["name"]) == (200, "other")
    assert (await server.ask("GET", "/v1/keys", key=other.text)).json["code"] == "key_unknown"
    assert refusal(await server.ask("DELETE", f"/v1/keys/{ADMIN.id}")) == (409, "last_admin_key", "")
    assert (await server.ask("DELETE", f"/v1/keys/{some.key.id}")).status == 200


@virtual
async def test_a_key_of_the_environment_is_changed_there_and_lets_the_last_of_the_store_go():
    server = Server([ADMIN], [ApiKey(PLAIN_ID, PLAIN_ID, digest_of("x"), "admin")])
    for method, path in (("DELETE", f"/v1/keys/{PLAIN_ID}"), ("POST", f"/v1/keys/{PLAIN_ID}/rotate")):
        assert refusal(await server.ask(method, path)) == (409, "key_not_changeable", "")
    assert (await server.ask("DELETE", f"/v1/keys/{ADMIN.id}")).status == 200
    assert server.store.keys == []


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/keys/none"), ("POST", "/v1/keys/admin/rotate")])
@virtual
async def test_what_is_no_id_of_a_key_is_not_found(method, path):
    assert refusal(await Server([ADMIN]).ask(method, path)) == (404, "key_not_found", "")


@virtual
async def test_the_first_key_closes_the_server_when_that_is_meant():
    server = Server()
    assert (await server.ask("GET", "/v1/keys", key="")).json == {"keys": [], "own": None, "open": True}
    made = await server.ask("POST", "/v1/keys", FIRST, key="")
    assert made.status == 200
    assert (await server.ask("GET", "/v1/keys", key="")).json["code"] == "key_missing"
    assert (await server.ask("GET", "/v1/keys", key=made.json["secret"])).json["open"] is False


@pytest.mark.parametrize(
    ("changes", "headers", "told"),
    [
        ({"close_server": False}, {}, (409, "server_would_close", "close_server")),
        ({"scope": "write"}, {}, (422, "first_key_not_admin", "scope")),
        ({"collections": ["a"]}, {}, (422, "first_key_not_admin", "collections")),
        ({}, {"x-forwarded-for": "192.0.2.1"}, (403, "first_key_not_local", "")),
    ],
)
@virtual
async def test_a_first_key_that_would_lock_out_the_owner_is_refused(changes, headers, told):
    server = Server()
    assert refusal(await server.ask("POST", "/v1/keys", FIRST | changes, key="", **headers)) == told
    assert server.store.keys is None


@pytest.mark.parametrize(("address", "status"), [("192.0.2.1", 403), ("::1", 200), ("::ffff:127.0.0.1", 200)])
@virtual
async def test_the_first_key_comes_from_the_server_s_own_machine(address, status):
    caller = Caller(Server().gate)
    caller.address = address
    assert (await caller.ask("POST", "/v1/keys", FIRST)).status == status


@virtual
async def test_of_two_first_keys_one_is_made():
    server = Server()
    server.store.keys = [ADMIN]  # by a command, and not noticed yet
    answer = await Caller(server.gate).ask("POST", "/v1/keys", FIRST)
    assert (answer.status, answer.json["code"]) == (401, "key_missing")
    assert server.store.keys == [ADMIN]
