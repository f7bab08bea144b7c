"""Files of the page for people, read once and served with their hashes: nothing of the server's data is in them."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from penstock.kernel.errors import Invalid

_FOLDER: Final = Path(__file__).parent / "page"
_PREFIX: Final = "/assets/"

#: Views of the page. Each is an address of its own, so that it can be shared and reloaded.
VIEWS: Final = ("/", "/flow", "/admin")

_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

#: Nothing but the page's own files is loaded, nothing inline runs, and nothing may frame it.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


class PageFile(NamedTuple):
    """A file of the page, in both forms in which it is sent.

    Attributes:
        media_type: Its media type.
        data: Its bytes.
        gzipped: The same, compressed.
        etag: Its entity tag, of its hash.
    """

    media_type: str
    data: bytes
    gzipped: bytes
    etag: str

    @classmethod
    def read(cls, path: Path) -> PageFile:
        """Return a file of the package."""
        data = path.read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        return cls(_MEDIA_TYPES[path.suffix], data, gzip.compress(data, 9, mtime=0), etag)


def _read_files() -> Mapping[str, PageFile]:
    """Return every file by the path at which it is served."""
    found = [path for path in sorted(_FOLDER.rglob("*")) if path.suffix in _MEDIA_TYPES]
    files = {f"{_PREFIX}{path.relative_to(_FOLDER).as_posix()}": PageFile.read(path) for path in found}
    page = files.pop(f"{_PREFIX}index.html")
    return dict.fromkeys(VIEWS, page) | files


#: Every file by its path; read once, when the module is imported: never on the event loop.
PAGE_FILES: Final = _read_files()

#: Path of the router for all files but the views.
ASSETS_ROUTE: Final = f"{_PREFIX}{{file:path}}"

_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Asked for again each time, and answered by 304: after an upgrade no file of before stays.
    "cache-control": "no-cache",
    "vary": "accept-encoding",
}


async def page_file(request: Request) -> Response:
    """Answer with a file of the page, or that the caller's copy of it is still right.

    Raises:
        Invalid: There is none of this name (``not_found``).
    """
    path = request.scope["path"]
    file = PAGE_FILES.get(path)
    if file is None:
        raise Invalid(f"there is nothing at {path}; see /docs", field="path", code="not_found")
    headers: dict[str, Any] = _HEADERS | {"etag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    body = file.data
    if "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["content-encoding"] = file.gzipped, "gzip"
    return Response(body, headers=headers, media_type=file.media_type)
