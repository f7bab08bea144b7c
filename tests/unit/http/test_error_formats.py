"""Errors on the routes of other vendors' clients: their body, statuses and hints to retry, from the gate on."""

import json
import math

import pytest

from penstock.http.error_formats import COHERE, OPENAI, RETRY_AFTER_S_MAX, TEI
from penstock.http.gate import RETRY_FILL_MAX, GateInputs
from penstock.http.problem import PROBLEM_DETAILS, PreparedRefusal
from penstock.http.request_context import AdmissionContext, read_admission_context
from penstock.http.routes import backpressure_check, error_format_of
from penstock.kernel.access import ActiveKeys, ApiKey, KeyRing, Scope, digest_of
from penstock.kernel.errors import Broken, Expired, Invalid, PenstockError, Rejected, Unavailable
from penstock.kernel.settings import HttpSettings
from penstock.policies.jitter import jittered_retry_after_s
from penstock.policies.levels import Level
from tests.clock import virtual
from tests.fakes.api import Api

RETRY = {"x-stainless-retry-count": "1"}


def told(error: PenstockError, form):
    """Return status, body and the hint to retry of an error."""
    status, body, headers = PreparedRefusal(error).render(b"me", 0, form)
    return status, json.loads(body), dict(headers)[b"x-should-retry"]


@pytest.mark.parametrize(
    ("error", "status", "kind", "again"),
    [
        (Invalid("no", field="input"), 400, "invalid_request_error", b"false"),
        (Invalid("no", code="malformed"), 400, "invalid_request_error", b"false"),
        (Invalid("no", code="model_not_found"), 404, "invalid_request_error", b"false"),
        (Rejected("no", by_client=True), 429, "rate_limit_error", b"true"),
        (Rejected("no"), 503, "server_error", b"true"),
        (Unavailable("no", dependency="embed"), 503, "server_error", b"true"),
        (Expired("embed", "no"), 504, "server_error", b"true"),
        (Broken("no"), 500, "server_error", b"false"),
    ],
)
def test_openai_reads_the_kind_the_field_and_the_code(error, status, kind, again):
    field = getattr(error, "field", "") or None
    body = {"error": {"message": "no", "type": kind, "param": field, "code": error.code}}
    assert told(error, OPENAI) == (status, body, again)


@pytest.mark.parametrize(("error", "status"), [(Invalid("no"), 400), (Rejected("no"), 503), (Expired("x", "no"), 504)])
def test_cohere_reads_a_message_and_the_request_s_id(error, status):
    assert told(error, COHERE)[:2] == (status, {"id": "me", "message": "no"})


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (Invalid("no"), 422, "validation"),
        (Invalid("no", code="body_too_large"), 413, "validation"),
        (Rejected("no"), 429, "overloaded"),
        (Rejected("no", by_client=True), 429, "overloaded"),
        (Unavailable("no", dependency="embed"), 503, "unhealthy"),
        (Broken("no"), 500, "backend"),
    ],
)
def test_tei_tells_overload_from_what_does_not_work(error, status, kind):
    assert told(error, TEI)[:2] == (status, {"error": "no", "error_type": kind})


@pytest.mark.parametrize("form", [OPENAI, COHERE, TEI])
def test_no_vendor_s_client_is_sent_away_for_longer_than_it_waits(form):
    longest = jittered_retry_after_s(min(math.inf, form.retry_after_s_max), 1.0)
    assert longest == 120 == 1.5 * RETRY_AFTER_S_MAX
    assert jittered_retry_after_s(min(math.inf, PROBLEM_DETAILS.retry_after_s_max), 1.0) == 3600


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v1/models", OPENAI),
        ("/v1/models/a/b", OPENAI),
        ("/v1/modelsx", PROBLEM_DETAILS),
        ("/v1/models\n", PROBLEM_DETAILS),
        ("/v1", PROBLEM_DETAILS),
        ("/v1/search", PROBLEM_DETAILS),
        ("*", PROBLEM_DETAILS),
    ],
)
def test_a_format_holds_for_its_path_and_below(path, form):
    assert error_format_of(path) is form


