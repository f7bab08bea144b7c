"""The Hugging Face hub, asked briefly and quietly; the only module that imports its library.

The library tries each request six times over 23 s, tells each attempt twice, and obeys any ``Retry-After``. Here a
request is tried ``TRIES`` times, and the caller gets one reason.
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
TRIES: Final = 3
PAUSE_S: Final = 0.5
#: No attempt begins later than this after a request's first.
PATIENCE_S: Final = 5.0
#: Bounds of one attempt; the library sets none for some of its requests.
TIMEOUT_S: Final = {"connect": 5.0, "read": 10.0, "write": 10.0, "pool": 10.0}
#: Statuses that may be others a moment later.
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
#: Characters of the library's complaint that are told.
_REASON_CHARS_MAX: Final = 200


class Away(Exception):
    """The hub has not given what was asked for; the text says why, for a person."""


def file(repository: str, name: str, revision: str, cache: Path | None) -> Path:
    """Return a file of a repository, from the hub's cache on this machine or from the hub.

    Raises:
        Away: The hub does not answer or has no such file.
    """
    return Path(_asked("hf_hub_download", repository, name, revision=revision, cache_dir=cache))


def files(repository: str, patterns: Sequence[str], revision: str, cache: Path | None) -> Path:
    """Return a directory with the files of a repository that match one of the patterns.

    Raises:
        Away: The hub does not answer or has no such repository.
    """
    return Path(_asked("snapshot_download", repository, revision=revision, cache_dir=cache, allow_patterns=patterns))


def _asked(function: str, *arguments: str, **how: Any) -> str:
    try:
        # Imported here: optional, and slow to import.
        import huggingface_hub  # noqa: PLC0415 - see above
    except ImportError:
        raise Away("huggingface_hub is not installed") from None
    # Its own attempts and hints are no news to a person who is told the outcome.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    huggingface_hub.set_client_factory(_client)
    try:
        found: str = getattr(huggingface_hub, function)(*arguments, **how)
    except Exception as error:  # the hub raises its own, httpx's and OSError; all mean: not from here
        raise Away(f"the Hugging Face hub did not answer ({_reason(error)})") from error
    return found


def _client() -> httpx2.Client:
    """Return a client whose requests are tried briefly; it tells the hub nothing about the machine's programs."""
    import httpx2  # noqa: PLC0415 - see above

    client = httpx2.Client(follow_redirects=True, timeout=None)
    client.send = partial(_sent, client.send)  # type: ignore[method-assign]
    return client


def _sent(send: Callable[..., httpx2.Response], request: httpx2.Request, **how: Any) -> httpx2.Response:
    """Send a request; try again where that may help.

    Raises:
        OfflineModeIsEnabled: It did not help. The library then tries nothing more and looks into its cache.
    """
    import httpx2  # noqa: PLC0415 - see above
    from huggingface_hub.constants import is_offline_mode  # noqa: PLC0415 - see above
    from huggingface_hub.errors import OfflineModeIsEnabled  # noqa: PLC0415 - see above

    if is_offline_mode():
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    request.extensions = {**request.extensions, "timeout": TIMEOUT_S}
    began_s = time.monotonic()
    for tried in range(1, TRIES + 1):
        try:
            response = send(request, **how)
        except httpx2.TransportError as error:
            why: Exception = error
        else:
            if response.status_code not in _PASSING:
                return response
            response.close()
            why = OfflineModeIsEnabled(f"HTTP {response.status_code} from {request.url.host}")
        if tried == TRIES or time.monotonic() - began_s > PATIENCE_S:
            break
        time.sleep(PAUSE_S * 2 ** (tried - 1))
    raise OfflineModeIsEnabled(str(why)) from why


def _reason(error: BaseException) -> str:
    """Return the first line of what began a chain of errors."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    # Ours, with a text that needs no name.
    name = "" if type(error).__name__ == "OfflineModeIsEnabled" else f"{type(error).__name__}: "
    return f"{name}{error}".partition("\n")[0][:_REASON_CHARS_MAX]
