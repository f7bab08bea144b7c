"""A Penstock in this process, for the benchmarks to work on."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from bench import ROOT
from penstock.app.app import build
from penstock.kernel.settings import HttpSettings, Settings

#: Prepared models, where a server that was started here keeps them too.
MODELS: Final = ROOT / ".penstock" / "models"


@asynccontextmanager
async def workbench() -> AsyncIterator[httpx.AsyncClient]:
    """Start a Penstock on an empty temporary directory; yield a client that talks to it."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        app = build(Settings(http=HttpSettings(rate_limit=0)), Path(directory), MODELS)
        await app.start()
        transport = httpx.ASGITransport(app.asgi)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=600) as client:
                (await client.put("/v1/collections/default")).raise_for_status()
                yield client
        finally:
            await app.close()
