"""Each route against keys of each scope, and against keys for some collections."""

import re
from dataclasses import replace
from typing import Any

import pytest

from penstock.http.authentication import METRICS_PATHS
from penstock.http.gate import Gate, GateInputs
from penstock.http.operations import ENDPOINTS
from penstock.http.routes import Api
from penstock.kernel.access import ActiveKeys, ApiKey, KeyRing, Scope, digest_of, format_key
from penstock.kernel.settings import Settings
from penstock.telemetry.audit_log import AuditTrail
from tests.clock import virtual
from tests.fakes.api import Caller, FakeCore

SECRET = "S" * 43
PLAIN = {"/livez", "/readyz", "/healthz"}
CLOSED = {"/metrics", "/openapi.json", "/docs"}


class NotedAudit(AuditTrail):
    """Audit log that keeps its lines."""

    def __init__(self) -> None:
        self.acts: list[tuple[str, dict[str, object]]] = []

    def act(self, event: str, **facts: object) -> None:
        self.acts.append((event, facts))


class House:
    """An API behind a gate, with keys."""

    def __init__(self) -> None:
        settings = Settings()
        self.core = FakeCore(replace(settings, http=replace(settings.http, rate_limit=0)))
        self.audit = self.core.deps.audit = NotedAudit()
        self.keys: list[ApiKey] = []
        self.active = ActiveKeys(KeyRing([]))
        inputs = GateInputs(rng=lambda: 0.0, keys=self.active)
        self.gate = Gate(Api(self.core), self.core.deps.settings.http, self.core.metrics, inputs)

    def key(self, scope: Scope, *collections: str) -> str:
        id = f"{len(self.keys):012}"
        self.keys.append(ApiKey(id, f"k{len(self.keys)}", digest_of(SECRET), scope.label, collections))
        self.active.ring = KeyRing(self.keys)
        return format_key(id, SECRET)

    async def ask(self, key: str, method: str, path: str, body: Any = None) -> Any:
        headers = {"x-api-key": key} if key else {}
        return await Caller(self.gate).ask(method, path, body, headers)


def asked(endpoint: Any) -> str:
    return re.sub(r"{\w+}", "x", endpoint.path)


@virtual
async def test_nothing_but_liveness_is_given_without_a_key():
    house = House()
    given = set()
    for method, path in {(e.method, asked(e)) for e in ENDPOINTS} | {("GET", path) for path in PLAIN | CLOSED}:
        answer = await house.ask("", method, path)
        if answer.status != 401:
            given.add(path)
    assert given == PLAIN


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
@virtual
async def test_a_key_of_a_smaller_scope_is_refused_before_the_body_is_looked_at(endpoint):
    house = House()
    for scope in Scope:
        answer = await house.ask(house.key(scope), endpoint.method, asked(endpoint), "no JSON at all")
        if scope < endpoint.scope:
            assert answer.status == 403
            wanted = f'error="insufficient_scope", scope="{endpoint.scope.label}"'
            assert wanted in answer.headers["www-authenticate"]
        else:
            assert answer.status not in (401, 403)


def test_each_scope_opens_these_routes():
    """A route that is added must be thought about: what declares no scope needs the highest."""
    opened = {scope: {f"{e.method} {e.path}" for e in ENDPOINTS if e.scope is scope} for scope in Scope}
    changing = {one for one in opened[Scope.SEARCH] if one.startswith(("PUT", "DELETE", "PATCH"))}
    assert changing == set()
    reading = {one for one in opened[Scope.ADMIN] if not one.startswith(("POST", "DELETE"))}
    assert reading == {"GET /v1/keys", "GET /v1/snapshots"}
    assert "DELETE /v1/collections/{name}" in opened[Scope.ADMIN]


