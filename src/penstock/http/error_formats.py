"""Errors in the form of the vendors whose clients use a route.

The status of an error is ours (:func:`penstock.http.problem.status_of`), unless the vendor has another for it. Their
clients heed ``Retry-After`` up to two minutes and ignore a longer one, and ``X-Should-Retry`` goes before everything
else that they know of an error.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.http.problem import ErrorFormat, ProblemDetails

#: The longest ``Retry-After`` before its jitter, which adds up to half: 120 s in all.
RETRY_AFTER_S_MAX: Final = 80.0


class OpenAiError(msgspec.Struct, frozen=True):
    """Details of an error, as OpenAI words them.

    Attributes:
        message: What is wrong and what to do.
        type: Kind of error, by its status.
        param: The offending field, null for none.
        code: Stable machine-readable code, the same as on other routes.
    """

    message: str
    type: str
    param: str | None
    code: str


class OpenAiErrorBody(msgspec.Struct, frozen=True):
    """Body of an error on the routes of OpenAI's clients."""

    error: OpenAiError


class CohereError(msgspec.Struct, frozen=True):
    """Body of an error on the routes of Cohere's clients.

    Attributes:
        id: The request's id, also in `X-Request-Id`.
        message: What is wrong and what to do.
    """

    id: str
    message: str


class TeiError(msgspec.Struct, frozen=True):
    """Body of an error on the routes of text-embeddings-inference.

    Attributes:
        error: What is wrong and what to do.
        error_type: Kind of error: `validation`, `overloaded`, `backend` or `unhealthy`.
    """

    error: str
    error_type: str


class JsonRpcErrorData(msgspec.Struct, frozen=True):
    """Details of an error for a program.

    Attributes:
        code: Stable machine-readable code, the same as on other routes.
        retry_after_ms: When to try again; null where the same message cannot succeed.
        request_id: The request's id, also in `X-Request-Id`.
    """

    code: str
    retry_after_ms: int | None
    request_id: str


class JsonRpcError(msgspec.Struct, frozen=True):
    """Details of an error, as JSON-RPC has them."""

    code: int
    message: str
    data: JsonRpcErrorData


class JsonRpcErrorBody(msgspec.Struct, frozen=True):
    """Body of an error on the route of MCP: an answer to a message whose id was not read."""

    error: JsonRpcError
    id: None = None
    jsonrpc: str = "2.0"


_OPENAI_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_TEI_TYPES: Final = {429: "overloaded", 503: "unhealthy"}


def _openai_body(problem: ProblemDetails) -> OpenAiErrorBody:
    kind = _OPENAI_TYPES.get(problem.status, "server_error" if problem.status >= 500 else "invalid_request_error")
    return OpenAiErrorBody(OpenAiError(problem.detail, kind, problem.field or None, problem.code))


def _cohere_body(problem: ProblemDetails) -> CohereError:
    return CohereError(problem.request_id, problem.detail)


def _tei_body(problem: ProblemDetails) -> TeiError:
    kind = _TEI_TYPES.get(problem.status, "backend" if problem.status >= 500 else "validation")
    return TeiError(problem.detail, kind)


#: Codes of JSON-RPC: the server's own, and an invalid request.
_JSON_RPC_SERVER: Final = -32_000
_JSON_RPC_INVALID: Final = -32_600


def _json_rpc_body(problem: ProblemDetails) -> JsonRpcErrorBody:
    code = _JSON_RPC_SERVER if problem.retryable or problem.status >= 500 else _JSON_RPC_INVALID
    retry_after_ms = round(1000 * (problem.retry_after_s or 1)) if problem.retryable else None
    again = f"; retry in {retry_after_ms / 1000:g} s" if retry_after_ms is not None else ""
    data = JsonRpcErrorData(problem.code, retry_after_ms, problem.request_id)
    return JsonRpcErrorBody(JsonRpcError(code, f"{problem.code}: {problem.detail}{again}", data))


#: OpenAI and Cohere have no 422 for what a request says.
_INVALID: Final = {422: 400}

OPENAI: Final = ErrorFormat(
    "OpenAi",
    OpenAiErrorBody,
    _openai_body,
    statuses=_INVALID,
    retry_after_s_max=RETRY_AFTER_S_MAX,
    should_retry=True,
)
COHERE: Final = ErrorFormat(
    "Cohere", CohereError, _cohere_body, statuses=_INVALID, retry_after_s_max=RETRY_AFTER_S_MAX, should_retry=True
)
#: Its 503 says that the server cannot work at all; overload is 429.
TEI: Final = ErrorFormat(
    "Tei", TeiError, _tei_body, overload_status=429, retry_after_s_max=RETRY_AFTER_S_MAX, should_retry=True
)
#: Clients of MCP show the error of a body that is one of JSON-RPC, whatever its status.
JSON_RPC: Final = ErrorFormat("JsonRpc", JsonRpcErrorBody, _json_rpc_body)
