"""The server's answers as the commands read them; members that are not named here are ignored."""

from __future__ import annotations

from typing import Any

import msgspec


class Collection(msgspec.Struct, frozen=True):
    """One collection of ``GET /v1/collections``."""

    name: str
    documents: int = 0
    chunks: int = 0
    dim: int = 0
    model: str = ""
    created_at: str | float = ""
    disk_bytes: int = 0


class Listed(msgspec.Struct, frozen=True):
    """One document of a collection's listing; ``hash`` is empty where it was written incompletely."""

    id: str
    hash: str = ""
    chunks: int = 0
    path: str = ""


class Page(msgspec.Struct, frozen=True):
    """A page of the listing."""

    documents: list[Listed]
    next: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of one document."""

    id: str
    status: str
    chunks: int = 0
    error: dict[str, Any] | None = None


class Indexed(msgspec.Struct, frozen=True):
    """The answer to a batch of documents."""

    documents: list[Outcome]


class Hit(msgspec.Struct, frozen=True):
    """One hit."""

    id: str
    score: float
    text: str = ""
    path: str = ""
    start_line: int = 0
    end_line: int = 0
    symbol: str = ""
    language: str = ""
    chunk: int = 0
    explain: dict[str, Any] | None = None


class Answer(msgspec.Struct, frozen=True):
    """The answer to a search."""

    hits: list[Hit]
    took_ms: float = 0.0
    degraded: list[str] = []
