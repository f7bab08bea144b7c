"""The load generator: a process of its own, one epoll loop, no coroutine per request.

Open loop: a request is sent when its time has come, whatever became of those before it. Connections are
kept alive and reused, the latest first; when none is idle one more is opened, up to a bound.

``python -m bench.overload.generator CORE``: the job on stdin, what was sent on stdout.
"""

from __future__ import annotations

import gc
import heapq
import http.client
import random
import select
import socket
import struct
import sys
import time
from typing import Final

import msgspec

from bench.overload.records import Attempt, End, Job, Sent
from bench.overload.retrying import back_off_s
from bench.overload.scenarios import CLIENTS, Request
from bench.overload.trial import settle
from bench.overload.workload import CLASSES, DEADLINE_S

CONNECTIONS_MAX: Final = 4_000
#: An idle connection is closed after this long, as HTTP clients do.
IDLE_S: Final = 1.0
#: Retries a client may have saved up.
SAVED_MAX: Final = 10.0
#: Between the server's being told the beginning and the beginning.
LEAD_S: Final = 0.2
#: Closing resets the connection: it leaves no port in TIME_WAIT, of which there are only 28 000.
_RESET: Final = struct.pack("ii", 1, 0)
_WRITABLE: Final = select.EPOLLIN | select.EPOLLOUT


class _Line:
    """A connection."""

    __slots__ = ("attempt", "buffer", "pending", "sock", "used_s")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.attempt: _Sending | None = None
        self.buffer = b""
        self.pending = b""
        self.used_s = 0.0


class _Sending:
    """An attempt on its way."""

    __slots__ = ("due_s", "line", "number", "request", "sent_s", "tries")

    def __init__(self, number: int, request: int, tries: int, due_s: float) -> None:
        self.number = number
        self.request = request
        self.tries = tries
        self.due_s = due_s
        self.sent_s = 0.0
        self.line: _Line | None = None


