"""What became of requests to a world's server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.api import Answer


@dataclass(frozen=True)
class Reply:
    """What became of one request.

    Attributes:
        status: Of the answer; 0 if the caller hung up or was cut off first.
        code: Of an error, empty for none. Some vendors' errors have a kind instead, or are only told from others.
        json: The answer's body, ``None`` without one.
        headers: Its headers.
        took_s: How long the caller waited.
    """

    status: int
    code: str = ""
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    took_s: float = 0.0

    @property
    def end(self) -> str:
        """The one end it came to."""
        if self.status == 0:
            return "gone"
        if self.status < 300:
            return "answered"
        if self.status in (408, 504):
            return "expired"
        return "refused" if self.status in (429, 503) else "failed"


def reply_of(answer: Answer, took_s: float) -> Reply:
    """Return a whole answer as a reply."""
    kind = answer.headers.get("content-type", "")
    body = answer.json if "json" in kind else answer.body.decode()
    return Reply(answer.status, _code(answer.status, body), body, answer.headers, took_s)


def _code(status: int, body: Any) -> str:
    if status < 400 or not isinstance(body, dict):
        return ""
    if isinstance(body.get("error"), dict):
        return str(body["error"]["code"])
    return str(body.get("code") or body.get("error_type") or ("cohere" if "message" in body else ""))


def words(replies: Iterable[Reply]) -> Counter[str]:
    """Count what answers lacked; ``none`` for those that lacked nothing."""
    return Counter("+".join(one.json["degraded"]) or "none" for one in replies if one.status == 200)


def ends(replies: Iterable[Reply]) -> Counter[str]:
    """Count how requests ended: ``answered``, or the code of their problem."""
    return Counter(one.code or one.end for one in replies)
