"""Conversion of problem details (RFC 9457) to errors, and of errors to two lines for a person."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.kernel.errors import DECODE_ERRORS, Broken, Expired, Invalid, PenstockError, Rejected, Unavailable

RETRY_AFTER_S_DEFAULT: Final = 1.0

_HINTS: Final = {
    "collection_not_found": "`penstock status` lists collections; `penstock index PATH --collection NAME` makes one",
    "overloaded": "the server has more work than it can do; try again a little later",
    "timeout": "ask for less, or raise the limit (`penstock config` names it)",
    "server_lost": "what was acknowledged is safe; start the server again and repeat the command to go on",
}


class ApiProblem(msgspec.Struct):
    """The members of a problem document that matter here."""

    title: str = ""
    detail: str = ""
    code: str = ""
    field: str = ""
    operation: str = ""
    dependency: str = ""
    request_id: str = ""


def read_problem(body: bytes) -> ApiProblem:
    """Return the problem document, an empty one where the body is none."""
    try:
        return msgspec.json.decode(body, type=ApiProblem, strict=False)
    except DECODE_ERRORS:
        return ApiProblem()


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> PenstockError:
    """Return the error that an answer of 400 or more stands for."""
    problem = read_problem(body)
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
        return Invalid(_with_field(detail, problem.field), field=problem.field, code=code)
    if problem.request_id:
        detail = f"{detail} (request {problem.request_id})"
    return Broken(detail, code=code)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After``, ``None`` without one that is a number."""
    with contextlib.suppress(ValueError):
        seconds = float(headers.get("retry-after", ""))
        return seconds if 0 <= seconds < 86_400 else None
    return None


def hint_for(error: PenstockError) -> str:
    """Return what to do about the error in one line, empty where its message says it already."""
    if isinstance(error, Broken):
        return "this is a bug in Penstock; the server's log has more, under the same request id"
    return _HINTS.get(error.code, "")


def problem_summary(problem: Mapping[str, Any]) -> tuple[str, str]:
    """Return code and detail of a problem inside an answer, such as that of one document."""
    code = problem.get("code") or "failed"
    return str(code), str(problem.get("detail") or problem.get("title") or code)


def _with_field(detail: str, field: str) -> str:
    return detail if not field or field in detail else f"{field}: {detail}"
