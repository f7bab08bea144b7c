"""Keys at the gate: who passes, who does not, and what is told to whom."""

import asyncio
from typing import Any

import msgspec
import pytest

from penstock.http.authentication import DOCS_PATHS, FAILURES, METRICS_PATHS, OPEN_PATHS
from penstock.http.gate import Gate, GateInputs
from penstock.http.request_context import request_state
from penstock.kernel.access import ANYONE, UNAUTHENTICATED, ActiveKeys, ApiKey, KeyRing, digest_of, format_key
from penstock.kernel.settings import HttpSettings
from penstock.telemetry.metrics import Metrics
from tests.clock import virtual
from tests.fakes.api import Caller, scope

IDS = ("AAAAAAAAAAAA", "BBBBBBBBBBBB")
SECRET = "S" * 43
GOOD, OTHER = (format_key(id, SECRET) for id in IDS)
WRONG = format_key(IDS[0], "T" * 43)
KEY = ApiKey(IDS[0], "ci", digest_of(SECRET), "write", rate=5)


def keys(**changes: Any) -> ActiveKeys:
    plain = msgspec.structs.replace(KEY, rate=0)
    other = msgspec.structs.replace(plain, id=IDS[1], name="other")
    return ActiveKeys(KeyRing([msgspec.structs.replace(plain, **changes), other]))


class Seen:
    """An application that notes who asks."""

    def __init__(self) -> None:
        self.states: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.states.append(request_state(scope))
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def gate(app: Any, accepted: ActiveKeys, denied: list[str] | None = None, **limits: Any) -> Gate:
    noted = [] if denied is None else denied
    inputs = GateInputs(rng=lambda: 0.0, keys=accepted, on_denied=lambda _, code: noted.append(code))
    return Gate(app, HttpSettings(**limits), Metrics(), inputs)


async def ask(one: Gate, headers: Any = None, path: str = "/v1/status", address: str = "127.0.0.1") -> Any:
    return await Caller(one, address=address).ask("GET", path, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {GOOD}"},
        {"authorization": f"bearer  {GOOD} "},
        {"x-api-key": GOOD},
        {"api-key": GOOD},
        {"api-key": GOOD, "authorization": f"Bearer {GOOD}"},
        {"x-api-key": GOOD, "authorization": "Basic YTpi"},
    ],
)
@virtual
async def test_a_key_passes_and_is_the_client(headers):
    app = Seen()
    assert (await ask(gate(app, keys()), headers)).status == 200
    state = app.states[0]
    assert (state.client, state.principal.name, state.address) == (f"key:{IDS[0]}", "ci", "127.0.0.1")


@pytest.mark.parametrize(
    ("headers", "code", "challenge"),
    [
        ({}, "key_missing", 'Bearer realm="penstock"'),
        ({"authorization": "Basic YTpi"}, "key_missing", 'Bearer realm="penstock"'),
        ({"authorization": GOOD}, "key_missing", 'Bearer realm="penstock"'),
        ({"authorization": "Bearer"}, "key_missing", 'Bearer realm="penstock"'),
        ({"authorization": "Bearer "}, "key_unknown", 'Bearer realm="penstock", error="invalid_token"'),
        ({"x-api-key": WRONG}, "key_unknown", 'Bearer realm="penstock", error="invalid_token"'),
        ({"x-api-key": GOOD[:-1]}, "key_unknown", 'Bearer realm="penstock", error="invalid_token"'),
        ({"x-api-key": f"{GOOD}\n{GOOD}"}, "key_unknown", 'Bearer realm="penstock", error="invalid_token"'),
        ({"x-api-key": GOOD, "api-key": OTHER}, "key_ambiguous", 'Bearer realm="penstock", error="invalid_token"'),
        ({"cookie": f"key={GOOD}"}, "key_missing", 'Bearer realm="penstock"'),
    ],
)
@virtual
async def test_a_request_without_a_usable_key_is_told_what_lacks(headers, code, challenge):
    app, denied = Seen(), []
    answer = await ask(gate(app, keys(), denied), headers)
    assert (answer.status, answer.json["code"], answer.headers["www-authenticate"]) == (401, code, challenge)
    assert "SSSS" not in answer.body.decode()
    assert (app.states, denied) == ([], [code])


