"""Addresses of documents, ``penstock://COLLECTION/ID#L1-20``: answers link to them, ``resources/read`` reads them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from penstock.http.mcp.records import FoundChunk
from penstock.kernel.errors import Invalid

URI_TEMPLATE: Final = "penstock://{collection}/{+id}"

_URI: Final = re.compile(r"penstock://([^/?#]+)/([^?#]+)(?:#L(\d{1,9})(?:-L?(\d{1,9}))?)?")

#: Bytes of a link beside the address and the name.
_LINK_BYTES: Final = 50


class DocumentAddress(NamedTuple):
    """Collection and id of a document, and the lines that are meant; ``None`` for all."""

    collection: str
    id: str
    start_line: int | None = None
    end_line: int | None = None

    def uri(self) -> str:
        """Return the address as a URI."""
        lines = "" if self.start_line is None else f"#L{self.start_line}-{self.end_line}"
        return f"penstock://{self.collection}/{quote(self.id, safe='/:@', errors='replace')}{lines}"


def address_of(hit: FoundChunk) -> DocumentAddress:
    """Return the address of a hit's lines."""
    return DocumentAddress(hit.collection, hit.id, hit.start_line, hit.end_line)


def link_size(hit: FoundChunk) -> int:
    """Return about how many bytes a link to a hit has."""
    return len(address_of(hit).uri()) + len(hit.path) + _LINK_BYTES


def parse_uri(uri: str) -> DocumentAddress:
    """Return the address that a URI names.

    Raises:
        Invalid: It is no address of a document (``document_not_found``).
    """
    said = _URI.fullmatch(uri)
    if said is None:
        raise Invalid(f"a document's address is {URI_TEMPLATE}", field="uri", code="document_not_found")
    first = int(said[3]) if said[3] else None
    return DocumentAddress(unquote(said[1]), unquote(said[2]), first, int(said[4]) if said[4] else first)
