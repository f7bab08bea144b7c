"""Messages between a server and the process that indexes its sources, each a line of JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from penstock.indexing.sources.source_watches import SourceWatch, WatchedSource
from penstock.kernel.settings import Settings

#: Bytes of a line.
LINE_BYTES_MAX: Final = 16_000_000


class WatchStart(msgspec.Struct, frozen=True):
    """First message: the server, as far as the process needs it.

    Attributes:
        url: Where the server listens.
        api_key: The server's key for its own requests.
        certificate: The server's certificate (PEM), empty for a server without TLS.
        index_roots: The setting ``INDEX_ROOTS``.
        data_dir: The server's data directory.
        host: Name of this host.
        max_file, max_body, max_batch: The server's settings of these names.
    """

    url: str
    api_key: str
    certificate: str
    index_roots: str
    data_dir: str
    host: str
    max_file: int
    max_body: int
    max_batch: int

    @property
    def settings(self) -> Settings:
        """Settings of index runs."""
        defaults = Settings()
        return replace(
            defaults,
            index=replace(defaults.index, max_file=self.max_file),
            http=replace(defaults.http, max_body=self.max_body, max_batch=self.max_batch),
        )


class WatchOrder(msgspec.Struct, frozen=True):
    """The sources to watch from now on, and no others."""

    sources: list[WatchedSource]


class OrderApplied(msgspec.Struct, frozen=True, tag="applied"):
    """Report that nothing is written any more of a source that the last order does not name."""


class LineTold(msgspec.Struct, frozen=True, tag="told"):
    """Report of what was done, for the server's log."""

    text: str


class WatchNoted(msgspec.Struct, frozen=True, tag="noted"):
    """Report of the state of a source."""

    collection: str
    name: str
    watch: SourceWatch


Report = OrderApplied | LineTold | WatchNoted
