"""Index a directory once, right after a server's first start, so that there is something to search."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import httpx
from rich.console import Console

from penstock.cli.api import Api
from penstock.cli.index import summary_lines
from penstock.cli.progress import display
from penstock.cli.run import Order, Run
from penstock.cli.tally import Tally
from penstock.kernel.settings import Settings

COLLECTION: Final = "default"
#: Stands in the data directory while the first index is unfinished, so that the next start goes on with it.
PENDING: Final = "first-index.pending"


async def first_index(url: str, settings: Settings, data_dir: Path, path: Path, console: Console) -> None:
    """Index ``path`` into ``default`` unless the data directory holds a collection.

    Args:
        url: The running server.
        settings: For the limits of files and requests.
        data_dir: The data directory.
        path: What to index.
        console: Where progress is shown.

    Cancellation:
        What is indexed stays; the next start goes on.
    """
    pending = data_dir / PENDING
    async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as client:  # noqa: S501 - plain HTTP
        api = Api(client, f"the server at {url}")
        if await api.collections() and not pending.exists():
            return
        pending.touch()
        tally = Tally()
        with display(console) as shown:
            await Run(api, settings, Order((path,), COLLECTION), tally, shown).run()
        console.print("\n".join(summary_lines(tally, COLLECTION)), soft_wrap=True)
        pending.unlink(missing_ok=True)
