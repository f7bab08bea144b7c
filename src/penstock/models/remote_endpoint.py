"""Client of an HTTP endpoint that runs a model: bounded answers, and the endpoint's errors translated to ours.

The endpoint's answers are translated in this one place:

======================== ==================================================================================
it answers               the caller gets
======================== ==================================================================================
200                      the body, if it is JSON of no more than the bytes allowed
401, 403                 ``Broken`` (``endpoint_unauthorized``), naming the setting of the key
404, 405, 410, 3xx       ``Broken`` (``endpoint_not_found``), naming the setting of the address
413, 422                 :class:`BatchTooLarge`: the same in smaller batches may do
429                      ``Rejected`` (``dependency_limited``) with its ``Retry-After``; without one ``dependency_busy``
other 4xx                ``Invalid`` (``endpoint_refused``): these texts
408, 5xx                 ``Unavailable`` (``endpoint_failed``)
nothing, half an answer  ``Unavailable`` (``endpoint_unreachable``)
too much, or no JSON     ``Broken`` (``endpoint_bad_response``)
======================== ==================================================================================

The key is in the request's header and nowhere else: not in a ``repr``, a log line or an error.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import msgspec

from penstock import __version__
from penstock.kernel.context import Clock, Context
from penstock.kernel.errors import DECODE_ERRORS, Broken, Invalid, PenstockError, Rejected, Unavailable
from penstock.kernel.redaction import is_well_formed

#: A connection that is not there after so long is not coming, whatever the deadline.
CONNECT_TIMEOUT_S: Final = 3.0
#: Bytes read of a refusal, and characters of its message that are quoted.
REFUSAL_BYTES_MAX: Final = 4096
QUOTED_CHARACTERS_MAX: Final = 200
#: When to come back where the endpoint is at its limit and does not say.
RETRY_AFTER_S: Final = 1.0

_WRONG: Final = frozenset({404, 405, 410})
_TOO_LARGE: Final = frozenset({413, 422})


class BatchTooLarge(Invalid):
    """The endpoint takes no batch of this size."""

    code = "batch_too_large"


@dataclass(frozen=True, slots=True)
class ModelEndpointSettings:
    """Settings of a model endpoint: address, key and connections.

    Attributes:
        dependency: The part's name in errors and metrics: ``embed``, ``sparse`` or ``rerank``.
        section: Where it is set, ``models.dense`` for instance; errors name its settings.
        url: Its address, with or without the path of the operation.
        api_key: Sent as a bearer token; empty for none.
        connections_max: Connections at most.
    """

    dependency: str
    section: str
    url: str = field(repr=False)
    api_key: str = field(default="", repr=False)
    connections_max: int = 4


class ModelEndpoint:
    """An endpoint and the connections to it.

    Args:
        settings: Where it is.
        path: Path of the operation, ``/v1/embeddings`` for instance; an address that ends with a part of it, such as
            ``/v1``, is not given that part twice.
        clock: The loop's clock.
        transport: Carries the requests; the network by default.

    Bounds: ``connections_max`` connections, kept for the next requests.

    Raises:
        Invalid: The address is none, or the key holds what no header may hold.
    """

    def __init__(
        self,
        settings: ModelEndpointSettings,
        path: str,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.section = settings.section
        self.dependency = settings.dependency
        self._clock = clock
        self._url = _whole_url(settings, path)
        # Secrets that an endpoint may repeat in its answers; the longest first, as one may be a part of another.
        told = [settings.api_key, str(self._url.query, "ascii"), *self._url.params.values()]
        self._secrets = sorted(filter(None, told), key=len, reverse=True)
        most = settings.connections_max
        self._client = httpx.AsyncClient(
            headers=_headers(settings),
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            # The deadline in the context is the only limit of a whole request.
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            transport=transport,
            # Certificates take 20 ms to load, for nothing where nothing is encrypted.
            verify=self._url.scheme == "https",
        )

    def __repr__(self) -> str:
        return f"<ModelEndpoint {self.dependency} {self.url}>"

    @property
    def url(self) -> str:
        """The endpoint's address without its query, which may hold a secret."""
        return str(self._url.copy_with(query=None))

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def post(self, message: Any, bytes_max: int, ctx: Context) -> bytes:
        """Send a message as JSON; return the body of the answer.

        The time left goes along as ``X-Request-Timeout-Ms``; ending the call at the deadline is the caller's part.

        Raises:
            PenstockError: See the table above.

        Cancellation: The connection is closed, which tells the endpoint that the request was cancelled.
        """
        headers, left_s = {}, ctx.deadline.remaining_s(self._clock.now())
        if left_s < math.inf:
            headers["x-request-timeout-ms"] = str(math.ceil(left_s * 1000))
        try:
            async with self._client.stream(
                "POST", self._url, content=msgspec.json.encode(message), headers=headers
            ) as response:
                if response.status_code != 200:
                    said = await _beginning(response)
                    raise self._refusal(response.status_code, response.headers, said)
                return await self._body(response, bytes_max)
        except httpx.TransportError as error:
            # From nothing: the library's error holds the request, and that the key.
            raise Unavailable(
                f"the endpoint of {self.section} cannot be reached: {_reason(error)}",
                dependency=self.dependency,
                code="endpoint_unreachable",
            ) from None

    def malformed_answer(self, what: str) -> Broken:
        """Return the error for an invalid answer."""
        return Broken(
            f"the endpoint of {self.section} answers what makes no sense: {what}", code="endpoint_bad_response"
        )

    async def _body(self, response: httpx.Response, bytes_max: int) -> bytes:
        """Read an answer that is to be no longer than ``bytes_max``."""
        if response.headers.get("content-encoding", "identity") != "identity":
            # It was asked not to: a few kilobytes may unpack to gigabytes.
            raise self.malformed_answer(f"it is encoded as {response.headers['content-encoding'][:20]!r}")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > bytes_max:
                raise self.malformed_answer(f"it is longer than {bytes_max} bytes")
        return bytes(body)

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> PenstockError:
        who, quoted = f"the endpoint of {self.section}", self._quoted(body)
        if status in {401, 403}:
            detail = f"{who} does not accept the API key ({status}): check {self.section}.api_key"
            return Broken(detail, code="endpoint_unauthorized")
        if status in _WRONG or 300 <= status < 400:
            detail = f"{who} knows no POST {self._url.path} ({status}): check {self.section}.url{quoted}"
            return Broken(detail, code="endpoint_not_found")
        if status == 429:
            after_s = retry_after_s(headers.get("retry-after", ""))
            return Rejected(
                f"{who} is at its limit",
                code="dependency_limited" if after_s is not None else "dependency_busy",
                retry_after_s=RETRY_AFTER_S if after_s is None else after_s,
            )
        if status in _TOO_LARGE:
            return BatchTooLarge(f"{who} takes no batch of this size ({status}){quoted}")
        if 400 <= status < 500 and status != 408:
            return Invalid(f"{who} refuses these texts ({status}){quoted}", code="endpoint_refused")
        return Unavailable(f"{who} failed ({status}){quoted}", dependency=self.dependency, code="endpoint_failed")

    def _quoted(self, body: bytes) -> str:
        """Return the endpoint's own message behind a colon, empty if it cannot be read."""
        said = _said(body)
        for secret in self._secrets:
            said = said.replace(secret, "…")
        return f": {said[:QUOTED_CHARACTERS_MAX]}" if said else ""


