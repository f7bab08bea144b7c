"""Redis URLs: checked before the first connection, and shown without the password.

The client takes any query parameter of a URL as an option of its own, bounds of ours included. Only options that an
operator needs are let through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from penstock.kernel.errors import Invalid
from penstock.kernel.redaction import HIDDEN

#: The setting, as errors name it.
REDIS_URL_FIELD: Final = "REDIS_URL"

_SCHEMES: Final = ("redis", "rediss", "unix")
_PORT: Final = 6379
_FORM: Final = "redis://user:password@host:port/db"
_ESCAPING_HINT: Final = "; in user and password %XX stands for / : @ ? #"

#: What an address may say besides host, port, user, password and database.
OPTIONS: Final = frozenset(
    {
        "db",
        "username",
        "password",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "ssl_password",
    }
)
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def check_redis_url(url: str, field: str = REDIS_URL_FIELD) -> str:
    """Check a Redis URL and return its host and port, or the path of its socket, for display.

    Raises:
        Invalid: It is no address of a Redis, has an option that is none, or names a file that cannot be read. The
            password is not told.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORT
    except ValueError:
        # Its own words repeat what it took for a port, which may be a part of the password.
        raise Invalid(f"no address of a Redis: {_FORM} is wanted{_ESCAPING_HINT}", field=field) from None
    if parts.scheme not in _SCHEMES or "@" in parts.path or parts.fragment:
        raise Invalid(f"no address of a Redis: {_FORM}, or rediss:// for TLS, is wanted{_ESCAPING_HINT}", field=field)
    _check_options(dict(parse_qsl(parts.query, keep_blank_values=True)), field)
    if parts.scheme == "unix":
        return parts.path
    host = parts.hostname or "localhost"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_options(options: Mapping[str, str], field: str) -> None:
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        # What has no value may be the end of a password with a question mark in it.
        told = options[unknown[0]] and unknown[0].replace("_", "").isalpha()
        raise Invalid(f"an address of a Redis has no option {unknown[0] if told else HIDDEN!r}", field=field)
    for name in _FILES:
        file = options.get(name)
        if file is None:
            continue
        try:
            with Path(file).open("rb"):
                pass
        except OSError as error:
            raise Invalid(f"{name} of the address of Redis: {file}: {error.strerror}", field=field) from None
