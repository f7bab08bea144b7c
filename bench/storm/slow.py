"""Connections that send one byte each and then nothing, in a process of their own: a :mod:`bench.worker`.

Orders: ``open`` (``port``, ``connections``), ``close``.
"""

from __future__ import annotations

import resource
import select
import socket
from typing import Any, Final

from bench.worker import Order, work

#: Connections from one source address.
EACH: Final = 1_000
CONNECT_S: Final = 2.0
#: Descriptors for anything else.
SPARE: Final = 100


class Slow:
    """Holds the connections."""

    def __init__(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._most = hard - SPARE
        self._held: list[socket.socket] = []

    def __call__(self, order: Order) -> dict[str, Any]:
        """Carry out one order."""
        return self._open(order["port"], order["connections"]) if order["do"] == "open" else self._close()

    def _open(self, port: int, wanted: int) -> dict[str, Any]:
        unopened = 0
        for number in range(min(wanted, self._most)):
            try:
                one = socket.create_connection(
                    ("127.0.0.1", port), CONNECT_S, source_address=(f"127.0.2.{1 + number // EACH}", 0)
                )
                one.send(b"P")
            except OSError:
                unopened += 1
                continue
            self._held.append(one)
        return {"opened": len(self._held), "unopened": unopened}

    def _close(self) -> dict[str, Any]:
        """Close them; tell how many the server had closed itself."""
        poll, closed = select.poll(), 0
        for one in self._held:
            poll.register(one, select.POLLIN)
        closed = len(poll.poll(0))
        for one in self._held:
            one.close()
        self._held.clear()
        return {"closed": closed}


if __name__ == "__main__":
    work(Slow())
