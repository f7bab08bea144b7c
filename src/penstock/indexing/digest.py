"""A document's content hash: what must be the same for a document to be left as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

#: Part of every hash; raised when chunking or the composed texts change, so that documents
#: indexed by an older release are indexed anew.
LAYOUT = 1


def document_hash(text: str, path: str, language: str, metadata: Mapping[str, object]) -> str:
    """Return the BLAKE2b-128 of everything that shapes a document's points, hexadecimal."""
    encoder = msgspec.json.Encoder(order="deterministic")
    content = encoder.encode([LAYOUT, text, path, language, dict(metadata)])
    return hashlib.blake2b(content, digest_size=16).hexdigest()
