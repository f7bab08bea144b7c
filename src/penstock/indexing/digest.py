"""Content hash of a document. A document whose hash is unchanged is left as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

#: Part of every hash; raised when chunking or the composed texts change, so that documents
#: indexed by an older release are indexed again.
HASH_VERSION = 1


#: Characters of a text that are hashed at once: at most 8 ms.
SLICE_CHARACTERS: Final = 1 << 20

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def document_hash(text: str, path: str, language: str, metadata: Mapping[str, object]) -> str:
    """Return the BLAKE2b-128 of everything that shapes a document's points, hexadecimal."""
    digest = new_digest()
    for piece in hash_input(text, path, language, metadata):
        digest.update(piece)
    return digest.hexdigest()


def new_digest() -> hashlib.blake2b:
    """Return a digest to feed with :func:`hash_input`."""
    return hashlib.blake2b(digest_size=16)


def hash_input(text: str, path: str, language: str, metadata: Mapping[str, object]) -> Iterator[bytes]:
    """Yield what is hashed of a document, piece by piece: a JSON array in all."""
    yield b'[%d,"' % HASH_VERSION
    for first in range(0, len(text), SLICE_CHARACTERS):
        yield _ENCODER.encode(text[first : first + SLICE_CHARACTERS])[1:-1]
    yield b'",' + _ENCODER.encode([path, language, dict(metadata)])[1:]
