"""A host with points: what the tests put in a Qdrant server's place, the official client's local mode behind HTTP.

``python -m bench.faults.points HOST PORT``: listens until it is killed.
"""

from __future__ import annotations

import sys
import threading

import httpx

from tests.fakes.qdrant import FakeQdrant, Listening


class _Forgetful(FakeQdrant):
    """Remembers no requests: a benchmark makes many."""

    async def answer(
        self, method: str, path: str, params: dict[str, str], headers: dict[str, str], body: bytes
    ) -> httpx.Response:
        self.asked.clear()
        return await super().answer(method, path, params, headers, body)


def main() -> None:
    """Listen until killed."""
    with Listening(_Forgetful(), int(sys.argv[2]), host=sys.argv[1]):
        print("Points are at hand", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
