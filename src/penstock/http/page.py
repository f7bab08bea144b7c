"""The documentation page: one file, sent with a policy that lets it load nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Page:
    """The page and its response headers."""

    html: bytes
    headers: dict[str, str]

    @classmethod
    def load(cls) -> Page:
        """Read the page; its policy names the very script and style that stand in it."""
        html = (Path(__file__).parent / "docs.html").read_bytes()
        policy = "; ".join(
            (
                "default-src 'none'",
                f"script-src {_hashes('script', html)}",
                f"style-src {_hashes('style', html)}",
                "connect-src 'self'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        )
        return cls(
            html,
            {
                "content-type": "text/html; charset=utf-8",
                "content-security-policy": policy,
                "referrer-policy": "no-referrer",
                "x-content-type-options": "nosniff",
            },
        )


def _hashes(element: str, html: bytes) -> str:
    """Return the sources of a policy that allow exactly these elements (CSP Level 3 §2.3.1)."""
    parts = html.split(f"<{element}>".encode())[1:]
    digests = (hashlib.sha256(part.partition(f"</{element}>".encode())[0]).digest() for part in parts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


#: Read once, when the module is imported: never on the event loop.
PAGE: Final = Page.load()
