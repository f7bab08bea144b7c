"""Latency of single searches and throughput of many, over this repository."""

import asyncio
import time

import httpx

from bench.report import Figure, Report, median, percentile
from bench.workbench import documents, index, workbench

QUERIES = (
    "refuse a request before its body is read",
    "reciprocal rank fusion",
    "how is a document replaced without losing the old one",
    "DirectoryLock acquire",
    "kill -9 of the store process",
    "tokens a chunk may have",
    "gitignore rules of parent directories",
    "quantise the model to int8",
)
ROUNDS = 25
CALLERS = 16


async def run() -> Report:
    """Search one by one, then with many callers at once."""
    async with workbench() as client:
        chunks = await index(client, documents())
        for query in QUERIES:
            await _search(client, query)
        alone_ms = [await _search(client, query) for _ in range(ROUNDS) for query in QUERIES]
        began = time.perf_counter()
        waiting = iter(QUERIES * ROUNDS)
        busy_ms: list[float] = []

        async def caller() -> None:
            busy_ms.extend([await _search(client, query) for query in waiting])

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        took_s = time.perf_counter() - began
    figures = (
        Figure("chunks", chunks, "chunks"),
        Figure("one at a time, median", median(alone_ms), "ms"),
        Figure("one at a time, p99", percentile(alone_ms, 0.99), "ms"),
        Figure(f"{CALLERS} callers, searches a second", len(busy_ms) / took_s, "1/s"),
        Figure(f"{CALLERS} callers, median", median(busy_ms), "ms"),
        Figure(f"{CALLERS} callers, p99", percentile(busy_ms, 0.99), "ms"),
    )
    return Report("search", figures)


async def _search(client: httpx.AsyncClient, query: str) -> float:
    """Search once; return the milliseconds it took."""
    began = time.perf_counter()
    (await client.post("/v1/search", json={"query": query})).raise_for_status()
    return (time.perf_counter() - began) * 1000
