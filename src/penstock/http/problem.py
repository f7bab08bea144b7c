"""Errors as ``application/problem+json`` (RFC 9457): one table from family to status, refusals rendered once.

Routes that a vendor's clients use have the vendor's form of errors (:mod:`penstock.http.error_formats`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from penstock.kernel.access import AccessDenied
from penstock.kernel.errors import Expired, Invalid, PenstockError, Rejected, Unavailable
from penstock.policies.jitter import RETRY_AFTER_S_MAX

MEDIA_TYPE: Final = "application/problem+json"

#: Codes whose status differs from their family's.
_STATUS_BY_CODE: Final = {
    "collection_not_found": 404,
    "document_not_found": 404,
    "chunk_not_found": 404,
    "snapshot_not_found": 404,
    "source_not_found": 404,
    "model_not_found": 404,
    "task_not_found": 404,
    "key_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "collection_conflict": 409,
    "collection_exists": 409,
    "write_conflict": 409,
    "source_conflict": 409,
    "key_exists": 409,
    "key_not_changeable": 409,
    "last_admin_key": 409,
    "server_would_close": 409,
    "too_many_keys": 409,
    "body_too_large": 413,
    "too_many_documents": 413,
    "unsupported_media_type": 415,
    "malformed": 400,
    "malformed_request": 400,
    "key_missing": 401,
    "key_unknown": 401,
    "key_expired": 401,
    "key_ambiguous": 401,
    "scope_missing": 403,
    "collection_not_allowed": 403,
    "origin_not_allowed": 403,
    "root_not_allowed": 403,
    "first_key_not_local": 403,
    "read_timeout": 408,
    "head_timeout": 408,
    "target_too_long": 414,
    "host_not_allowed": 421,
    "head_too_large": 431,
    "not_implemented": 501,
    "mcp_not_installed": 501,
    "http_version_not_supported": 505,
    "keys_unreadable": 503,
    "rate_limited": 429,
    "slow_uploads": 429,
    "too_many_failed_attempts": 429,
    "disk_full": 507,
}

#: Every status of a problem, and its title.
TITLES: Final = {
    400: "Malformed request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "The request took too long to arrive",
    409: "Conflict",
    413: "Request too large",
    414: "Request target too long",
    415: "Unsupported media type",
    421: "Misdirected request",
    422: "Invalid request",
    429: "Too many requests",
    431: "Request head too large",
    500: "Internal error",
    501: "Not implemented",
    503: "Unavailable",
    504: "Timeout",
    505: "HTTP version not supported",
    507: "Insufficient storage",
}

#: Codes whose former name is told beside them, until the release after the next.
FORMER_CODES: Final = {
    "endpoint_bad_response": "endpoint_answer",
    "endpoint_not_found": "endpoint_wrong",
    "endpoint_unauthorized": "endpoint_key",
    "store_bad_response": "store_answer",
    "store_not_qdrant": "store_wrong",
    "store_out_of_resources": "store_short",
    "store_unauthorized": "store_key",
    "store_version_unsupported": "store_old",
}

#: Characters of a detail and of a field at most, since a part of either may be the caller's own.
DETAIL_CHARACTERS_MAX: Final = 400
FIELD_CHARACTERS_MAX: Final = 200

#: Types have no address to visit; they are names (RFC 9457 §3.1.1 allows any URI).
_TYPE_PREFIX: Final = "urn:penstock:problem:"


class MethodNotAllowed(Invalid):
    """The path exists but does not take this method.

    Attributes:
        allow: The methods it takes, as the header ``Allow`` lists them.
    """

    code = "method_not_allowed"

    def __init__(self, detail: str, allow: str) -> None:
        super().__init__(detail, field="method")
        self.allow = allow


class UnsupportedMediaType(Invalid):
    """The body has a media type or coding that the route does not take.

    Attributes:
        header: The header that says what it takes (RFC 9110 §15.5.16).
    """

    code = "unsupported_media_type"

    def __init__(self, detail: str, name: str, taken: str) -> None:
        super().__init__(detail, field="content-encoding" if name == "accept-encoding" else "content-type")
        self.header = (name.encode(), taken.encode())


class ProblemDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """Problem details of an error (RFC 9457).

    Attributes:
        type: URN of the kind of problem. Every 504 has ``timeout``.
        title: The status in words.
        status: The HTTP status.
        detail: What is wrong and what to do.
        code: Stable machine-readable code.
        request_id: The request's id, also in ``X-Request-Id``.
        retryable: Whether the same request may succeed later. Always present.
        field: The offending field, if one is to blame.
        operation: The operation whose time ran out, for timeouts.
        dependency: The unavailable dependency, if one behind the server is to blame.
        retry_after_s: Seconds to wait before another try.
        former_code: The code's name in the release before, where it had another.
    """

    type: Annotated[str, Meta(pattern=f"^{_TYPE_PREFIX}[a-z_]+$")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    code: Annotated[str, Meta(pattern="^[a-z_]+$")]
    request_id: Annotated[str, Meta(min_length=1, max_length=128)]
    retryable: bool
    field: str = ""
    operation: str = ""
    dependency: str = ""
    retry_after_s: Annotated[float, Meta(ge=0)] = 0.0
    former_code: str = ""


def status_of(error: PenstockError) -> int:
    """Return the HTTP status of an error: by its code, else by its family."""
    if error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    if isinstance(error, Rejected):
        return 429 if error.by_client else 503
    if isinstance(error, Expired):
        return 504
    if isinstance(error, Unavailable):
        return 503
    if isinstance(error, Invalid):
        return 422
    return 500


def problem_of(error: PenstockError, request_id: str) -> ProblemDetails:
    """Return the problem detail of an error."""
    status = status_of(error)
    return ProblemDetails(
        type=_TYPE_PREFIX + error.code,
        title=TITLES[status],
        status=status,
        detail=_truncate_middle(error.detail, DETAIL_CHARACTERS_MAX),
        code=error.code,
        request_id=request_id,
        retryable=error.retryable,
        field=_truncate_middle(error.field, FIELD_CHARACTERS_MAX) if isinstance(error, Invalid) else "",
        operation=error.operation if isinstance(error, Expired) else "",
        dependency=error.dependency if isinstance(error, Unavailable) else "",
        retry_after_s=error.retry_after_s if isinstance(error, Rejected) else 0.0,
        former_code=FORMER_CODES.get(error.code, ""),
    )


def _truncate_middle(text: str, most: int) -> str:
    """Return a text without its middle where it is too long: its end says what to do next."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 + 3 :]}"