@pytest.mark.parametrize(
    ("method", "headers", "http", "status", "code"),
    [
        ("GET", {}, HttpSettings(rate_limit=1, rate_burst=1), 429, "rate_limited"),
        ("GET", {"host": "elsewhere.example"}, HttpSettings(), 421, "host_not_allowed"),
        ("GET", {"origin": "https://elsewhere.example"}, HttpSettings(), 403, "origin_not_allowed"),
        ("GET", {"content-length": "2"}, HttpSettings(max_body=1), 413, "body_too_large"),
        ("GET", {}, HttpSettings(max_concurrent=1), 503, "too_many_requests_in_flight"),
        ("PUT", {}, HttpSettings(), 405, "method_not_allowed"),
    ],
)
@virtual
async def test_the_gate_refuses_in_the_form_of_the_route(method, headers, http, status, code):
    api = Api(http)
    if code == "rate_limited":
        await api.ask("GET", "/v1/models")
    if code == "too_many_requests_in_flight":
        api.gate._running.add(object())
    answer = await api.ask(method, "/v1/models", headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-should-retry"] == ("true" if status in (429, 503) else "false")
    assert ("retry-after" in answer.headers) is (status in (429, 503))


@virtual
async def test_a_server_that_drains_says_so_in_the_form_of_the_route():
    api = Api()
    api.core.traffic.draining = True
    answer = await api.ask("GET", "/v1/models")
    assert (answer.status, answer.json["error"]["code"]) == (503, "draining")


@virtual
async def test_what_is_not_there_below_a_vendor_s_path_is_told_in_its_form():
    answer = await Api().ask("GET", "/v1/models/absent")
    assert (answer.status, answer.json["error"]["code"], answer.json["error"]["param"]) == (
        404,
        "model_not_found",
        "model",
    )
    assert (await Api().ask("GET", "/v1/nothing")).json["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/embeddings", lambda body: body["error"]["type"] == "authentication_error"),
        ("/v2/rerank", lambda body: set(body) == {"id", "message"}),
        ("/embed", lambda body: set(body) == {"error", "error_type"}),
        ("/v1/rerank", lambda body: body["status"] == 401),
    ],
)
@virtual
async def test_a_request_without_a_key_is_refused_in_the_form_of_the_route(path, told):
    key = ApiKey("0" * 12, "k", digest_of("x"), Scope.SEARCH.label)
    answer = await Api(senses=GateInputs(keys=ActiveKeys(KeyRing([key])))).ask("POST", path, "{}")
    assert (answer.status, told(answer.json)) == (401, True), answer.body
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers.get("x-should-retry") == (None if path == "/v1/rerank" else "false")


# Retries are the first to go


@pytest.mark.parametrize(("said", "retry"), [(None, False), (b"0", False), (b"1", True), (b"2", True)])
def test_a_client_that_counts_its_retries_is_known_by_it(said, retry):
    headers = {} if said is None else {b"x-stainless-retry-count": said}
    assert read_admission_context(headers, "me", 0.0).is_retry is retry


@pytest.mark.parametrize(("retry", "level"), [(False, Level.CRITICAL), (True, Level.HIGH)])
def test_a_retry_is_refused_from_a_lower_fill_on(retry, level):
    asked = []
    pressed = backpressure_check(lambda _topic, _ctx, at: asked.append(at))
    assert pressed("POST", "/v1/embed", AdmissionContext("me", is_retry=retry)) is None
    assert asked == [level]


@virtual
async def test_the_last_places_in_flight_are_kept_from_retries():
    api = Api(HttpSettings(max_concurrent=10), GateInputs())
    api.gate._running.update(object() for _ in range(int(10 * RETRY_FILL_MAX)))
    assert (await api.ask("GET", "/v1/models")).status == 200
    refused = await api.ask("GET", "/v1/models", headers=RETRY)
    assert (refused.status, refused.json["error"]["code"]) == (503, "too_many_requests_in_flight")
    assert (await api.ask("GET", "/v1/models", headers={"x-stainless-retry-count": "0"})).status == 200
