"""A Penstock in this process, for the benchmarks to work on."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from bench import ROOT
from penstock.app.app import build
from penstock.client import AsyncClient
from penstock.kernel.settings import HttpSettings, Settings

#: Prepared models, where a server that was started here keeps them too.
MODELS: Final = ROOT / ".penstock" / "models"


@asynccontextmanager
async def workbench(place: Path | None = None) -> AsyncIterator[AsyncClient]:
    """Start a Penstock on a directory, a temporary one by default; yield a client of it."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        app = build(Settings(http=HttpSettings(rate_limit=0)), place or Path(directory), MODELS)
        await app.start()
        try:
            async with AsyncClient("http://localhost", transport=httpx.ASGITransport(app.asgi)) as client:
                await client.create_collection("default")
                yield client
        finally:
            await app.close()
