"""A whole Penstock in a worker's own process, asked without HTTP: bytes into the ASGI application, bytes out."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from bench.calling import Seen
from bench.worker import Order, work
from penstock.app.app import App, build
from penstock.kernel.settings import HttpSettings, Settings

_SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
}


async def ask(app: Any, path: str, body: bytes) -> tuple[int, bytes]:
    """Ask an ASGI application; return the status and the body of its answer."""
    scope = {
        **_SCOPE,
        "path": path,
        "raw_path": path.encode(),
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        "state": {},
    }
    told, status, parts = False, 0, []
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal told
        if told:
            await answered.wait()
            return {"type": "http.disconnect"}
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    answered.set()
    return status, b"".join(parts)


class House:
    """Starts a Penstock on a data directory and asks it in a closed loop."""

    def __init__(self, data_dir: Path) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        settings = Settings()
        http: HttpSettings = replace(settings.http, rate_limit=0)
        self._app: App = build(replace(settings, http=http), data_dir)
        self._runner.run(self._app.start())

    def __call__(self, order: Order) -> dict[str, Any]:
        """Ask ``bodies`` with ``callers`` for ``seconds``."""
        given = [body.encode() for body in order["bodies"]]
        waiting = iter(given) if order.get("once") else itertools.cycle(given)
        began_s, cpu_s = time.monotonic(), time.process_time()
        seen = self._runner.run(self._closed(order["path"], waiting, order["callers"], order["seconds"]))
        return {
            "took_s": time.monotonic() - began_s,
            "cpu_s": time.process_time() - cpu_s,
            "latencies_ms": [round(value, 3) for value in seen.latencies_ms],
            "degraded": seen.degraded,
            "refused": seen.failed,
            "last_failure": seen.last_failure,
        }

    def close(self) -> None:
        """Stop it."""
        self._runner.run(self._app.close())
        self._runner.close()

    async def _closed(self, path: str, waiting: Iterator[bytes], callers: int, seconds: float) -> Seen:
        seen, until_s, app = Seen(), time.monotonic() + seconds, self._app.asgi

        async def caller() -> None:
            while (began_s := time.monotonic()) < until_s and (body := next(waiting, None)) is not None:
                seen.note(began_s, *await ask(app, path, body))

        await asyncio.gather(*(caller() for _ in range(callers)))
        return seen


if __name__ == "__main__":
    house = House(Path(sys.argv[1]))
    try:
        work(house)
    finally:
        house.close()
