"""The server under attack, spoken to in bytes."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.kernel.access import format_key

#: An attack is not waited for any longer than this.
PATIENCE_S: Final = 90.0
#: Bytes of an answer that are kept.
ANSWER_BYTES: Final = 1 << 20

#: Key of the attacker. A server without keys knows its clients apart by what they send, and checks nothing.
ATTACKER_ID: Final = "attacker0000"
ATTACKER_SECRET: Final = "attacker" + "0" * 35
CREDENTIALS: Final = {"authorization": f"Bearer {format_key(ATTACKER_ID, ATTACKER_SECRET)}"}

JSON: Final = {"content-type": "application/json"}
NDJSON: Final = {"content-type": "application/x-ndjson"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its status, 0 where there was none, the beginning of its body, its size and how long it took."""

    status: int
    body: bytes
    size: int
    took_s: float

    @property
    def code(self) -> str:
        """The problem's code, empty where it is none."""
        with contextlib.suppress(ValueError, AttributeError):
            return str(json.loads(self.body).get("code", ""))
        return ""

    def __str__(self) -> str:
        return f"{self.status} {self.code}".strip() if self.status else "no answer"


@dataclass(frozen=True, slots=True)
class Target:
    """A running server.

    Attributes:
        port: Where it listens on loopback.
        pid: Its front's process.
        data_dir: Its data directory.
    """

    port: int
    pid: int
    data_dir: Path

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        headers: Mapping[str, str] = JSON,
        timeout_s: float = PATIENCE_S,
    ) -> Answer:
        """Send one request on a connection of its own and read its whole answer."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        began_s = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, data, CREDENTIALS | (dict(headers) if data is not None else {}))
            response = connection.getresponse()
            head, size = b"", 0
            while piece := response.read(65_536):
                size += len(piece)
                head += piece[: max(0, ANSWER_BYTES - len(head))]
            return Answer(response.status, head, size, time.monotonic() - began_s)
        except (OSError, http.client.HTTPException):
            return Answer(0, b"", 0, time.monotonic() - began_s)
        finally:
            connection.close()

    def search(self, body: bytes | dict[str, Any], collection: str = "default") -> Answer:
        """Search a collection."""
        return self.ask("POST", f"/v1/collections/{collection}/search", body)

    def index(self, collection: str, *documents: Mapping[str, Any], **others: Any) -> Answer:
        """Index documents into a collection, which is made if it is absent."""
        self.ask("PUT", f"/v1/collections/{collection}", {})
        return self.ask("POST", f"/v1/collections/{collection}/documents", {"documents": documents, **others})

    @contextlib.contextmanager
    def connected(self, timeout_s: float = 10.0) -> Iterator[socket.socket]:
        """Yield a bare connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout_s) as raw:
            yield raw

    def say(self, *pieces: bytes, wait_s: float = 3.0) -> bytes:
        """Send bytes on a connection of their own; return what comes back until it closes or is silent."""
        with self.connected(wait_s) as raw:
            try:
                for piece in pieces:
                    raw.sendall(piece)
            except OSError:
                pass  # refused while it was sent: what was answered is there to be read
            return told(raw)


def told(raw: socket.socket, most: int = ANSWER_BYTES) -> bytes:
    """Return what comes back on a connection until it closes, is silent for its time-out, or has said enough."""
    heard = b""
    with contextlib.suppress(OSError):
        while len(heard) < most and (piece := raw.recv(65_536)):
            heard += piece
    return heard


def statuses(heard: bytes) -> list[int]:
    """Return the statuses of the responses in what was heard on a connection."""
    return [int(piece[:3]) for piece in heard.split(b"HTTP/1.1 ")[1:] if piece[:3].isdigit()]


def head(method: str, path: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    """Return the head of a request."""
    known = [f"{name}: {value}" for name, value in CREDENTIALS.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *known, *headers, "", ""]).encode()


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a whole request with a JSON body."""
    return head("POST", path, "Content-Type: application/json", f"Content-Length: {len(body)}", *headers) + body
