"""Redaction of addresses: removes the secrets that people write into them."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

#: Placeholder for a part that is not shown.
HIDDEN: Final = "***"

_HOST: Final = r"(?:[\w.-]{1,255}+|\[[0-9A-Fa-f:]{2,45}+\]):[0-9]{1,5}+"
#: Between full addresses; a comma else may be a part of a password.
_SEVERAL = re.compile(r",(?= ?https?://)")
_HOSTS: Final = re.compile(rf"\A(?:{_HOST}(?: *+, *+{_HOST}){{0,100}}+)?")


def redact_url(address: str) -> str:
    """Return an address as it may be shown: without user, password, query and fragment.

    Args:
        address: A URL, or hosts and ports with commas between. What makes no sense as either is not shown at all.
    """
    if "://" not in address:
        return address if _HOSTS.fullmatch(address) else HIDDEN
    several = _SEVERAL.split(address)
    if len(several) > 1:
        return HIDDEN if "@" in address else ",".join(redact_url(one.strip()) for one in several)
    if not is_well_formed(address):
        return HIDDEN
    parts = urlsplit(address)
    _, at, host = parts.netloc.rpartition("@")
    user, query = (HIDDEN + at if at else ""), ("?" + HIDDEN if parts.query else "")
    return f"{parts.scheme}://{user}{host}{parts.path}{query}"


def is_well_formed(url: str) -> bool:
    """Return whether a URL makes sense.

    An ``@`` behind the host is more likely the end of a password that an unescaped ``/``, ``?`` or ``#`` has cut in
    two; the host is then the user, and the port the beginning of the password.
    """
    try:
        parts = urlsplit(url)
        # Read for its check.
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.scheme) and parts.netloc.count("@") <= 1 and "@" not in parts.path + parts.query + parts.fragment
