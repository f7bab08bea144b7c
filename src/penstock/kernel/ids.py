"""Identifiers: random ones for requests, derived ones for points."""

from __future__ import annotations

import secrets
import uuid

#: Namespace of every point id. Changing it orphans what has been indexed.
POINTS = uuid.UUID("6f1c0c1e-6d0b-5a86-9a55-2f6b1c5f3a10")


def new_id() -> str:
    """Return a fresh 128-bit random id, 32 lower-case hexadecimal digits."""
    return secrets.token_hex(16)


def point_id(document_id: str, chunk: int) -> str:
    """Return the point id of a chunk, derived from its place so that rewriting is idempotent.

    Args:
        document_id: The document's id, any Unicode.
        chunk: The chunk's number within the document, from 0.

    Returns:
        A UUID (version 5, RFC 9562) in its text form.
    """
    name = document_id.encode("utf-8", "surrogatepass").hex()
    return str(uuid.uuid5(POINTS, f"{name}/{chunk}"))
