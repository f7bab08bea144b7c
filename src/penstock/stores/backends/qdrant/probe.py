"""Start-up probe of a Qdrant server: reachability, identity and API key.

It uses plain HTTP: importing the client takes more than a second, and a failure would not be reported in time.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from penstock.kernel.context import Clock, Deadline, enforce_deadline, run_all
from penstock.kernel.errors import DECODE_ERRORS, Broken, Expired, Invalid, PenstockError, Rejected, Unavailable
from penstock.kernel.redaction import is_well_formed
from penstock.kernel.settings import QdrantSettings
from penstock.stores.backends.qdrant.error_mapping import STORE_DEPENDENCY, error_of_exception, error_of_status

log = logging.getLogger(__name__)

#: A server that has not answered its first questions after so long is down: the operator is told within five
#: seconds, even if our own start takes two of them.
PROBE_TIMEOUT_S: Final = 2.0

#: Major and minor version of a server.
Version = tuple[int, int]

#: The oldest version that works. Before it a server knows no ``update_mode``: a chunk that is deleted while its vector
#: is made would come back.
VERSION_MIN: Final[Version] = (1, 17)

#: The port where the address names none.
DEFAULT_PORT: Final = 6333

#: Where the address is set, for people.
_URL: Final = "concurrency.qdrant.url (QDRANT_URL)"


async def probe(
    settings: QdrantSettings, clock: Clock, transport: httpx.AsyncBaseTransport | None = None
) -> dict[str, Version | PenstockError]:
    """Check that a Qdrant server answers at one of the addresses at least, and accepts the key.

    Returns:
        By address: its version, or why it cannot be reached.

    Raises:
        Unavailable: None can be reached, or answers (``store_unreachable``).
        Invalid: One is there, and it is wrong: its address, its key, its version. Or the settings cannot be used.

    Bounds: ``PROBE_TIMEOUT_S``.
    """
    found: dict[str, Version | PenstockError] = {}

    async def probe_one(url: str) -> None:
        try:
            found[url] = await _probe(url, settings, clock, transport)
        except Unavailable as error:
            found[url] = error

    urls = server_urls(settings)
    await run_all([probe_one(url) for url in urls])
    away = [error for error in found.values() if isinstance(error, PenstockError)]
    if len(away) == len(urls):
        raise away[0]
    for error in away:
        log.warning("%s; the other addresses are asked", error.detail)
    return found


async def _probe(
    url: str, settings: QdrantSettings, clock: Clock, transport: httpx.AsyncBaseTransport | None
) -> Version:
    headers = {"accept-encoding": "identity"} | ({"api-key": settings.api_key} if settings.api_key else {})
    verify = tls_verification(settings, [url])
    deadline = Deadline.never().within(PROBE_TIMEOUT_S, "check", clock.now())
    given: dict[str, Any] = {"headers": headers, "verify": verify, "transport": transport, "trust_env": False}
    told: Any = None
    try:
        # The deadline holds for all of it; the client's limit is for each step, and never expires first.
        async with enforce_deadline(deadline), httpx.AsyncClient(timeout=2 * PROBE_TIMEOUT_S, **given) as http:
            told = await ask(http, f"{url}/")
            check_identity(told)
            await ask(http, f"{url}/collections")
    except Rejected:
        return read_version(told) or VERSION_MIN
    except Expired:
        detail = f"{_URL}: {url} has not answered within {PROBE_TIMEOUT_S:g} s"
        raise Unavailable(detail, dependency=STORE_DEPENDENCY, code="store_unreachable") from None
    except Unavailable as error:
        detail = f"{_URL}: {url}: {error.detail}"
        raise Unavailable(detail, dependency=STORE_DEPENDENCY, code="store_unreachable") from error
    except (Broken, Invalid) as error:
        detail = f"{_URL}: {url} cannot be used: {error.detail}"
        raise Invalid(detail, field="concurrency.qdrant.url", code=error.code) from error
    log.info("points are kept by the Qdrant server %s, version %s", url, told.get("version"))
    return read_version(told) or VERSION_MIN


def read_version(told: Any) -> Version | None:
    """Return major and minor version from what a server tells of itself; ``None`` where it tells none."""
    parts = str(told.get("version", "") if isinstance(told, dict) else "").split(".")
    return (int(parts[0]), int(parts[1])) if len(parts) > 1 and parts[0].isdecimal() and parts[1].isdecimal() else None


def check_identity(told: Any) -> None:
    """Refuse what is no Qdrant server, and one that is too old.

    Raises:
        Broken: It is another program (``store_not_qdrant``), or its version is below ``VERSION_MIN``
            (``store_version_unsupported``).
    """
    if not isinstance(told, dict) or "qdrant" not in str(told.get("title")).lower():
        raise Broken("there is another program", code="store_not_qdrant")
    version = read_version(told)
    if version is not None and version < VERSION_MIN:
        least = ".".join(map(str, VERSION_MIN))
        raise Broken(f"Qdrant {told['version']} is too old, {least} is the oldest", code="store_version_unsupported")


async def ask(http: httpx.AsyncClient, url: str) -> Any:
    """Return what a server answers at an address.

    Raises:
        PenstockError: See :mod:`penstock.stores.backends.qdrant.error_mapping`.
    """
    try:
        answer = await http.get(url)
        if not answer.is_success:
            raise error_of_status(answer.status_code, answer.content, answer.headers, "")
        return msgspec.json.decode(answer.content)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, *DECODE_ERRORS) as error:
        raise error_of_exception(error) from error


def server_urls(settings: QdrantSettings) -> list[str]:
    """Return the full address of each of the server's nodes, once each.

    Raises:
        Invalid: It is not valid, or the key holds what no header may hold.
    """
    return list(dict.fromkeys(_server_url(one.strip(), settings) for one in settings.url.split(",")))


def _server_url(address: str, settings: QdrantSettings) -> str:
    name = "concurrency.qdrant.url"
    try:
        url = urlsplit(address)
        port = url.port or DEFAULT_PORT
    except ValueError:
        # Its own words repeat what it took for a port, which may be a part of a password.
        raise Invalid(f"{_URL}: an address such as http://qdrant:{DEFAULT_PORT} is wanted", field=name) from None
    plain = not url.query and not url.fragment and url.username is None and is_well_formed(address)
    if url.scheme not in ("http", "https") or not url.hostname or not plain:
        wanted = f"an address such as http://qdrant:{DEFAULT_PORT} is wanted; concurrency.qdrant.api_key is for the key"
        raise Invalid(f"{_URL}: {wanted}", field=name)
    key = settings.api_key
    if not key.isascii() or any(not "!" <= character <= "~" for character in key):
        name = "concurrency.qdrant.api_key"
        raise Invalid(f"{name}: a key has no blanks and only ASCII letters", field=name)
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return f"{url.scheme}://{host}:{port}{url.path.rstrip('/')}"


def tls_verification(settings: QdrantSettings, urls: Sequence[str]) -> ssl.SSLContext | bool:
    """Return the TLS verification of a server's certificate; loading it takes 20 ms, so not without TLS.

    Raises:
        Invalid: The file with the authority's certificate cannot be used.
    """
    if not any(url.startswith("https:") for url in urls):
        return False
    if not settings.ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=str(Path(settings.ca_file)))
    except (OSError, ssl.SSLError) as error:
        name = "concurrency.qdrant.ca_file"
        raise Invalid(f"{name}: {settings.ca_file}: {error}", field=name) from error
