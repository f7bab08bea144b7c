"""Sources: the named trees of a collection, whose documents are ``source:relative/path``.

The record of a source lies in the collection's own record. So it is made, copied and deleted with the collection, and
every server of the collection reads the same one.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from penstock.kernel.errors import Invalid

#: Bounds of a collection's sources, and of what is recorded of each. Together they fit into the collection's record.
SOURCES_MAX: Final = 256
NAME_CHARACTERS_MAX: Final = 128
ROOT_CHARACTERS_MAX: Final = 4096
TEXT_CHARACTERS_MAX: Final = 256
ROOTS_MAX: Final = 4
FAILURES_MAX: Final = 5
INCLUDE_MAX: Final = 64
PATTERN_CHARACTERS_MAX: Final = 1024

#: Stands in a document's id between the source and the path below its root.
SEPARATOR: Final = ":"

#: Characters that no name has: what separates parts of paths and ids, controls, and what turns the direction of a text.
_NEVER: Final = r"/\\:\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"

#: A source's name, as a regular expression over all of it.
SOURCE_NAME: Final = rf"[^ .{_NEVER}](?:[^{_NEVER}]{{0,{NAME_CHARACTERS_MAX - 2}}}[^ {_NEVER}])?"

_NAME: Final = re.compile(SOURCE_NAME)
_FORBIDDEN: Final = re.compile(f"[{_NEVER}]")

SourceName = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
RootPath = Annotated[str, Meta(max_length=ROOT_CHARACTERS_MAX)]
ShortText = Annotated[str, Meta(max_length=TEXT_CHARACTERS_MAX)]
Pattern = Annotated[str, Meta(min_length=1, max_length=PATTERN_CHARACTERS_MAX)]
Patterns = Annotated[list[Pattern], Meta(max_length=INCLUDE_MAX)]
Count = Annotated[int, Meta(ge=0)]


class SourceRoot(msgspec.Struct, frozen=True):
    """Directory of a source on one host.

    Attributes:
        host: Name of the host.
        path: Absolute path of the directory there.
        seen_at: When it was last indexed, RFC 3339 in UTC.
        watch: Whether a server on that host keeps the source up to date.
    """

    host: ShortText
    path: RootPath
    seen_at: ShortText = ""
    watch: bool = False


class SourceFailure(msgspec.Struct, frozen=True):
    """A file that could not be indexed: its path below the root, and why."""

    path: RootPath
    code: ShortText = ""


class SourceRun(msgspec.Struct, frozen=True):
    """Counts of an index run over a source.

    Attributes:
        indexed: Documents indexed.
        unchanged: Documents that were as the collection has them.
        removed: Documents removed.
        failed: Files that failed.
        kept: Documents kept although their files are gone, since too many are.
        failures: The first of the files that failed.
    """

    indexed: Count = 0
    unchanged: Count = 0
    removed: Count = 0
    failed: Count = 0
    kept: Count = 0
    failures: Annotated[list[SourceFailure], Meta(max_length=FAILURES_MAX)] = []


class SourceRecord(msgspec.Struct, frozen=True):
    """A source as it was last indexed.

    Attributes:
        name: Its name.
        roots: Its directory on each host that has fed it, the latest first.
        commit: Commit of its git repository at the last completed run; empty for none.
        completed_at: When a run was last completed, RFC 3339 in UTC; empty for never.
        run: Counts of the last completed run.
        include: Patterns of what is indexed although it is left out elsewhere, relative to the root.
    """

    name: SourceName
    roots: Annotated[list[SourceRoot], Meta(max_length=ROOTS_MAX)] = []
    commit: ShortText = ""
    completed_at: ShortText = ""
    run: SourceRun = SourceRun()
    include: Patterns = []

    def root_on(self, host: str) -> str:
        """Return the source's directory on a host; empty where that host has not fed it."""
        return next((one.path for one in self.roots if one.host == host), "")

    def is_watched_on(self, host: str) -> bool:
        """Return whether a server on a host keeps the source up to date."""
        return any(one.watch for one in self.roots if one.host == host)

    def unwatched(self) -> SourceRecord:
        """Return the record without a watch on any host."""
        return msgspec.structs.replace(self, roots=[msgspec.structs.replace(one, watch=False) for one in self.roots])

    def with_root(self, root: SourceRoot) -> SourceRecord:
        """Return the record with the latest directory of a host; the oldest of too many is dropped."""
        others = [one for one in self.roots if one.host != root.host]
        return msgspec.structs.replace(self, roots=[root, *others][:ROOTS_MAX])


def check_source_name(name: str) -> None:
    """Refuse a name that no source can have.

    Raises:
        Invalid: It is not allowed (``invalid_source``).
    """
    if _NAME.fullmatch(name) is None:
        raise Invalid(
            f"a source's name is 1 to {NAME_CHARACTERS_MAX} characters, without '/', '\\', ':' and control characters;"
            " it begins with neither a dot nor a space, and ends with no space",
            field="source",
            code="invalid_source",
        )


def allowed_name(name: str) -> str:
    """Return a name with each character that no source may have replaced; empty where nothing is left."""
    return _FORBIDDEN.sub("-", name).lstrip(". ")[:NAME_CHARACTERS_MAX].rstrip(" ")


def check_document_source(id_: str, source: str) -> None:
    """Refuse a document that names a source which its id does not belong to.

    Raises:
        Invalid: The name is not allowed, or the id is not the source's (``invalid_source``).
    """
    if not source:
        return
    check_source_name(source)
    if not id_.startswith(document_id(source, "")) or id_ == document_id(source, ""):
        detail = f"a document of the source {source!r} has the id {document_id(source, 'PATH')!r}"
        raise Invalid(detail, field="id", code="invalid_source")


def document_id(source: str, path: str) -> str:
    """Return the id of a source's document."""
    return f"{source}{SEPARATOR}{path}"
