"""Refusals made beforehand: at twenty times the load, what one costs decides how much work is left."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.http.problem import headers_of, problem_of
from penstock.kernel.errors import PenstockError

_MARK: Final = "<request id>"

Headers = list[tuple[bytes, bytes]]


class Refusal:
    """One kind of refusal, its bytes laid out for each ``Retry-After`` once.

    Args:
        error: What is refused, and why.

    Bounds: as many forms as ``Retry-After`` may have values, 3600.

    Attributes:
        error: As given.
        status: Its HTTP status.
    """

    __slots__ = ("_forms", "error", "status")

    def __init__(self, error: PenstockError) -> None:
        self.error = error
        self.status = problem_of(error, "").status
        self._forms: dict[int, tuple[bytes, bytes, Headers]] = {}

    def __repr__(self) -> str:
        return f"<Refusal {self.status} {self.error.code}>"

    def parts(self, request_id: bytes, retry_after_s: int) -> tuple[bytes, Headers]:
        """Return body and headers.

        Args:
            request_id: Visible ASCII.
            retry_after_s: Whole seconds, 0 for none.
        """
        form = self._forms.get(retry_after_s)
        if form is None:
            form = self._forms[retry_after_s] = self._form(retry_after_s)
        before, after, headers = form
        if b'"' in request_id or b"\\" in request_id:
            request_id = msgspec.json.encode(request_id.decode())[1:-1]
        body = b"".join((before, request_id, after))
        return body, [*headers, (b"content-length", b"%d" % len(body))]

    def _form(self, retry_after_s: int) -> tuple[bytes, bytes, Headers]:
        problem = problem_of(self.error, _MARK)
        if retry_after_s:
            problem = msgspec.structs.replace(problem, retry_after_s=float(retry_after_s))
        before, _, after = msgspec.json.encode(problem).partition(_MARK.encode())
        return before, after, headers_of(self.error, problem)
