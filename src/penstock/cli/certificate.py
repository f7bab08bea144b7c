"""The server's certificate: TLS 1.2 and later, from files that may be replaced while it runs."""

from __future__ import annotations

import logging
import re
import ssl
from pathlib import Path
from typing import Final

from penstock.client.pinning import pinned_context
from penstock.kernel.errors import Invalid
from penstock.kernel.files import read_regular

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----[^-]{1,65536}-----END CERTIFICATE-----")

log = logging.getLogger(__name__)


class ServerCertificate:
    """A certificate and its key, as the context that uvicorn serves with.

    Args:
        certificate: File of the chain (PEM), the server's own first.
        key: File of the private key (PEM); empty where it is in the same file.

    Attributes:
        context: For the listening socket. Connections from now on get what was loaded last.
        pem: The certificate that was loaded last.

    Raises:
        Invalid: The files cannot be used (``certificate_unusable``).
    """

    def __init__(self, certificate: str, key: str) -> None:
        self._file = certificate
        self._key = key
        self.context, self.pem = _loaded(certificate, key)

    def __repr__(self) -> str:
        return f"<ServerCertificate {self._file}>"

    def reload(self) -> None:
        """Read the files again; the certificate before stays where they cannot be used."""
        try:
            # Into another context first: one that has failed half-way could not serve any more.
            _, pem = _loaded(self._file, self._key)
            self.context.load_cert_chain(self._file, self._key or None, password=_no_passphrase)
        except (Invalid, OSError) as error:
            log.warning("the certificate cannot be used; the one before stays", extra={"why": str(error)})
            return
        self.pem = pem
        log.info("the certificate was read again", extra={"file": self._file})


def _loaded(certificate: str, key: str) -> tuple[ssl.SSLContext, str]:
    """Return a context with a certificate, and the certificate (PEM)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A key with a passphrase would be asked for on the terminal.
        # OpenSSL would wait for the other end of a pipe.
        pem = _PEM.findall(read_regular(Path(certificate)).decode("ascii", "replace"))
        read_regular(Path(key or certificate))
        context.load_cert_chain(certificate, key or None, password=_no_passphrase)
        _warn_if_unbelievable(context, pem[0])
    except (OSError, ValueError, IndexError) as error:
        # OpenSSL's errors are OSErrors too, and name no file.
        why = str(error) if isinstance(error, OSError | ValueError) else ""
        if isinstance(error, ssl.SSLError | IndexError):
            why = "they are no certificate in PEM and its own key"
        detail = f"TLS cannot be served with {certificate}{f' and {key}' if key else ''}: {why}"
        raise Invalid(detail, field="server.tls_cert", code="certificate_unusable") from error
    return context, "\n".join(pem) + "\n"


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase; keep it without one, readable by the server's user alone")


def _warn_if_unbelievable(context: ssl.SSLContext, pem: str) -> None:
    """Warn of a certificate that no client accepts, such as an expired one, by a handshake with ourselves."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = pinned_context(pem).wrap_bio(to_client, to_server)
    try:
        for _ in range(4):
            for end in (client, server):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLCertVerificationError as error:
        log.warning("clients will refuse the certificate", extra={"why": error.verify_message})
    except ssl.SSLError as error:
        log.warning("clients may refuse the certificate", extra={"why": error.reason})