@virtual
async def test_a_header_that_is_there_twice_must_say_the_same_twice():
    for second, status in ((GOOD, 200), (OTHER, 401)):
        caller = Caller(gate(Seen(), keys()))
        twice = scope("GET", "/v1/status", {"x-api-key": GOOD})
        twice["headers"].append((b"x-api-key", second.encode()))
        await caller.app(twice, _nothing, _sender(caller))
        assert caller.answer().status == status


async def _nothing() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def _sender(caller: Caller) -> Any:
    async def send(message: Any) -> None:
        caller.sent.append(message)

    return send


@pytest.mark.parametrize("path", [f"/v1/status?api_key={GOOD}", f"/{GOOD}", "/v1/search?authorization=x"])
@virtual
async def test_a_key_in_the_address_is_none(path):
    answer = await ask(gate(Seen(), keys()), path=path)
    assert (answer.status, answer.json["code"]) == (401, "key_missing")
    assert GOOD not in answer.body.decode()


@virtual
async def test_an_expired_key_is_told_so():
    answer = await ask(gate(Seen(), keys(expires_at=1)), {"x-api-key": GOOD})
    assert (answer.status, answer.json["code"]) == (401, "key_expired")


@virtual
async def test_a_key_that_is_revoked_while_in_use_is_unknown_from_the_next_request_on():
    accepted = keys()
    one = gate(Seen(), accepted)
    assert (await ask(one, {"x-api-key": GOOD})).status == 200
    accepted.replace(KeyRing([]))
    assert (await ask(one, {"x-api-key": GOOD})).json["code"] == "key_unknown"


@virtual
async def test_the_first_key_closes_a_running_server():
    accepted = ActiveKeys()
    app = Seen()
    one = gate(app, accepted)
    assert (await ask(one)).status == 200
    assert app.states[0].principal is ANYONE
    accepted.replace(keys().ring)
    assert (await ask(one)).status == 401


@pytest.mark.parametrize(
    "path",
    [
        "/livez%2f..%2fv1%2fsearch",
        "/livez/../v1/search",
        "/livez/",
        "//livez",
        "/LIVEZ",
        "/livez;x",
        "/livez%00",
        "/%6civez/x",
        "/readyz/..",
        "*",
        "",
    ],
)
@virtual
async def test_a_path_that_only_looks_open_is_closed(path):
    assert (await ask(gate(Seen(), keys()), path=path)).status == 401


@pytest.mark.parametrize(
    ("settings", "opened"),
    [
        ({}, OPEN_PATHS),
        ({"metrics_open": True}, OPEN_PATHS | METRICS_PATHS),
        ({"docs_open": True}, OPEN_PATHS | DOCS_PATHS),
    ],
)
@virtual
async def test_what_is_open_is_open_and_nothing_else(settings, opened):
    one = gate(Seen(), keys(), **settings)
    everything = OPEN_PATHS | METRICS_PATHS | DOCS_PATHS | {"/v1/status", "/v1/alerts", "/nothing"}
    assert {path for path in everything if (await ask(one, path=path)).status == 200} == opened


@virtual
async def test_wrong_keys_of_an_address_are_slowed_and_right_ones_pass_all_the_same():
    one = gate(Seen(), keys())
    tries = [await ask(one, {"x-api-key": WRONG}) for _ in range(int(FAILURES.burst) + 5)]
    assert [answer.status for answer in tries] == [401] * int(FAILURES.burst) + [429] * 5
    assert (tries[-1].json["code"], tries[-1].headers["retry-after"]) == ("too_many_failed_attempts", "1")
    assert (await ask(one, {"x-api-key": GOOD})).status == 200
    assert (await ask(one, {"x-api-key": WRONG}, address="192.0.2.7")).status == 401
    assert (await ask(one, {})).status == 401
    await asyncio.sleep(1)
    assert (await ask(one, {"x-api-key": WRONG})).status == 401


