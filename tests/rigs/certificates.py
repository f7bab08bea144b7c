"""Certificates made by openssl, for tests of TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(directory: Path, days: int = 30) -> tuple[Path, Path]:
    """Make a certificate for localhost that signs itself; return it and its key.

    Args:
        directory: Where both are written.
        days: How long it holds; a negative number for one that has expired.
    """
    request, certificate, key = (directory / name for name in ("request.pem", "certificate.pem", "key.pem"))
    names = directory / "names.txt"
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    new = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    signed = ["openssl", "x509", "-req", "-in", request, "-signkey", key, "-days", str(days), "-extfile", names]
    for command in ([*new, "-keyout", key, "-out", request, "-subj", "/CN=localhost"], [*signed, "-out", certificate]):
        subprocess.run(command, check=True, capture_output=True)
    return certificate, key
