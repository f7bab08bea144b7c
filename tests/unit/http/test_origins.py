import pytest

from penstock.http.gate import Gate
from penstock.http.origins import OriginPolicy
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import HttpSettings
from penstock.telemetry.metrics import Metrics
from tests.clock import virtual
from tests.fakes.api import Caller

APP = "https://app.example"


async def hello(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def gate(listens=(), **settings) -> Gate:
    return Gate(hello, HttpSettings(**settings), Metrics(), listen_hosts=listens)


async def asked(one: Gate, headers, method="GET", path="/livez", server=("127.0.0.1", 8080)):
    caller = Caller(lambda scope, receive, send: one({**scope, "server": server}, receive, send))
    return await caller.ask(method, path, None, headers)


# Host


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost.:8080",
        "app.localhost:1",
        "127.0.0.1",
        "127.8.8.8:8080",
        "[::1]:8080",
        "[::ffff:127.0.0.1]",
        "192.0.2.7",
        "[2001:DB8:0::7]:80",
        "box.lan",
    ],
)
@virtual
async def test_loopback_and_what_is_listened_on_are_answered(host):
    local = "2001:db8::7" if host.startswith("[2001") else "192.0.2.7"
    assert (await asked(gate(listens=["Box.lan"]), {"host": host}, server=(local, 80))).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "192.0.2.8",
        "[2001:db8::8]",
        "0.0.0.0",
        "2130706433",
        "127.1",
        "localhost:8080:9",
        "[::1",
        "::1",
        "*",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/livez", "/metrics", "/v1/search", "/docs"])
@virtual
async def test_any_other_host_is_421_on_every_path(host, path):
    answer = await asked(gate(), {"host": host}, path=path, server=("192.0.2.7", 80))
    assert (answer.status, answer.json["code"], answer.json["field"]) == (421, "host_not_allowed", "Host")
    assert "PENSTOCK_ALLOWED_HOSTS" in answer.json["detail"]


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ("search.example", "search.example:443", 200),
        ("Search.Example.", "SEARCH.example", 200),
        ("search.example", "a.search.example", 421),
        (".example.org", "example.org", 200),
        (".example.org", "a.b.example.org", 200),
        ("*.example.org", "a.example.org", 200),
        (".example.org", "evilexample.org", 421),
        ("a.example, 192.0.2.9 ,[2001:db8::9]", "192.0.2.9:80", 200),
        ("a.example,[2001:db8::9]", "[2001:0db8:0::9]:80", 200),
        ("*", "anything.example", 200),
    ],
)
@virtual
async def test_hosts_can_be_allowed(allowed, host, status):
    assert (await asked(gate(allowed_hosts=allowed), {"host": host})).status == status


# Origin


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8080", "localhost:8080"),
        ("HTTP://LOCALHOST", "localhost:80"),
        ("https://box.lan", "box.lan"),
        ("http://127.0.0.1:80", "127.0.0.1"),
    ],
)
@virtual
async def test_the_servers_own_pages_may_use_it(origin, host):
    assert (await asked(gate(listens=["box.lan"]), {"host": host, "origin": origin}, "POST")).status == 200


@pytest.mark.parametrize("origin", [APP, "null", "", "http://localhost:3000", "http://127.0.0.1:8080", "file://", "x"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
@virtual
async def test_other_sites_pages_may_not(origin, method):
    answer = await asked(gate(), {"host": "localhost:8080", "origin": origin}, method, "/v1/snapshots")
    assert (answer.status, answer.json["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("method", "said", "status"),
    [
        ("POST", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ("GET", {"sec-fetch-site": "same-site"}, 403),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("POST", {"sec-fetch-site": "same-origin"}, 200),
        ("GET", {"sec-fetch-site": "none"}, 200),
        ("POST", {}, 200),
    ],
)
@virtual
async def test_what_a_browser_says_of_the_site_counts_where_there_is_no_origin(method, said, status):
    assert (await asked(gate(), {"host": "localhost", **said}, method)).status == status


# Pages that may


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        (APP, APP),
        ("https://other.example, " + APP.upper(), APP),
        ("http://localhost:3000", "http://localhost:3000"),
        ("https://*.example", APP),
        ("*", APP),
        ("*", "null"),
        ("null", "null"),
    ],
)
@virtual
async def test_a_page_of_an_allowed_origin_may_read_answers_and_refusals(allowed, origin):
    one = gate(cors_origins=allowed, rate_limit=1, rate_burst=1)
    said = {"host": "localhost", "origin": origin, "sec-fetch-site": "cross-site"}
    for status in (200, 429):
        answer = await asked(one, said, "POST", "/v1/search")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, origin)
        assert {"X-Request-Id", "Retry-After", "RateLimit"} <= {
            name.strip() for name in answer.headers["access-control-expose-headers"].split(",")
        }
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", ["https://app.example:8443", "http://app.example", "https://x.app.example"])
@virtual
async def test_an_origin_is_allowed_as_a_whole(origin):
    answer = await asked(gate(cors_origins=APP), {"host": "localhost", "origin": origin})
    assert (answer.status, "access-control-allow-origin" in answer.headers) == (403, False)


@virtual
async def test_a_preflight_says_what_a_page_may_do():
    said = {"host": "localhost", "origin": APP, "access-control-request-method": "DELETE"}
    answer = await asked(gate(cors_origins=APP), said, "OPTIONS", "/v1/collections/c")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == APP
    assert "DELETE" in answer.headers["access-control-allow-methods"]
    assert "Content-Type" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "7200"
    assert answer.headers["vary"] == "Origin"


@virtual
async def test_an_allowed_origin_does_not_open_other_hosts():
    answer = await asked(gate(cors_origins="*"), {"host": "evil.example", "origin": "http://evil.example"})
    assert answer.status == 421


@pytest.mark.parametrize(
    "settings",
    [
        {"allowed_hosts": "http://a.example"},
        {"allowed_hosts": "a.example/x"},
        {"allowed_hosts": "[::1"},
        {"cors_origins": "app.example"},
        {"cors_origins": "https://app.example/"},
        {"cors_origins": "https://a*.example"},
    ],
)
def test_what_is_no_host_or_origin_is_refused_at_the_start(settings):
    with pytest.raises(Invalid, match=r"PENSTOCK_(ALLOWED_HOSTS|CORS_ORIGINS): '"):
        OriginPolicy(**settings)