@virtual
async def test_the_rate_is_of_the_key_wherever_it_comes_from():
    one = gate(Seen(), keys(), rate_limit=1, rate_burst=2)
    answers = [await ask(one, {"x-api-key": GOOD}, "/v1/x", f"192.0.2.{n}") for n in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert (await ask(one, {"x-api-key": OTHER}, "/v1/x")).status == 200


@pytest.mark.parametrize("limit", [0, 100])
@virtual
async def test_a_key_has_a_rate_of_its_own_whether_others_have_one_or_not(limit):
    one = gate(Seen(), keys(rate=5), rate_limit=limit, rate_burst=200)
    answers = [await ask(one, {"x-api-key": GOOD}, "/v1/x") for _ in range(12)]
    assert [answer.status for answer in answers] == [200] * 10 + [429] * 2
    assert answers[0].headers["ratelimit-policy"] == '"key";q=10;w=2'
    assert [answers[n].headers["ratelimit"].partition(";t")[0] for n in (0, 9)] == ['"key";r=9', '"key";r=0']
    assert (await ask(one, {"x-api-key": OTHER}, "/v1/x")).status == 200
    await asyncio.sleep(0.2)
    assert (await ask(one, {"x-api-key": GOOD}, "/v1/x")).status == 200


@virtual
async def test_a_page_may_ask_what_it_may_send_before_it_sends_a_key():
    app = Seen()
    one = gate(app, keys(), cors_origins="https://app.example")
    preflight = {"origin": "https://app.example", "access-control-request-method": "POST"}
    answer = await Caller(one).ask("OPTIONS", "/v1/search", headers=preflight)
    assert (answer.status, app.states) == (204, [])
    assert (await Caller(one).ask("OPTIONS", "/v1/search")).status == 401


@virtual
async def test_a_draining_server_tells_nobody_without_a_key():
    one = gate(Seen(), keys())
    one.traffic.draining = True
    assert (await ask(one, path="/v1/x")).status == 401
    assert (await ask(one, {"x-api-key": GOOD}, "/v1/x")).status == 503


@virtual
async def test_what_runs_for_a_key_ends_when_the_key_is_revoked():
    accepted = keys()

    async def endless(*_: Any) -> None:
        await asyncio.Event().wait()

    one = gate(endless, accepted)
    callers = {key: Caller(one) for key in (GOOD, OTHER)}
    asking = {
        key: asyncio.create_task(caller.ask("GET", "/v1/x", headers={"x-api-key": key}))
        for key, caller in callers.items()
    }
    await asyncio.sleep(1)
    accepted.replace(KeyRing([msgspec.structs.replace(KEY, id=IDS[1])]))
    answer = await asking[GOOD]
    assert (answer.status, answer.json["code"]) == (401, "key_unknown")
    assert not asking[OTHER].done()
    asking[OTHER].cancel()
    await asyncio.gather(asking[OTHER], return_exceptions=True)


@virtual
async def test_an_open_path_knows_a_key_that_sees_everything_and_no_other():
    app = Seen()
    one = gate(app, keys(collections=("team-*",)))
    for headers in ({}, {"x-api-key": WRONG}, {"x-api-key": GOOD}, {"x-api-key": GOOD, "api-key": OTHER}):
        assert (await ask(one, headers, "/readyz")).status == 200
    assert [state.principal for state in app.states] == [UNAUTHENTICATED] * 4
    await ask(one, {"x-api-key": OTHER}, "/readyz")
    assert app.states[-1].principal.name == "other"