#: What a client is asked for (RFC 6750 §3). One without a key is told no error.
_CHALLENGE: Final = (b"www-authenticate", b'Bearer realm="penstock"')
_CHALLENGE_INVALID: Final = (b"www-authenticate", b'Bearer realm="penstock", error="invalid_token"')

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, eq=False)
class ErrorFormat:
    """Form of the errors of a route: problem details, or those of the vendor whose clients use the route.

    Attributes:
        name: Prefix of its answers in the OpenAPI document.
        record: Record of the body.
        body: Makes the body. Its status is the vendor's already.
        media_type: Media type of the body.
        statuses: The vendor's statuses for ours, where they differ.
        overload_status: Status of every ``Rejected``, 0 for its own.
        retry_after_s_max: The longest ``Retry-After`` before its jitter, which adds up to half.
        should_retry: Whether ``X-Should-Retry`` tells the vendor's clients to try again or not.
    """

    name: str
    record: type[msgspec.Struct]
    body: Callable[[ProblemDetails], msgspec.Struct]
    media_type: str = "application/json"
    statuses: Mapping[int, int] = field(default_factory=dict)
    overload_status: int = 0
    retry_after_s_max: float = RETRY_AFTER_S_MAX
    should_retry: bool = False

    def status_of(self, error: PenstockError) -> int:
        """Return the HTTP status that an error has in this format."""
        if self.overload_status and isinstance(error, Rejected):
            return self.overload_status
        status = status_of(error)
        return self.statuses.get(status, status)

    def headers_of(self, error: PenstockError, problem: ProblemDetails) -> Headers:
        """Return the response headers that go with an error and its problem details."""
        headers = [(b"content-type", self.media_type.encode())]
        if problem.status in (429, 503) and problem.retryable:
            seconds = max(1, math.ceil(problem.retry_after_s))
            headers.append((b"retry-after", str(seconds).encode()))
        if self.should_retry:
            headers.append((b"x-should-retry", b"true" if problem.retryable else b"false"))
        if problem.status == 401:
            headers.append(_CHALLENGE if error.code == "key_missing" else _CHALLENGE_INVALID)
        elif isinstance(error, AccessDenied) and error.scope is not None:
            lacking = f'Bearer realm="penstock", error="insufficient_scope", scope="{error.scope.label}"'
            headers.append((b"www-authenticate", lacking.encode()))
        if isinstance(error, MethodNotAllowed):
            headers.append((b"allow", error.allow.encode()))
        if isinstance(error, UnsupportedMediaType):
            headers.append(error.header)
        return headers


