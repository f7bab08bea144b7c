"""Prepared refusals: rendered once and sent as bytes, so that a refusal stays cheap under overload."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.http.problem import headers_of, problem_of
from penstock.kernel.errors import PenstockError

_REQUEST_ID_PLACEHOLDER: Final = "<request id>"

Headers = list[tuple[bytes, bytes]]


class PreparedRefusal:
    """Refusal of one kind, its bytes rendered once for each ``Retry-After``.

    Args:
        error: The error to render.

    Bounds: as many forms as ``Retry-After`` may have values, 3600.

    Attributes:
        error: As given.
        status: Its HTTP status.
    """

    __slots__ = ("_rendered", "error", "status")

    def __init__(self, error: PenstockError) -> None:
        self.error = error
        self.status = problem_of(error, "").status
        self._rendered: dict[int, tuple[bytes, bytes, Headers]] = {}

    def __repr__(self) -> str:
        return f"<PreparedRefusal {self.status} {self.error.code}>"

    def render(self, request_id: bytes, retry_after_s: int) -> tuple[bytes, Headers]:
        """Return body and headers.

        Args:
            request_id: Visible ASCII.
            retry_after_s: Whole seconds, 0 for none.
        """
        form = self._rendered.get(retry_after_s)
        if form is None:
            form = self._rendered[retry_after_s] = self._prepare(retry_after_s)
        before, after, headers = form
        if b'"' in request_id or b"\\" in request_id:
            request_id = msgspec.json.encode(request_id.decode())[1:-1]
        body = b"".join((before, request_id, after))
        return body, [*headers, (b"content-length", b"%d" % len(body))]

    def _prepare(self, retry_after_s: int) -> tuple[bytes, bytes, Headers]:
        problem = problem_of(self.error, _REQUEST_ID_PLACEHOLDER)
        if retry_after_s:
            problem = msgspec.structs.replace(problem, retry_after_s=float(retry_after_s))
        before, _, after = msgspec.json.encode(problem).partition(_REQUEST_ID_PLACEHOLDER.encode())
        return before, after, headers_of(self.error, problem)
