"""Conversion of problem details (RFC 9457) to the errors that the server raised."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.client.records import Problem
from penstock.kernel.errors import DECODE_ERRORS, Broken, Expired, Invalid, PenstockError, Rejected, Unavailable

RETRY_AFTER_S_DEFAULT: Final = 1.0


class NotReachable(Unavailable):
    """No connection to the server, or one that ended before the answer."""

    code = "server_lost"


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> PenstockError:
    """Return the error that an answer of 400 or more stands for, with its status and the request's id."""
    try:
        problem = msgspec.json.decode(body, type=Problem, strict=False)
    except DECODE_ERRORS:
        problem = Problem()
    error = _family(status, headers, problem)
    error.status = status
    error.request_id = problem.request_id or headers.get("x-request-id", "")
    return error


def _family(status: int, headers: Mapping[str, str], problem: Problem) -> PenstockError:
    detail = problem.detail or problem.title or f"the server answered with status {status}"
    code = problem.code or None
    if status == 429 or (status == 503 and "retry-after" in headers and not problem.dependency):
        after_s = retry_after_s(headers)
        return Rejected(detail, code=code, retry_after_s=after_s or RETRY_AFTER_S_DEFAULT, by_client=status == 429)
    if status in {503, 507}:
        return Unavailable(detail, dependency=problem.dependency or "server", code=code)
    if status == 504:
        return Expired(problem.operation or "request", detail)
    if 400 <= status < 500:
        field = problem.field
        named = detail if not field or field in detail else f"{field}: {detail}"
        return Invalid(named, field=field, code=code)
    if problem.request_id:
        detail = f"{detail} (request {problem.request_id})"
    return Broken(detail, code=code)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After``, ``None`` without one that is a number."""
    with contextlib.suppress(ValueError):
        seconds = float(headers.get("retry-after", ""))
        return seconds if 0 <= seconds < 86_400 else None
    return None
