"""How fast this repository is indexed, end to end through the API."""

import time

from bench.report import Figure, Report
from bench.workbench import documents, index, workbench


async def run() -> Report:
    """Index once into an empty collection, then again unchanged."""
    texts = documents()
    async with workbench() as client:
        began = time.perf_counter()
        chunks = await index(client, texts)
        first_s = time.perf_counter() - began
        began = time.perf_counter()
        await index(client, texts)
        again_s = time.perf_counter() - began
    figures = (
        Figure("files", len(texts), "files"),
        Figure("chunks", chunks, "chunks"),
        Figure("files a second", len(texts) / first_s, "files/s"),
        Figure("chunks a second", chunks / first_s, "chunks/s"),
        Figure("the same again, unchanged", again_s, "s"),
    )
    return Report("index", figures)