@pytest.mark.parametrize(
    "endpoint", [e for e in ENDPOINTS if "/collections/{name}" in e.path], ids=lambda e: f"{e.method} {e.path}"
)
@virtual
async def test_a_key_for_some_collections_may_use_no_other_by_its_path(endpoint):
    house = House()
    key = house.key(Scope.ADMIN, "team-*")
    for name, refused in (("other", True), ("team-a", False)):
        path = re.sub(r"{\w+}", "x", endpoint.path.replace("{name}", name))
        answer = await house.ask(key, endpoint.method, path, "no JSON at all")
        assert (answer.status == 403) is refused


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/search", {"query": "q"}),
        ("POST", "/v1/search", {"query": "q", "collections": ["team-a", "other"]}),
        ("PUT", "/v1/sources/s", {"collection": "other"}),
        ("PUT", "/v1/sources/s", {}),
        ("DELETE", "/v1/sources/s?collection=other", None),
        ("DELETE", "/v1/sources/s", None),
        ("GET", "/v1/sources?collection=other", None),
        ("GET", "/metrics", None),
        ("POST", "/v1/snapshots", None),
        ("GET", "/v1/snapshots", None),
        ("DELETE", "/v1/snapshots/s", None),
        ("POST", "/v1/snapshots/s/restore", None),
        ("GET", "/v1/keys", None),
        ("POST", "/v1/keys", {"name": "more", "scope": "admin"}),
        ("POST", "/v1/keys/x/rotate", None),
        ("DELETE", "/v1/keys/x", None),
    ],
)
@virtual
async def test_a_key_for_some_collections_may_use_no_other_by_body_or_query(method, path, body):
    house = House()
    answer = await house.ask(house.key(Scope.ADMIN, "team-*"), method, path, body)
    assert (answer.status, answer.json["code"]) == (403, "collection_not_allowed")


@virtual
async def test_lists_have_only_what_a_key_may_use():
    house = House()
    key, all_of_it = house.key(Scope.SEARCH, "team-*"), house.key(Scope.SEARCH)
    admin = house.key(Scope.ADMIN)
    for name in ("team-a", "other"):
        assert (await house.ask(admin, "PUT", f"/v1/collections/{name}")).status == 200
        put = {"collection": name, "root": {"path": "/x", "host": "h"}}
        assert (await house.ask(admin, "PUT", f"/v1/sources/in-{name}", put)).status == 200
    for path, member in (("/v1/collections", "collections"), ("/v1/sources", "sources"), ("/v1/status", "collections")):
        seen = {one["name"] for one in (await house.ask(key, "GET", path)).json[member]}
        everything = {one["name"] for one in (await house.ask(all_of_it, "GET", path)).json[member]}
        assert {one.removeprefix("in-") for one in seen} == {"team-a"}
        assert {one.removeprefix("in-") for one in everything} == {"team-a", "other"}


@virtual
async def test_what_is_administered_is_written_with_who_did_it():
    house = House()
    admin = house.key(Scope.ADMIN)
    await house.ask(admin, "PUT", "/v1/collections/a")
    await house.ask(admin, "GET", "/v1/snapshots")
    await house.ask(admin, "DELETE", "/v1/collections/a")
    await house.ask(admin, "DELETE", "/v1/collections/b")
    told = [(event, facts["key"], facts["address"], facts["outcome"]) for event, facts in house.audit.acts]
    assert told == [
        ("DELETE /v1/collections/a", "000000000000", "127.0.0.1", "done"),
        ("DELETE /v1/collections/b", "000000000000", "127.0.0.1", "collection_not_found"),
    ]


@virtual
async def test_what_a_key_may_not_do_is_no_act():
    house = House()
    await house.ask(house.key(Scope.SEARCH), "DELETE", f"/v1/collections/{'a' * 60}")
    assert house.audit.acts == []


@virtual
async def test_readiness_without_a_key_names_nothing_of_the_server():
    house = House()
    house.core.reasons = ["the data directory /srv/secret is gone"]
    house.core.deps.warnings = lambda: ["collection 'secret' is damaged"]
    for path in ("/readyz", "/healthz"):
        for key in ("", house.key(Scope.ADMIN, "team-*")):
            answer = await house.ask(key, "GET", path)
            assert (answer.status, answer.json["ready"]) == (503, False)
            assert "secret" not in answer.body.decode()
        assert "secret" in (await house.ask(house.key(Scope.SEARCH), "GET", path)).body.decode()


@pytest.mark.parametrize("opened", [False, True])
@virtual
async def test_open_metrics_are_open_to_a_key_for_some_collections_too(opened):
    house = House()
    house.gate._authenticator._open_paths |= METRICS_PATHS if opened else frozenset()
    assert (await house.ask(house.key(Scope.SEARCH, "team-*"), "GET", "/metrics")).status == (200 if opened else 403)
    assert (await house.ask("", "GET", "/metrics")).status == (200 if opened else 401)
