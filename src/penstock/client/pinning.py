"""TLS to a server whose certificate is at hand."""

from __future__ import annotations

import ssl


def pinned_context(certificate: str) -> ssl.SSLContext:
    """Return a context that believes these certificates (PEM) and no others, for whatever name they were made.

    A server on this machine is asked for under its address, and its certificate is for the name that others use.

    Raises:
        OSError: They are no certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    # The server's own certificate may be trusted without the one that signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificate)
    return context
