"""A Penstock in this process, filled with this repository, for the benchmarks to work on."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from penstock.app import build
from penstock.indexing.reading import read_text
from penstock.indexing.walk import Found, walk
from penstock.kernel.settings import HttpSettings, Settings

ROOT = Path(__file__).parent.parent
MODELS = ROOT / ".penstock" / "models"


@asynccontextmanager
async def workbench() -> AsyncIterator[httpx.AsyncClient]:
    """Start a Penstock on an empty temporary directory; yield a client that talks to it."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        app = build(Settings(http=HttpSettings(rate_limit=0)), Path(directory), MODELS)
        await app.start()
        transport = httpx.ASGITransport(app.asgi)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://penstock", timeout=600) as client:
                (await client.put("/v1/collections/default")).raise_for_status()
                yield client
        finally:
            await app.close()


def documents() -> list[dict[str, str]]:
    """Return this repository's files as documents."""
    files = [found.path for found in walk([ROOT]) if isinstance(found, Found)]
    return [
        {"id": str(path), "path": str(path.relative_to(ROOT)), "text": read_text(path).text} for path in sorted(files)
    ]


async def index(client: httpx.AsyncClient, texts: list[dict[str, str]]) -> int:
    """Index documents a hundred at a time; return the number of chunks."""
    chunks = 0
    for first in range(0, len(texts), 100):
        body = {"documents": texts[first : first + 100]}
        answer = await client.post("/v1/collections/default/documents", json=body)
        answer.raise_for_status()
        chunks += answer.json()["chunks"]
    return chunks
