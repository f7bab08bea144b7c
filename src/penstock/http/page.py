"""The documentation page: one file, sent with a policy that lets it load nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_STYLE: Final = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


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
                f"script-src {_hashes(_SCRIPT, html)}",
                f"style-src {_hashes(_STYLE, html)}",
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


def _hashes(element: re.Pattern[bytes], html: bytes) -> str:
    """Return the sources of a policy that allow exactly these elements (CSP Level 3 §2.3.1)."""
    digests = (hashlib.sha256(text).digest() for text in element.findall(html))
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


#: Read once, when the module is imported: never on the event loop.
PAGE: Final = Page.load()