def retry_after_s(text: str) -> float | None:
    """Return the seconds that a ``Retry-After`` means (a number, or a date), ``None`` where it means nothing."""
    with contextlib.suppress(ValueError):
        seconds = float(text)
        return seconds if 0.0 <= seconds < math.inf else None
    with contextlib.suppress(ValueError):
        when = email.utils.parsedate_to_datetime(text)
        when = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
        return max(0.0, (when - dt.datetime.now(dt.UTC)).total_seconds())
    return None


def _whole_url(settings: ModelEndpointSettings, path: str) -> httpx.URL:
    """Return the address with the operation's path, of which it may have a part already."""
    field_name = f"{settings.section}.url"
    try:
        url = httpx.URL(settings.url.strip())
    except httpx.InvalidURL:
        # Its own words repeat what it took for a port, which may be a part of a password.
        raise Invalid(f"{field_name}: is no address", field=field_name, code="endpoint_url") from None
    if url.scheme not in {"http", "https"} or not url.host:
        detail = f"{field_name}: must begin with http:// or https:// and a host"
        raise Invalid(detail, field=field_name, code="endpoint_url")
    if url.userinfo or not is_well_formed(settings.url.strip()):
        detail = f"{field_name}: must not hold a name or password; {settings.section}.api_key is for the key"
        raise Invalid(detail, field=field_name, code="endpoint_url")
    there, steps = url.path.rstrip("/"), path.strip("/").split("/")
    # Nothing, or as much of the operation's beginning as the address ends with.
    for count in range(len(steps), -1, -1):
        beginning = "".join(f"/{step}" for step in steps[:count])
        if there.endswith(beginning):
            break
    return url.copy_with(path=there + "".join(f"/{step}" for step in steps[count:]), fragment=None)


def _headers(settings: ModelEndpointSettings) -> dict[str, str]:
    headers = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": f"penstock/{__version__}",
    }
    key = settings.api_key
    if key:
        if not key.isascii() or not key.isprintable() or " " in key:
            name = f"{settings.section}.api_key"
            raise Invalid(
                f"{name}: a key has no blanks and only ASCII letters", field=name, code="endpoint_unauthorized"
            )
        headers["authorization"] = f"Bearer {key}"
    return headers


async def _beginning(response: httpx.Response) -> bytes:
    """Return the beginning of an answer; whether it comes to its end does not matter."""
    body = bytearray()
    with contextlib.suppress(httpx.TransportError):
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) >= REFUSAL_BYTES_MAX:
                break
    return bytes(body[:REFUSAL_BYTES_MAX])


def _said(body: bytes) -> str:
    """Return the message of a refusal: ``error.message``, ``error``, ``message`` or ``detail``; else nothing."""
    try:
        found = msgspec.json.decode(body)
    except DECODE_ERRORS:
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    if not isinstance(found, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in found).split())


def _reason(error: httpx.TransportError) -> str:
    words = " ".join(str(error).split())[:QUOTED_CHARACTERS_MAX]
    return words or type(error).__name__
