"""Whatever stands in a request's line and head, the answer is one that the description tells of its route."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.http import openapi
from tests.clock import run
from tests.fakes.api import Api

PATHS = json.loads(openapi.openapi_document())["paths"]

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "QUERY")

#: Pieces of paths and of query strings that servers and their proxies read differently.
ODD = (
    "",
    "/",
    "//",
    ".",
    "..",
    ";",
    "?",
    "&",
    "=",
    "+",
    "%",
    "%zz",
    "%00",
    "%2f",
    "%ff",
    "%ed%a0%80",
    "%C3%A9",
    "#",
    "'",
)
QUERIES = ("limit=5", "limit=%35", "limit=5&limit=6", "after=null", "path_prefix=a", "ids=a&ids=", "x", "=", "a=b;c=d")

HEADERS = {
    "if-none-match": ("*",),
    "if-match": ('"x"',),
    "if-modified-since": ("Sat, 01 Jan 2000 00:00:00 GMT", "never"),
    "range": ("bytes=0-5", "bytes=-", "lines=1"),
    "accept": ("text/html", "*/*;q=0"),
    "accept-encoding": ("gzip", "br;q=0"),
    "content-type": ("application/json", "application/x-ndjson", "text/plain", "multipart/form-data", ";"),
    "x-request-timeout-ms": ("1", "1000", "0", "-1", "1e3", "", "9" * 30),
    "x-criticality": ("bulk", "BULK", "none"),
    "x-request-id": ("mine", "", "a" * 500),
    "authorization": ("Bearer", "Basic !"),
    "x-http-method-override": ("DELETE",),
}

paths = st.builds(lambda path, odd: path + odd, st.sampled_from(sorted(PATHS)), st.sampled_from(ODD) | st.just(""))
queries = st.lists(st.sampled_from(QUERIES + ODD), max_size=3).map("&".join)
headers = st.dictionaries(st.sampled_from(sorted(HEADERS)), st.integers(0, 10), max_size=4).map(
    lambda chosen: {name: HEADERS[name][number % len(HEADERS[name])] for name, number in chosen.items()}
)
bodies = st.sampled_from((None, b"", b"{}", b"[]", b"null", b'{"query": "x"}', b'{"texts": ["x"]}', b"\xff"))


@settings(max_examples=150)
@given(st.sampled_from(METHODS), paths, queries, headers, bodies)
def test_the_answer_is_one_that_is_described(method, path, query, said, body):
    answer = run(_ask(method, f"{path}?{query}" if query else path, body, said))
    assert "x-request-id" in answer.headers
    # A name may end with a dot.
    route = path.partition("?")[0].replace("{name}.", "{name}")
    described = PATHS.get(route, {}).get({"HEAD": "GET"}.get(method, method).lower())
    if described is not None:
        assert str(answer.status) in described["responses"]
    elif answer.status == 204:
        assert method == "OPTIONS"
    else:
        assert 400 <= answer.status < 500
    assert (answer.status in (204, 405)) is ("allow" in answer.headers)
    assert answer.status != 500


async def _ask(method: str, target: str, body: bytes | None, said: dict[str, str]) -> Any:
    api = await Api().with_collection("default")
    return await api.ask(method, target.replace("{name}", "default"), body, said)