def _as_it_is(problem: ProblemDetails) -> ProblemDetails:
    return problem


#: The format of every route that is no vendor's.
PROBLEM_DETAILS: Final = ErrorFormat("", ProblemDetails, _as_it_is, MEDIA_TYPE)

_REQUEST_ID_PLACEHOLDER: Final = "<request id>"


class PreparedRefusal:
    """Refusal of one kind, its bytes rendered once for each format and ``Retry-After``.

    Bounds: as many forms of each format as ``Retry-After`` may have values, 3600.

    Attributes:
        error: As given.
        status: Its HTTP status as problem details.
    """

    __slots__ = ("_rendered", "error", "status")

    def __init__(self, error: PenstockError) -> None:
        self.error = error
        self.status = status_of(error)
        self._rendered: dict[tuple[ErrorFormat, int], tuple[int, bytes, bytes, Headers]] = {}

    def __repr__(self) -> str:
        return f"<PreparedRefusal {self.status} {self.error.code}>"

    def render(
        self, request_id: bytes, retry_after_s: int, error_format: ErrorFormat = PROBLEM_DETAILS
    ) -> tuple[int, bytes, Headers]:
        """Return status, body and headers.

        Args:
            request_id: Visible ASCII.
            retry_after_s: Whole seconds, 0 for none.
            error_format: The route's.
        """
        key = error_format, retry_after_s
        form = self._rendered.get(key)
        if form is None:
            form = self._rendered[key] = self._prepare(error_format, retry_after_s)
        status, before, after, headers = form
        if b'"' in request_id or b"\\" in request_id:
            request_id = msgspec.json.encode(request_id.decode())[1:-1]
        body = b"".join((before, request_id, after)) if after else before
        return status, body, [*headers, (b"content-length", b"%d" % len(body))]

    def _prepare(self, error_format: ErrorFormat, retry_after_s: int) -> tuple[int, bytes, bytes, Headers]:
        """Return status, body before and after the request's id (nothing after an id that is not told), and headers."""
        problem = problem_of(self.error, _REQUEST_ID_PLACEHOLDER)
        if retry_after_s:
            problem = msgspec.structs.replace(problem, retry_after_s=float(retry_after_s))
        headers = error_format.headers_of(self.error, problem)
        status = error_format.status_of(self.error)
        body = error_format.body(msgspec.structs.replace(problem, status=status))
        before, _, after = msgspec.json.encode(body).partition(_REQUEST_ID_PLACEHOLDER.encode())
        return status, before, after, headers
