"""Downloads from the Hugging Face hub, with few retries and no log noise. The only importer of its library.

The library tries each request six times over 23 s, logs each attempt twice, and obeys any ``Retry-After``. Here a
request is tried ``ATTEMPTS_MAX`` times, and the caller gets one reason.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import httpx2

#: Attempts of one request, and the pause before the second; it doubles.
ATTEMPTS_MAX: Final = 3
RETRY_DELAY_S: Final = 0.5
#: No attempt begins later than this after a request's first.
RETRY_WINDOW_S: Final = 5.0
#: Bounds of one attempt; the library sets none for some of its requests.
TIMEOUT_S: Final = {"connect": 5.0, "read": 10.0, "write": 10.0, "pool": 10.0}
#: Statuses that may be others a moment later.
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
#: Characters of the library's error message that are reported.
_REASON_CHARS_MAX: Final = 200


class HubUnavailable(Exception):
    """The hub did not provide the requested files. The message says why."""


def download_file(repository: str, name: str, revision: str, cache: Path | None = None) -> Path:
    """Return a file of a repository, from the hub's cache on this machine or from the hub.

    Raises:
        HubUnavailable: The hub does not answer or has no such file.
    """
    return Path(_asked("hf_hub_download", repository, name, revision=revision, cache_dir=cache))


def download_files(repository: str, patterns: Sequence[str], revision: str, cache: Path | None = None) -> Path:
    """Return a directory with the files of a repository that match one of the patterns.

    Raises:
        HubUnavailable: The hub does not answer or has no such repository.
    """
    return Path(_asked("snapshot_download", repository, revision=revision, cache_dir=cache, allow_patterns=patterns))


def _asked(function: str, *arguments: str, **how: Any) -> str:
    try:
        # Imported here: optional, and slow to import.
        import huggingface_hub  # noqa: PLC0415 - see above
    except ImportError:
        raise HubUnavailable("huggingface-hub is not installed: pip install 'penstock[hub]'") from None
    # Its own attempts and hints add nothing for a user who is told the outcome.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    huggingface_hub.set_client_factory(_client)
    try:
        found: str = getattr(huggingface_hub, function)(*arguments, **how)
    except Exception as error:  # the hub raises its own, httpx's and OSError; all mean: not from here
        raise HubUnavailable(f"the Hugging Face hub did not answer ({_reason(error)})") from error
    return found


def _client() -> httpx2.Client:
    """Return a client with few retries, which tells the hub nothing about the machine's programs."""
    import httpx2  # noqa: PLC0415 - see above

    client = httpx2.Client(follow_redirects=True, timeout=None)
    client.send = partial(_sent, client.send)  # type: ignore[method-assign]
    return client


def _sent(send: Callable[..., httpx2.Response], request: httpx2.Request, **how: Any) -> httpx2.Response:
    """Send a request; retry errors that may pass.

    Raises:
        OfflineModeIsEnabled: No attempt succeeded. The library then makes no further request and looks into its cache.
    """
    import httpx2  # noqa: PLC0415 - see above
    from huggingface_hub.constants import is_offline_mode  # noqa: PLC0415 - see above
    from huggingface_hub.errors import OfflineModeIsEnabled  # noqa: PLC0415 - see above

    if is_offline_mode():
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    request.extensions = {**request.extensions, "timeout": TIMEOUT_S}
    began_s = time.monotonic()
    for tried in range(1, ATTEMPTS_MAX + 1):
        try:
            response = send(request, **how)
        except httpx2.TransportError as error:
            why: Exception = error
        else:
            if response.status_code not in _PASSING:
                return response
            response.close()
            why = OfflineModeIsEnabled(f"HTTP {response.status_code} from {request.url.host}")
        if tried == ATTEMPTS_MAX or time.monotonic() - began_s > RETRY_WINDOW_S:
            break
        time.sleep(RETRY_DELAY_S * 2 ** (tried - 1))
    raise OfflineModeIsEnabled(str(why)) from why


def _reason(error: BaseException) -> str:
    """Return the first line of the first error in a chain."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    # Ours, with a text that needs no name.
    name = "" if type(error).__name__ == "OfflineModeIsEnabled" else f"{type(error).__name__}: "
    return f"{name}{error}".partition("\n")[0][:_REASON_CHARS_MAX]
