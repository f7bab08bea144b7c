"""One end of a system in a process of its own: ``… -m bench.distributed.end ROLE SYSTEM ADDRESS NAME SLOTS WAIT_S``.

Orders: ``start``; who asks takes ``ready`` (``answerers``) and ``burst`` (``callers``, ``seconds``) too, who answers
``count``.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from importlib import import_module
from typing import Any, Final

import msgspec
import uvloop

from bench.distributed.system import Answerer, Asker, Place, burst
from bench.worker import Order, work

#: Where each system's ends are; only the one that runs is imported.
SYSTEMS: Final = {
    "memory/ours": "ours",
    "memory/bare": "bare_memory",
    "redis/ours": "ours",
    "redis/bare": "bare_redis",
    "kafka/ours": "ours",
    "kafka/bare": "bare_kafka",
}


class AskingEnd:
    """Asks as it is ordered."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def do(self, order: Order) -> dict[str, Any]:
        """Carry out one order."""
        match order["do"]:
            case "start":
                await self._asker.start()
                return {}
            case "ready":
                return {"ready": await self._asker.ready(order["answerers"])}
        found: dict[str, Any] = msgspec.to_builtins(await burst(self._asker, order["callers"], order["seconds"]))
        return found

    async def close(self) -> None:
        """Disconnect."""
        await self._asker.close()


class AnsweringEnd:
    """Answers, after so many seconds in which it only waits."""

    def __init__(self, answerer: Answerer, wait_s: float) -> None:
        self._answerer = answerer
        self._wait_s = wait_s
        self._handled = 0

    async def do(self, order: Order) -> dict[str, Any]:
        """Carry out one order."""
        if order["do"] == "start":
            await self._answerer.start(self._handle)
        return {"handled": self._handled, "cpu_s": time.process_time()}

    async def close(self) -> None:
        """Disconnect."""
        await self._answerer.close()

    async def _handle(self, message: Any) -> Any:
        if self._wait_s:
            await asyncio.sleep(self._wait_s)
        self._handled += 1
        return message


async def _made(role: str, system: str, place: Place, wait_s: float) -> AskingEnd | AnsweringEnd:
    """Return one end, made where its loop runs."""
    module = import_module(f"bench.distributed.{SYSTEMS[system]}")
    if role == "answer":
        return AnsweringEnd(module.Answerer(place), wait_s)
    return AskingEnd(module.Within(place) if place.carrier == "memory" else module.Asker(place))


def main() -> None:
    """Run one end until there are no more orders; its loop has a thread to itself, which nothing else disturbs."""
    role, system, address, name, slots, wait_s = sys.argv[1:]
    logging.disable(logging.ERROR)  # a client tells of a coordinator that is not there yet
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    end = wait(_made(role, system, Place(system.partition("/")[0], address, name, int(slots)), float(wait_s)))
    try:
        work(lambda order: wait(end.do(order)))
    finally:
        wait(end.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


if __name__ == "__main__":
    main()
