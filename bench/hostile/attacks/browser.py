"""What any web page can make its reader's browser send."""

from __future__ import annotations

from functools import partial
from typing import Final

from bench.hostile.attack import Attack, Got
from bench.hostile.target import Target, head, statuses

EVIL: Final = "Origin: https://evil.example"
SEARCH: Final = b'{"query":"x"}'


def _sent(request: bytes, wanted: frozenset[int], target: Target) -> Got:
    heard = target.say(request, wait_s=2)
    found = statuses(heard)
    kept = bool(found) and found[0] in wanted and b"access-control-allow-origin" not in heard.lower()
    return Got(f"{found or 'nothing'}", kept)


def _request(method: str, path: str, body: bytes, *headers: str, host: str = "127.0.0.1") -> bytes:
    return head(method, path, f"Content-Length: {len(body)}", *headers, host=host) + body


def _case(name: str, status: int, request: bytes) -> Attack:
    return Attack("A4", name, str(status), partial(_sent, request, frozenset({status})), watched=False)


JSON: Final = "Content-Type: application/json"

ATTACKS: Final = (
    _case("another Host reads (DNS rebinding)", 421, head("GET", "/v1/collections", host="evil.example")),
    _case("another Host searches", 421, _request("POST", "/v1/search", SEARCH, JSON, host="evil.example:8080")),
    _case("another Origin searches", 403, _request("POST", "/v1/search", SEARCH, JSON, EVIL)),
    _case("another Origin makes a snapshot", 403, _request("POST", "/v1/snapshots", b"", EVIL)),
    _case(
        "another Origin restores",
        403,
        _request("POST", "/v1/snapshots/a.snapshot/restore", b'{"force":true}', JSON, EVIL),
    ),
    _case("`Origin: null` deletes", 403, _request("DELETE", "/v1/collections/x", b"", "Origin: null")),
    _case(
        "a preflight from another Origin",
        403,
        head("OPTIONS", "/v1/search", EVIL, "Access-Control-Request-Method: POST"),
    ),
    _case("a body as text/plain", 415, _request("POST", "/v1/search", SEARCH, "Content-Type: text/plain")),
    _case(
        "a body as a form",
        415,
        _request("POST", "/v1/search", SEARCH, "Content-Type: application/x-www-form-urlencoded"),
    ),
    _case("a body without a type", 415, _request("POST", "/v1/search", SEARCH)),
)
