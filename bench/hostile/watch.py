"""A watch beside an attack: how long the event loop was held, what memory it took, what other callers saw."""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from bench.processes import children

#: Other callers come from another address of this machine: the attacker's limits are not theirs.
OTHERS: Final = ("127.0.0.2", 0)
#: Their key, which a server without keys does not check.
OTHERS_KEY: Final = "another"
POLL_S: Final = 0.01
SEARCH_S: Final = 0.2
MEMORY_S: Final = 0.02
PATIENCE_S: Final = 60.0
#: Module that a process runs which builds a collection's index.
BUILDER: Final = b"penstock.stores.backends.edge.optimiser"


@dataclass(slots=True)
class Seen:
    """What was seen beside an attack.

    Attributes:
        held_ms: The longest that ``/livez`` took, less what the loop's thread and the asker waited for a processor.
        grown_mb: The most anonymous memory of all processes above that at the beginning.
        searches: What others' searches were answered, by status and code.
        search_s: The longest that one of them took.
    """

    held_ms: float = 0.0
    grown_mb: float = 0.0
    searches: Counter[str] = field(default_factory=Counter)
    search_s: float = 0.0

    @property
    def harmed(self) -> int:
        """Others' searches that were not answered."""
        return sum(count for status, count in self.searches.items() if status != "200")


class Watch:
    """Watches a server from a process of its own, so that the attacker's work is no part of what it sees.

    Args:
        port: Where the server listens.
        pid: Its front's process.
        key: The others' key.
    """

    def __init__(self, port: int, pid: int, key: str = OTHERS_KEY) -> None:
        self._pipe, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_watch, args=(port, pid, key, there), daemon=True)
        self._process.start()

    def begin(self) -> None:
        """Forget what was seen."""
        self._pipe.send("begin")
        self._pipe.recv()

    def seen(self) -> Seen:
        """Return what was seen since the beginning."""
        self._pipe.send("seen")
        found: Seen = self._pipe.recv()
        return found

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


@contextlib.contextmanager
def watching(port: int, pid: int, key: str = OTHERS_KEY) -> Iterator[Watch]:
    """Yield a watch over a server."""
    watch = Watch(port, pid, key)
    try:
        yield watch
    finally:
        watch.close()


def anonymous_mb(pid: int) -> float:
    """Return the anonymous memory of a process and all below it, in megabytes.

    A process that builds a collection's index is left out: it grows with what the collection holds, not with a request.
    """
    total = 0
    for one in (pid, *children(pid)):
        with contextlib.suppress(OSError, IndexError):  # one that has just ended has no memory to speak of
            if BUILDER in Path(f"/proc/{one}/cmdline").read_bytes():
                continue
            status = Path(f"/proc/{one}/status").read_text()
            total += int(status.partition("RssAnon:")[2].split()[0]) * 1024
    return total / 1e6


def _queued_s(thread: int) -> float:
    """Return how long a thread has been ready to run and waited for a processor, which others on this machine had."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{thread}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


class _Observer:
    """Three threads that look, each at its own pace."""

    def __init__(self, port: int, pid: int, key: str) -> None:
        self._port = port
        self._headers = {"content-type": "application/json", "x-api-key": key}
        self._pid = pid
        self._base_mb = anonymous_mb(pid)
        self.seen = Seen()

    def begin(self) -> None:
        self._base_mb = anonymous_mb(self._pid)
        self.seen = Seen()

    def poll(self) -> None:
        connection, threads = self._connect(), (self._pid, threading.get_native_id())
        while True:
            seen, began_s, queued_s = self.seen, time.monotonic(), sum(map(_queued_s, threads))
            try:
                connection.request("GET", "/livez")
                connection.getresponse().read()
                took_s = time.monotonic() - began_s - (sum(map(_queued_s, threads)) - queued_s)
                seen.held_ms = max(seen.held_ms, took_s * 1000)
            except (OSError, http.client.HTTPException):
                connection.close()
            time.sleep(POLL_S)

    def search(self) -> None:
        for number in range(1_000_000_000):
            seen, began_s = self.seen, time.monotonic()
            what = self._search(f"what others look for {number % 50}")
            seen.searches[what] += 1
            seen.search_s = max(seen.search_s, time.monotonic() - began_s)
            time.sleep(SEARCH_S)

    def weigh(self) -> None:
        while True:
            seen = self.seen
            seen.grown_mb = max(seen.grown_mb, anonymous_mb(self._pid) - self._base_mb)
            time.sleep(MEMORY_S)

    def _search(self, query: str) -> str:
        connection = self._connect()
        body = json.dumps({"query": query, "limit": 3})
        try:
            connection.request("POST", "/v1/search", body, self._headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()
        return "200" if response.status == 200 else f"{response.status} {json.loads(answer).get('code', '')}"

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S, source_address=OTHERS)


def _watch(port: int, pid: int, key: str, pipe: Connection) -> None:
    observer = _Observer(port, pid, key)
    for look in (observer.poll, observer.search, observer.weigh):
        threading.Thread(target=look, daemon=True).start()
    while True:
        if pipe.recv() == "begin":
            observer.begin()
            pipe.send(None)
        else:
            pipe.send(observer.seen)
