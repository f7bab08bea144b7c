"""Mapping of a Qdrant server's errors to ours, in this one place.

=============================== =======================================================================
it answers                      the caller gets
=============================== =======================================================================
401, 403                        ``Broken`` (``store_unauthorized``), naming the setting of the key
404 about a collection          ``Invalid`` (``collection_not_found``)
404, 405, 3xx without its words ``Broken`` (``store_not_qdrant``): there is something else at the address
408                             ``Unavailable`` (``store_failed``)
429                             ``Rejected`` (``dependency_limited``) with its ``Retry-After``; else ``dependency_busy``
other 4xx                       ``Invalid`` (``store_refused``): it answers, and serves others
5xx about a full disk           ``Unavailable`` (``disk_full``)
other 5xx                       ``Unavailable`` (``store_failed``)
nothing, half an answer         ``Unavailable`` (``store_unreachable``)
what is no answer of Qdrant's   ``Broken`` (``store_bad_response``)
=============================== =======================================================================

The key is in the request's header and nowhere else: not in a ``repr``, a log line or an error.
"""

from __future__ import annotations

from typing import Final

import httpx
import msgspec

from penstock.kernel.errors import DECODE_ERRORS, Broken, Invalid, PenstockError, Rejected, Unavailable

#: The name of the dependency.
STORE_DEPENDENCY: Final = "store"

#: Characters of the server's message that the client is told.
MESSAGE_CHARACTERS_MAX: Final = 300
#: When to come back where the server is at its limit and does not say.
RETRY_AFTER_S: Final = 1.0

_WRONG: Final = frozenset({404, 405, *range(300, 400)})
_FULL: Final = ("no space left", "disk is full", "out of disk", "not enough disk")


def error_of_status(status: int, body: bytes, headers: httpx.Headers, collection: str) -> PenstockError:
    """Return one of our errors for an answer that is no success."""
    said = _said(body)
    told = said or f"status {status}"
    if status == 429:
        return rate_limit_error(told, _seconds(headers.get("retry-after", "")))
    if status == 404 and collection and "collection" in said.lower():
        return collection_not_found(collection)
    if status >= 500 or status == 408:
        return _failure(told)
    if status in (401, 403):
        reason = "it wants a key" if status == 401 else "the key is wrong, or does not allow this"
        return Broken(
            f"the Qdrant server refuses: {reason}; set concurrency.qdrant.api_key (QDRANT_API_KEY)",
            code="store_unauthorized",
        )
    if status in _WRONG and not said:
        return Broken(
            f"there is no Qdrant server at concurrency.qdrant.url (QDRANT_URL): {told}", code="store_not_qdrant"
        )
    return Invalid(f"the Qdrant server rejected the request: {told}", code="store_refused")


def _failure(told: str) -> Unavailable:
    if any(sign in told.lower() for sign in _FULL):
        return Unavailable("the disk of the Qdrant server is full", dependency=STORE_DEPENDENCY, code="disk_full")
    return Unavailable(f"the Qdrant server failed: {told}", dependency=STORE_DEPENDENCY, code="store_failed")


def collection_not_found(collection: str) -> Invalid:
    """Return the error of a collection that is not there."""
    return Invalid(f"there is no collection {collection!r}", field="collection", code="collection_not_found")


def rate_limit_error(message: str, retry_after_s: float | None) -> Rejected:
    """Return the error of a server at its limit."""
    code = "dependency_busy" if retry_after_s is None else "dependency_limited"
    return Rejected(
        f"the Qdrant server is at its limit: {message}",
        code=code,
        retry_after_s=RETRY_AFTER_S if retry_after_s is None else retry_after_s,
    )


def error_of_exception(error: Exception) -> PenstockError:
    """Return one of our errors for a missing answer, or for one that is not Qdrant's."""
    if isinstance(error, httpx.TransportError | OSError):
        words = " ".join(str(error).split())[:MESSAGE_CHARACTERS_MAX] or type(error).__name__
        return Unavailable(
            f"the Qdrant server does not answer: {words}", dependency=STORE_DEPENDENCY, code="store_unreachable"
        )
    return Broken(f"the Qdrant server's answer makes no sense: {type(error).__name__}", code="store_bad_response")


def _said(body: bytes) -> str:
    """Return ``status.error`` of an answer; else nothing."""
    try:
        found = msgspec.json.decode(body)["status"]["error"]
    except (LookupError, TypeError, *DECODE_ERRORS):
        return ""
    return " ".join(str(found).split())[:MESSAGE_CHARACTERS_MAX]


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
