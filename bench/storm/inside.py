"""What a user would run instead: uvicorn, and a plain ASGI application around Penstock's search pipeline.

``python -m bench.storm.inside DATA_DIR PERMITS`` prints its port and serves until it is ended. ``PERMITS`` is
the size of its semaphore, 0 for none. Gate, ladder, rate limit, discarding and refusals are out of the way.
The pipeline, its models and its store are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop

from bench.overload.peers import Receive, Scope, Send, respond, whole
from penstock.app.app import build
from penstock.cli.http_server import bind_socket
from penstock.kernel.context import Context, Criticality, Deadline, new_id
from penstock.kernel.errors import PenstockError
from penstock.kernel.messages import Topic
from penstock.kernel.settings import Settings
from penstock.search.request import SearchBody, SearchRequest

#: Nothing is refused because of a queue.
WAITING = 1_000_000


class PlainApp:
    """Answers searches.

    Args:
        bus: Leads to the pipeline.
        permits: Searches at once; 0 for any number.
    """

    def __init__(self, bus: Any, permits: int) -> None:
        self._bus = bus
        self._permits: Any = asyncio.Semaphore(permits) if permits else contextlib.nullcontext()
        self._decoder = msgspec.json.Decoder(SearchBody)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            body = self._decoder.decode(await whole(receive))
            asked = SearchRequest.from_body(body, None, str)
            async with self._permits:
                ctx = Context(Deadline.never(), Criticality.INTERACTIVE, "anyone", new_id())
                result = await self._bus.request(Topic.SEARCH_REQUEST, asked, ctx)
        except (PenstockError, msgspec.ValidationError) as error:
            await respond(send, 500, msgspec.json.encode({"error": str(error)}))
            return
        await respond(send, 200, msgspec.json.encode(result))


def plain_settings() -> Settings:
    """Return settings with everything off that looks after itself."""
    made = Settings()
    return replace(
        made,
        http=replace(made.http, rate_limit=0),
        degradation=replace(made.degradation, highest="full"),
        search=replace(made.search, queue_size=WAITING),
        bus=replace(
            made.bus,
            buffer_size=WAITING,
            discipline="fifo",
            client_share=1.0,
            discard=False,
            refuse_hopeless=False,
        ),
    )


async def serve(data_dir: Path, permits: int) -> None:
    """Serve until the process is ended."""
    app = build(plain_settings(), data_dir)
    await app.start()
    core = app._assembly.core if app._assembly is not None else None  # noqa: SLF001 - below its own gate
    assert core is not None
    bound = bind_socket("127.0.0.1", 0)
    print(bound.getsockname()[1], flush=True)
    config = uvicorn.Config(
        PlainApp(core.bus, permits),
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
    )
    await uvicorn.Server(config).serve(sockets=[bound])


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