class Generator:
    """Sends a job's requests and notes how each attempt ended.

    Args:
        job: What to send.

    Bounds: ``CONNECTIONS_MAX`` connections; an attempt that finds none is ``UNSENT``.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._chance = random.Random(job.seed)
        self._heads = _heads()
        self._numbers = 0
        self._poll = select.epoll()
        self._lines: dict[int, _Line] = {}
        self._idle: list[_Line] = []
        #: What happens later: retries (a new attempt to send) and clients that give up (one already sent).
        self._later: list[tuple[float, int, _Sending]] = []
        self._attempts: list[Attempt] = []
        self._opened = 0
        self._began_s = 0.0
        self._saved: dict[int, float] = {}

    def run(self) -> Sent:
        """Send everything, wait for every end, and return them."""
        self._began_s = time.monotonic() + LEAD_S
        _tell_beginning(self._job.port, self._began_s)
        gc.disable()
        cpu_s = time.process_time()
        requests = self._job.requests
        upcoming = 0
        while upcoming < len(requests) or self._later:
            now_s = time.monotonic() - self._began_s
            while upcoming < len(requests) and requests[upcoming].at_s <= now_s:
                self._send(self._new(upcoming, 0, requests[upcoming].at_s))
                upcoming += 1
            while self._later and self._later[0][0] <= now_s:
                self._due(heapq.heappop(self._later)[2])
            next_s = requests[upcoming].at_s if upcoming < len(requests) else float("inf")
            if self._later:
                next_s = min(next_s, self._later[0][0])
            self._listen(next_s)
        for line in list(self._lines.values()):
            self._close(line)
        return Sent(self._attempts, time.process_time() - cpu_s, self._now(), self._opened)

    def _may_retry(self, request: int) -> bool:
        """Whether the client's budget has a retry left; take it."""
        client = self._job.requests[request].client
        if self._job.budget and self._saved.get(client, 0.0) < 1.0:
            return False
        self._saved[client] = self._saved.get(client, 0.0) - 1.0
        return True

    def _new(self, request: int, tries: int, due_s: float) -> _Sending:
        self._numbers += 1
        if not tries:
            client = self._job.requests[request].client
            self._saved[client] = min(SAVED_MAX, self._saved.get(client, 0.0) + self._job.budget)
        return _Sending(self._numbers, request, tries, due_s)

    def _listen(self, until_s: float) -> None:
        """Take in what servers say until something is due; ``select`` waits finer than ``epoll``."""
        wait_s = until_s + self._began_s - time.monotonic()
        if wait_s > 0:
            select.select([self._poll], (), (), min(wait_s, IDLE_S))
        for number, events in self._poll.poll(0):
            line = self._lines.get(number)
            if line is not None:
                if events & select.EPOLLOUT and line.pending:
                    self._flush(line)
                if events & ~select.EPOLLOUT:
                    self._read(line)
        if self._idle and self._now() - self._idle[0].used_s > IDLE_S:
            self._close(self._idle.pop(0))

    def _now(self) -> float:
        return time.monotonic() - self._began_s

    def _due(self, sending: _Sending) -> None:
        """Send a retry; or hang up, if it has been sent and not answered."""
        if not sending.sent_s:
            self._send(sending)
        elif sending.line is not None:
            line = sending.line
            early = self._job.requests[sending.request].patience_s < DEADLINE_S
            self._close(line)
            self._end(sending, End.HUNG_UP if early else End.GAVE_UP)

    def _send(self, sending: _Sending) -> None:
        request = self._job.requests[sending.request]
        sending.sent_s = self._now()
        heapq.heappush(self._later, (sending.due_s + request.patience_s, sending.number, sending))
        line = self._idle.pop() if self._idle else self._open()
        if line is None:
            self._end(sending, End.UNSENT)
            return
        line.attempt, sending.line = sending, line
        line.pending += self._heads[request.client, request.criticality] + _body(sending.number, request)
        self._flush(line)

    def _open(self) -> _Line | None:
        if len(self._lines) >= CONNECTIONS_MAX:
            return None
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        try:
            sock.connect_ex(("127.0.0.1", self._job.port))
        except OSError:
            sock.close()
            return None
        line = _Line(sock)
        self._opened += 1
        self._lines[sock.fileno()] = line
        self._poll.register(sock.fileno(), select.EPOLLIN)
        return line

    def _flush(self, line: _Line) -> None:
        """Send what is pending; the rest, or all before the connection stands, when it becomes writable."""
        try:
            line.pending = line.pending[line.sock.send(line.pending) :]
        except BlockingIOError:
            self._poll.modify(line.sock.fileno(), _WRITABLE)
            return
        except OSError:
            self._broken(line)
            return
        self._poll.modify(line.sock.fileno(), _WRITABLE if line.pending else select.EPOLLIN)

    def _read(self, line: _Line) -> None:
        try:
            data = line.sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._broken(line)
            return
        line.buffer += data
        head, found, rest = line.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        if len(rest) < int(_header(lower, b"content-length") or 0):
            return
        self._answered(line, lower, rest)

    def _answered(self, line: _Line, head: bytes, body: bytes) -> None:
        sending = line.attempt
        line.attempt, line.buffer, line.used_s = None, b"", self._now()
        if b"connection: close" in head:
            self._close(line)
        else:
            self._idle.append(line)
        if sending is not None:
            self._end(sending, _verdict(int(head[9:12]), body), float(_header(head, b"retry-after") or 0))

    def _broken(self, line: _Line) -> None:
        sending = line.attempt
        if line in self._idle:
            self._idle.remove(line)
        self._close(line)
        if sending is not None:
            self._end(sending, End.FAILED)

    def _close(self, line: _Line) -> None:
        del self._lines[line.sock.fileno()]
        line.sock.close()

    def _end(self, sending: _Sending, end: End, retry_after_s: float = 0.0) -> None:
        now_s = self._now()
        sending.line = None
        sending.sent_s = sending.sent_s or now_s
        number, request, tries = sending.number, sending.request, sending.tries
        self._attempts.append(Attempt(number, request, tries, sending.due_s, sending.sent_s, now_s, end))
        if end in (End.REFUSED, End.FAILED, End.GAVE_UP) and tries < self._job.retries and self._may_retry(request):
            due_s = now_s + back_off_s(tries, DEADLINE_S, retry_after_s, self._chance)
            again = self._new(request, tries + 1, due_s)
            heapq.heappush(self._later, (due_s, again.number, again))


def _heads() -> dict[tuple[int, int], bytes]:
    """Return the request's head for each client and class; bodies have all the same length."""
    length = len(_body(0, Request(0, 0, 0, 0, asks=False, patience_s=0)))
    return {
        (client, number): (
            f"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"x-api-key: client-{client}\r\nx-criticality: {name}\r\n"
            f"x-request-timeout-ms: {round(DEADLINE_S * 1000)}\r\ncontent-length: {length}\r\n\r\n"
        ).encode()
        for client in range(CLIENTS + 1)
        for number, (name, _) in enumerate(CLASSES)
    }


def _body(number: int, request: Request) -> bytes:
    return b'{"id":"%08d","kind":%d,"asks":%d}' % (number, request.kind, request.asks)


def _header(head: bytes, name: bytes) -> bytes:
    """Return a header's value from a head in lower case."""
    _, found, after = head.partition(b"\r\n" + name + b": ")
    return after.partition(b"\r\n")[0] if found else b""


def _verdict(status: int, body: bytes) -> End:
    if status == 200:
        return End.ANSWERED if b'"degraded":[]' in body else End.DEGRADED
    return End.REFUSED if status in (429, 503) else End.FAILED


def _tell_beginning(port: int, began_s: float) -> None:
    """Tell the server when the scenario begins; both processes share the monotonic clock."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", f"/bench/begin/{began_s}")
    connection.getresponse().read()
    connection.close()


def main() -> None:
    """Read a job from standard input, run it on the core named, write what was sent."""
    settle(int(sys.argv[1]))
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Job)
    sent = Generator(job).run()
    sys.stdout.buffer.write(msgspec.msgpack.encode(sent))


if __name__ == "__main__":
    main()
