"""Keys that are wrong, and paths that only look open. Each attack has a server of its own, with keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from bench.hostile.attack import Attack, Got
from bench.hostile.attacks.servers import lone, served
from bench.hostile.target import ATTACKER_ID, ATTACKER_SECRET, Target, statuses
from bench.processes import cpu_s
from penstock.kernel.access import ApiKey, Scope, digest_of, format_key, make_key, new_key_id, new_secret
from penstock.stores.key_store import KEYS_FILE, KeyFile

FLOOD_S: Final = 5.0
#: Wrong keys a second.
PER_S: Final = 1_000
#: Processor time of the front for one of them, with its connection.
COST_MS_MAX: Final = 0.5
OTHERS_S_MAX: Final = 2.0
AUDIT_BYTES_MAX: Final = 100_000

#: Paths that must not be open. They are sent as they stand here.
LOOK_OPEN: Final = (
    "/livez%2f..%2fv1%2fsearch",
    "/livez/../v1/status",
    "/livez/..%2fv1/status",
    "/readyz/%2e%2e/metrics",
    "//livez",
    "/livez/",
    "/livez%00",
    "/livez;/v1/status",
    "/LIVEZ",
    "/%6civez/../metrics",
    "http://127.0.0.1/v1/status",
    "/v1/status?path=/livez",
    "/mcp",
    "/docs",
    "/openapi.json",
    "/metrics",
    "*",
)


def give_keys(directory: Path, *names: str, known: bool = False) -> list[str]:
    """Make keys in a data directory, and return them; ``known``: the attacker's is among them."""
    made = [make_key(ApiKey("", name, "", Scope.ADMIN.label), int(time.time())) for name in names]
    attackers = [ApiKey(ATTACKER_ID, "attacker", digest_of(ATTACKER_SECRET), Scope.ADMIN.label)] if known else []
    asyncio.run(KeyFile(directory / KEYS_FILE).change(lambda _: [*attackers, *(one.key for one in made)]))
    return [one.text for one in made]


@contextlib.contextmanager
def _locked(target: Target) -> Iterator[tuple[Target, str]]:
    """Yield a server that has a key, and the key."""
    with lone(target) as directory:
        directory.mkdir(exist_ok=True)
        (key,) = give_keys(directory, "others")
        with served(directory) as server:
            yield server, key


def _asked(server: Target, line: str, *headers: str) -> int:
    """Return the status of a request whose target is sent as it stands."""
    said = "\r\n".join([f"GET {line} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", ""])
    return next(iter(statuses(server.say(said.encode()))), 0)


def _looks_open(target: Target) -> Got:
    with _locked(target) as (server, _):
        got = Counter(_asked(server, line) for line in LOOK_OPEN)
        kept = set(got) <= {400, 401} and _asked(server, "/livez") == 200
    return Got(", ".join(f"{count} × {status}" for status, count in sorted(got.items())), kept)


def _malformed(target: Target) -> Got:
    with _locked(target) as (server, key):
        tries = (
            (f"X-Api-Key: {key}", f"X-Api-Key: {key[:-1]}"),
            (f"Authorization: Bearer {key[:-1]}",),
            (f"Authorization: Bearer {key}\n", f"X: {key}"),
            (f"X-Api-Key: {key}\x00",),
            (f"X-Api-Key: {key * 500}",),
            (f"Cookie: key={key}",),
            (f"Authorization: Basic {key}",),
        )
        got = [_asked(server, "/v1/status", *headers) for headers in tries]
        got.append(_asked(server, f"/v1/status?api_key={key}"))
        kept = set(got) <= {400, 401} and _asked(server, "/v1/status", f"X-Api-Key: {key}") == 200
    return Got(f"{Counter(got)[401]} × 401, {Counter(got)[400]} × 400", kept)


def _wrong_keys(addresses: int, target: Target) -> Got:
    """A thousand wrong keys a second, while another client searches."""
    with _locked(target) as (server, key):
        directory = server.data_dir
        took: list[float] = []
        ended = threading.Event()

        def others() -> None:
            # In the place of the attacker's own.
            headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
            while not ended.is_set():
                answer = server.ask("POST", "/v1/search", {"query": "x", "collection": "none"}, headers)
                took.append(answer.took_s if answer.status in (200, 404, 422) else float("inf"))
                time.sleep(0.05)

        other = threading.Thread(target=others)
        other.start()
        before_s = cpu_s(server.pid)
        got = _flood(server, addresses)
        used_ms = (cpu_s(server.pid) - before_s) * 1000
        ended.set()
        other.join()
        audit = sum(path.stat().st_size for path in directory.glob("audit.log*"))
        count = sum(got.values())
        kept = set(got) <= {401, 429} and max(took) <= OTHERS_S_MAX and audit <= AUDIT_BYTES_MAX
        each_ms = used_ms / max(1, count)
        kept = kept and each_ms <= COST_MS_MAX
    said = ", ".join(f"{number} × {status}" for status, number in sorted(got.items()))
    others_s = f"others' longest {max(took):.2f} s"
    return Got(f"{said}, {each_ms:.2f} ms each, {others_s}, {audit / 1000:.0f} KB audit", kept)


def _flood(server: Target, addresses: int) -> Counter[int]:
    """Send wrong keys from loopback addresses, on connections that stay."""
    got: Counter[int] = Counter()
    links = []
    for number in range(addresses):
        raw = socket.create_connection(("127.0.0.1", server.port), 5, (f"127.0.1.{number + 1}", 0))
        raw.settimeout(10)
        links.append(raw)
    secret, began_s = new_secret(), time.monotonic()
    for number in range(int(FLOOD_S * PER_S)):
        key = format_key(new_key_id(), secret)
        raw = links[number % addresses]
        raw.sendall(f"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {key}\r\n\r\n".encode())
        got[_status(raw)] += 1
        early_s = began_s + number / PER_S - time.monotonic()
        if early_s > 0:
            time.sleep(early_s)
    for raw in links:
        raw.close()
    return got


def _status(raw: socket.socket) -> int:
    """Read one answer, and return its status."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += raw.recv(65_536) or b"\r\n\r\n"
    head, _, body = heard.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += raw.recv(65_536)
    json.loads(body)
    return int(head[9:12])


ATTACKS: Final = (
    Attack("A2", "paths that look open to a server with keys", "401, or 400", _looks_open, watched=False),
    Attack("A2", "keys twice, cut, with line breaks, in other places", "401, or 400", _malformed, watched=False),
    Attack(
        "A2",
        "a thousand wrong keys a second from one address",
        "401 and 429 at .5 ms each; others are served",
        partial(_wrong_keys, 1),
        watched=False,
    ),
    Attack(
        "A2",
        "a thousand wrong keys a second from 200 addresses",
        "401 and 429 at .5 ms each; others are served",
        partial(_wrong_keys, 200),
        watched=False,
    ),
)
