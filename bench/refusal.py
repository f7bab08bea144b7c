"""What a refusal costs: CPU through the bare gate, and time and CPU through a real server on loopback."""

import asyncio
import itertools
import json
import multiprocessing
import socket
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from bench.report import Figure, Report, median, percentile
from penstock.bus.contract import TopicRefusal
from penstock.cli.http_server import bind_socket, create_server
from penstock.http.gate import Gate, GateInputs
from penstock.kernel.settings import HttpSettings
from penstock.telemetry.metrics import Metrics

CALLS = 20_000
ROUNDS = 5
CONNECTIONS = 32
RATE = 1500
FULL = TopicRefusal("topic_full", 1.0, by_client=False)
SECONDS = 4
CPU_GOAL_US = 50
P99_GOAL_MS = 5.0

BODY = json.dumps({"query": "parse a JSON string", "limit": 10}).encode()
HEADERS = [
    (b"host", b"localhost"),
    (b"user-agent", b"bench"),
    (b"accept", b"*/*"),
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
]
REQUEST = b"POST /v1/search HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in HEADERS) + b"\r\n" + BODY


async def run() -> Report:
    """Measure; no goal is set for the bare server, it is there to compare with."""
    figures = []
    for kind, gate in _gates().items():
        cost_us = median([await _cpu_us(gate) for _ in range(ROUNDS)])
        figures.append(Figure(f"CPU, gate, {kind}", cost_us, "µs", f"≤ {CPU_GOAL_US} µs", met=cost_us <= CPU_GOAL_US))
    for name in ("gate", "bare"):
        times_ms, cpu_us = await _through_server(name)
        p99_ms = percentile(times_ms, 0.99)
        goal = f"< {P99_GOAL_MS:g} ms" if name == "gate" else ""
        figures += [
            Figure(f"p50, server, {name}, {RATE}/s", percentile(times_ms, 0.5), "ms"),
            Figure(f"p99, server, {name}, {RATE}/s", p99_ms, "ms", goal, met=p99_ms < P99_GOAL_MS if goal else None),
            Figure(f"CPU, server, {name}", cpu_us, "µs"),
        ]
    return Report("refusal", figures)


def _gates() -> dict[str, Gate]:
    def gate(senses: GateInputs | None = None, **limits: Any) -> Gate:
        return Gate(_never, HttpSettings(**{"rate_limit": 0, **limits}), Metrics(), senses)

    limited = gate(rate_limit=1, rate_burst=1)
    limited._limiter.decide("127.0.0.1", time.monotonic() + 3600)  # noqa: SLF001 - full in an hour
    draining = gate()
    draining.traffic.draining = True
    return {
        "429 rate": limited,
        "503 topic": gate(GateInputs(backpressure=lambda *_: FULL)),
        "503 draining": draining,
        "413 body": gate(max_body=1),
    }


async def _never(scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError(f"{scope['path']} was let in")


async def _bare(_scope: Any, _receive: Any, send: Any) -> None:
    """Refuse as one would without a gate: a fixed answer."""
    await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def _cpu_us(gate: Gate) -> float:
    """Return the CPU time of one refusal, asked without a server."""
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    async def receive() -> Any:
        raise AssertionError("the body was read")

    scopes = [
        {
            "type": "http",
            "method": "POST",
            "path": "/v1/search",
            "headers": HEADERS,
            "client": ("127.0.0.1", 5),
        }
        for _ in range(CALLS)
    ]
    began = time.process_time()
    for scope in scopes:
        await gate(scope, receive, send)
    spent_s = time.process_time() - began
    assert len(statuses) == CALLS
    return spent_s * 1e6 / CALLS


async def _through_server(name: str) -> tuple[list[float], float]:
    """Return each refusal's milliseconds from its scheduled send, and the server's CPU per refusal."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(name, there), daemon=True)
    server.start()
    try:
        port = await asyncio.to_thread(here.recv)
        await _load(port, RATE)
        before_s = _cpu_s(server.pid)
        times_ms = await _load(port, RATE * SECONDS)
        return times_ms, (_cpu_s(server.pid) - before_s) * 1e6 / len(times_ms)
    finally:
        server.terminate()
        server.join()


def _serve(name: str, pipe: Connection) -> None:
    app: Any = _bare if name == "bare" else _gates()["503 topic"]

    async def main() -> None:
        bound = bind_socket("127.0.0.1", 0)
        server = create_server(app)
        asyncio.get_running_loop().create_task(_tell(server, pipe, bound)).add_done_callback(lambda task: task.result())
        await server.serve(sockets=[bound])

    uvloop.run(main())


async def _tell(server: Any, pipe: Connection, bound: socket.socket) -> None:
    await server.listening.wait()
    pipe.send(bound.getsockname()[1])


def _cpu_s(pid: int | None) -> float:
    """Return the CPU seconds a process has used."""
    with open(f"/proc/{pid}/schedstat") as file:  # noqa: PTH123 - no path to speak of
        return int(file.read().split()[0]) / 1e9


async def _load(port: int, count: int) -> list[float]:
    """Send at a fixed rate, each connection its share; time is counted from the scheduled send."""
    begin_s = time.monotonic() + 0.1
    shares = [itertools.islice(range(count), first, None, CONNECTIONS) for first in range(CONNECTIONS)]
    times = await asyncio.gather(*(_send(port, [begin_s + n / RATE for n in share]) for share in shares))
    return [one for share in times for one in share]


async def _send(port: int, schedule_s: Iterable[float]) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times_ms = []
    for at_s in schedule_s:
        await asyncio.sleep(max(0.0, at_s - time.monotonic()))
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503"), head
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        times_ms.append((time.monotonic() - max(at_s, 0.0)) * 1000)
    writer.close()
    return times_ms


if __name__ == "__main__":
    print(uvloop.run(run()).text())
