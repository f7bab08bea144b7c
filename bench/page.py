"""``python -m bench page``: the bytes of the page, its time to the first hit, and what ten viewers of the flow cost."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, Page, async_playwright

from bench import ROOT
from bench.agents.conduct import QUICK_TREE, TREE, index_tree, questions
from bench.report import Figure, Report, median, percentile, tell
from bench.serving import Server, serving
from penstock.http.page_files import PAGE_FILES, VIEWS

QUERIES: Final = 40
VISITS: Final = 10
VIEWERS: Final = 10
#: How long the processor time of the front is taken, with viewers and without.
WATCHED_S: Final = 30.0

GOAL_BYTES: Final = 150_000
GOAL_SHARE: Final = 0.01

#: Types a query at once, and returns the milliseconds until hits that were not there stand in the list.
TYPE: Final = """async (query) => {
  const box = document.querySelector("input[role=combobox]"), list = document.getElementById("hits");
  const before = list.textContent;
  const began = performance.now();
  const done = new Promise((resolve) => {
    const seen = () => {
      if (!list.children.length || list.textContent === before) return;
      observer.disconnect();
      resolve(performance.now() - began);
    };
    const observer = new MutationObserver(seen);
    observer.observe(list, { childList: true, subtree: true, characterData: true });
    setTimeout(() => resolve(null), 10000);
  });
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(box, query);
  box.dispatchEvent(new Event("input", { bubbles: true }));
  return await done;
}"""


async def run(*, quick: bool = False, out: Path | None = None) -> Report:
    """Run all phases.

    Args:
        quick: A few queries, a small tree, some seconds.
        out: Where ``page.json`` goes.
    """
    directory = Path(tempfile.mkdtemp(prefix="penstock-page-"))
    queries, watched_s, tree = (8, 5.0, QUICK_TREE) if quick else (QUERIES, WATCHED_S, TREE)
    models = ROOT / ".penstock" / "models"
    try:
        if models.exists():
            shutil.copytree(models, directory / "models")
        with serving(directory, {"PENSTOCK_RATE_LIMIT": "100", "PENSTOCK_LOG_LEVEL": "error"}) as server:
            await asyncio.to_thread(index_tree, tree, directory)
            results = await _measure(server, questions(tree), queries, watched_s)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report = Report("page", _figures(results))
    if out is not None:
        report.save(out, results)
    return report


async def _measure(server: Server, asked: list[str], queries: int, watched_s: float) -> dict[str, Any]:
    rng = random.Random(1)
    chosen = rng.sample(asked, min(len(asked), 2 * queries))
    results: dict[str, Any] = {"bytes": _bytes(), "flow": await _flow(server, watched_s)}
    async with async_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            results["visits_ms"] = [await _visit(browser, server) for _ in range(VISITS)]
            page = await browser.new_page()
            await page.goto(server.url)
            await page.wait_for_selector(".welcome")
            results["calm_ms"] = await _type(page, chosen[:queries])
            async with _flood(server) as told, _frames(server) as gaps:
                results["storm_ms"] = await _type(page, chosen[queries:])
            results["storm"] = {"gaps_s": gaps, "flood": told, "title": await page.title()}
        finally:
            await browser.close()
    return results


def _bytes() -> dict[str, int]:
    """Return what the page weighs, its views and their files; each view is the same document."""
    files = {path: file for path, file in PAGE_FILES.items() if path not in VIEWS[1:]}
    return {
        "sent": sum(len(file.gzipped) for file in files.values()),
        "plain": sum(len(file.data) for file in files.values()),
    }


async def _visit(browser: Browser, server: Server) -> float:
    """Return the milliseconds from an address typed to a box that can be typed in, with nothing in the cache."""
    context = await browser.new_context()
    page = await context.new_page()
    began_s = time.perf_counter()
    await page.goto(server.url, wait_until="commit")
    await page.wait_for_selector(".welcome")
    took_ms = (time.perf_counter() - began_s) * 1000
    await context.close()
    return took_ms


async def _type(page: Page, queries: list[str]) -> list[float | None]:
    took = []
    for query in queries:
        took.append(await page.evaluate(TYPE, query))
        await asyncio.sleep(0.6)
    tell(f"first hits after {[round(ms) if ms else None for ms in took]} ms")
    return took


async def _flow(server: Server, watched_s: float) -> dict[str, float]:
    """Return the share of a core that the front takes without viewers, and with them."""

    async def share() -> float:
        began_s, before_s = time.perf_counter(), server.cpu_s()["front"]
        await asyncio.sleep(watched_s)
        return (server.cpu_s()["front"] - before_s) / (time.perf_counter() - began_s)

    await asyncio.sleep(2)
    idle = await share()
    streams = [await _open(server) for _ in range(VIEWERS)]
    try:
        reading = [asyncio.create_task(_read(reader, [])) for reader, _ in streams]
        watched = await share()
        for task in reading:
            task.cancel()
    finally:
        for _, writer in streams:
            writer.close()
    await asyncio.sleep(2)
    after = await share()
    return {"idle": idle, "watched": watched, "after": after}


async def _open(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /v1/flow HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head:
        raise RuntimeError(head.decode())
    return reader, writer


async def _read(reader: asyncio.StreamReader, gaps_s: list[float]) -> None:
    """Read a stream; note the seconds between two events."""
    last_s = time.perf_counter()
    while line := await reader.readline():
        if line.startswith(b"event: flow"):
            now_s = time.perf_counter()
            gaps_s.append(now_s - last_s)
            last_s = now_s


@asynccontextmanager
async def _frames(server: Server) -> AsyncIterator[list[float]]:
    reader, writer = await _open(server)
    gaps_s = list[float]()
    task = asyncio.create_task(_read(reader, gaps_s))
    try:
        yield gaps_s
    finally:
        task.cancel()
        writer.close()


@asynccontextmanager
async def _flood(server: Server) -> AsyncIterator[dict[str, int]]:
    """Flood the server from another address with searches of agents, as fast as it answers."""
    command = [sys.executable, "-m", "bench.agents.flood", str(server.port), "127.0.0.2"]
    flooding = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    told = dict[str, int]()
    try:
        await asyncio.sleep(1)
        yield told
    finally:
        said, _ = await flooding.communicate(b"")
        told.update(json.loads(said or b"{}"))


def _figures(results: dict[str, Any]) -> list[Figure]:
    sent, flow = results["bytes"]["sent"], results["flow"]
    calm, storm = ([ms for ms in results[name] if ms is not None] for name in ("calm_ms", "storm_ms"))
    cost = flow["watched"] - flow["idle"]
    lost = len(results["storm_ms"]) - len(storm)
    return [
        Figure("page, all views, as sent", sent / 1000, "kB", "< 150", sent < GOAL_BYTES),
        Figure("page, all views, plain", results["bytes"]["plain"] / 1000, "kB"),
        Figure("first visit to a usable box, median", median(results["visits_ms"]), "ms"),
        Figure("last letter to first hit, median", median(calm), "ms"),
        Figure("last letter to first hit, 95 of 100", percentile(calm, 0.95), "ms"),
        Figure("the same in a storm, median", median(storm), "ms"),
        Figure("the same in a storm, 95 of 100", percentile(storm, 0.95), "ms"),
        Figure("searches in a storm without hits in 10 s", lost, "", "0", lost == 0),
        Figure("flow: front without viewers", 100 * flow["idle"], "% of a core"),
        Figure("flow: ten viewers cost", 100 * cost, "% of a core", "< 1", cost < GOAL_SHARE),
        Figure("flow: front after they have gone", 100 * flow["after"], "% of a core"),
        Figure("flow: longest pause between frames in a storm", max(results["storm"]["gaps_s"]), "s"),
    ]
