"""Sources of an index run: which source each named path belongs to, and whether its tree is the one that it was."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from penstock.client import Source
from penstock.indexing.git_repository import open_repository
from penstock.indexing.ignore import work_tree_root
from penstock.indexing.sources.indexed_documents import IndexedDocuments
from penstock.indexing.sources.local_files import (
    IndexableFile,
    IndexRoot,
    find_files,
    hash_file,
    is_below,
    is_below_any,
    resolve_path,
)
from penstock.indexing.walk import is_left_out, project_root
from penstock.kernel.errors import Invalid
from penstock.stores.sources import INCLUDE_MAX, PATTERN_CHARACTERS_MAX, allowed_name, check_source_name, document_id

#: Files by which a tree is recognised that was renamed.
SAMPLE_FILES: Final = 100


@dataclass(frozen=True, slots=True)
class KnownSources:
    """The sources that a collection has already.

    Attributes:
        host: Name of this host.
        by_name: The sources.
        projects: Directories that documents without a source were indexed from, by an earlier release.
    """

    host: str = field(default_factory=socket.gethostname)
    by_name: Mapping[str, Source] = field(default_factory=dict)
    projects: Sequence[Path] = ()

    def roots(self) -> Iterator[tuple[str, Path]]:
        """Yield each source that this host has fed, and its directory here, whether that exists or not."""
        for name, source in self.by_name.items():
            if path := source.root_on(self.host):
                yield name, Path(path)

    def missing(self) -> list[str]:
        """Return the sources whose directory on this host is gone."""
        return [name for name, directory in self.roots() if not directory.is_dir()]

    def has_moved(self, root: IndexRoot) -> bool:
        """Return whether a root's source was fed from another directory of this host, which is gone."""
        before = self.root_of(root.source)
        return before not in ("", str(root.project))

    def hints(self, roots: Sequence[IndexRoot]) -> Iterator[str]:
        """Yield a line for each source whose directory is gone and may be what is now indexed under another name.

        Args:
            roots: What is indexed.
        """
        is_new = any(root.source not in self.by_name for root in roots)
        for name, directory in self.roots():
            near = is_new or any(is_below(str(directory), str(root.path)) for root in roots)
            if near and not directory.is_dir() and all(root.source != name for root in roots):
                documents = self.by_name[name].documents
                yield (
                    f"the source {name} has {documents} documents, and its directory {directory} is gone: `penstock"
                    f" forget {name}` removes them; if the tree has moved, index it with `--source {name}`"
                )

    def include_of(self, name: str) -> Sequence[str]:
        """Return the patterns that are kept with a source."""
        source = self.by_name.get(name)
        return () if source is None else source.include

    def others(self, name: str) -> list[str]:
        """Return the other sources; first those whose name tells that they are trees of the same repository."""
        repository = name.partition("@")[0]
        return sorted((one for one in self.by_name if one != name), key=lambda one: one.partition("@")[0] != repository)

    def root_of(self, name: str) -> str:
        """Return the directory of a source on this host, empty where there is none."""
        source = self.by_name.get(name)
        return "" if source is None else source.root_on(self.host)


def find_duplicate(one: IndexableFile, known: KnownSources, documents: IndexedDocuments, hash_: str) -> str:
    """Return the id of a document of another source that has the same path and content, empty where there is none.

    Other work trees of the repository have most of them, but any source will do: the vectors depend on path and
    content alone. A file that is new to its source, and differs everywhere, may have chunks of one of the same path.

    Args:
        one: The file.
        known: The sources that are there.
        documents: Their documents.
        hash_: The file's content hash.
    """
    there = [other for name in known.others(one.source) if documents.holds(other := document_id(name, one.path))]
    similar = there[0] if there and not documents.holds(one.id) else ""
    return next((other for other in there if documents.holds(other, hash_)), similar)


def find_renamed(root: IndexRoot, known: KnownSources, documents: IndexedDocuments, file_bytes_max: int) -> IndexRoot:
    """Return a root under the name of the source whose tree it was before it was renamed, if it was one.

    Linked work trees are alike, so a new one is not taken for one that was removed. Git keeps the name of a moved one.

    Args:
        root: The root.
        known: The sources that are there.
        documents: Their documents.
        file_bytes_max: Larger files are not indexed.
    """
    is_new = root.source not in known.by_name and not is_linked_tree(root.project)
    for name in known.missing() if is_new else ():
        before = replace(root, source=name)
        sample = list(islice(find_files([before], file_bytes_max), SAMPLE_FILES))
        same = sum(documents.holds(one.id, hash_file(one, file_bytes_max)) for one in sample)
        if 2 * same > len(sample):
            return before
    return root


def included(source: str, roots: Sequence[IndexRoot], include: Sequence[str]) -> list[str]:
    """Return the patterns to keep with a source, so that the next run does not undo what this one included.

    They are those that are kept already, those of the run, and the named paths that are left out elsewhere.

    Args:
        source: The source's name.
        roots: What is indexed.
        include: Patterns of the run, relative to each path.

    Raises:
        Invalid: There are too many (``too_many_patterns``).
    """
    patterns: dict[str, None] = {}
    for root in roots:
        if root.source != source:
            continue
        patterns |= dict.fromkeys(root.include)
        if root.path == root.project:
            patterns |= dict.fromkeys(include)
            continue
        below = "/" + _GLOB.sub(r"\\\g<0>", root.path.relative_to(root.project).as_posix())
        if is_left_out(root.path, root.project):
            patterns[below + "/" * root.path.is_dir()] = None
        patterns |= dict.fromkeys(f"{below}/{_anchored(pattern)}" for pattern in include)
    if len(patterns) > INCLUDE_MAX or any(len(one) > PATTERN_CHARACTERS_MAX for one in patterns):
        raise Invalid(
            f"the source {source!r} can keep {INCLUDE_MAX} patterns of {PATTERN_CHARACTERS_MAX} characters; write them"
            " into its .penstockignore instead, each after a '!'",
            field="include",
            code="too_many_patterns",
        )
    return list(patterns)


#: Characters that stand for more than themselves in a pattern.
_GLOB: Final = re.compile(r"[*?\[\\]")


def _anchored(pattern: str) -> str:
    """Return a pattern that is relative to a directory: one without a slash takes names at any depth."""
    return pattern.lstrip("/") if "/" in pattern.rstrip("/") else f"**/{pattern}"


def resolve_sources(
    paths: Sequence[Path], known: KnownSources, *, name: str = "", worktree: bool = False, force: bool
) -> list[IndexRoot]:
    """Return the named paths with their sources, and the roots of other sources below them.

    A path belongs to the innermost source around it. Where there is none, it registers one: its repository, or else
    the directory.

    Args:
        paths: What the user named.
        known: The sources that are there.
        name: Name of the source that the user wants; empty for the one that the paths have.
        worktree: Whether each path is in one of several trees of its repository, and its source that tree alone.
        force: Whether a path may be very broad.

    Raises:
        Invalid: A path is absent (``path_not_found``) or too broad (``root_too_broad``), a name is not allowed
            (``invalid_source``), or it is that of another tree (``source_conflict``).
    """
    if name:
        check_source_name(name)
    roots: list[IndexRoot] = []
    for path in paths:
        one = _root(resolve_path(path, force=force), known, name, worktree=worktree)
        for before in (Path(known.root_of(one.source) or one.project), *(r.project for r in roots if _same(r, one))):
            if before != one.project and _is_there(before):
                raise _conflict(one, before)
        roots.append(one)
    taken, projects = {root.source for root in roots}, {root.project for root in roots}
    for source, directory in known.roots():
        around = any(is_below(str(directory), str(root.path)) for root in roots)
        if around and source not in taken and directory not in projects and directory.is_dir():
            roots.append(IndexRoot(directory, directory, source))
    return roots


def check_registered(roots: Sequence[IndexRoot], paths: Sequence[Path], known: KnownSources) -> None:
    """Refuse to index anything but registered sources at the named paths: a link may have taken the place of one.

    What is found is then below the paths, since a walk follows no links.
    """
    for root in roots:
        if root.source not in known.by_name or not is_below_any(str(root.path), paths):
            shown = ", ".join(map(str, paths))
            detail = f"{shown}: no directory of a registered source, or a link has taken its place"
            raise Invalid(detail, field="root", code="root_not_allowed")


def _is_there(directory: Path) -> bool:
    """Return whether a tree is there. Where its disk is not mounted, there may be an empty directory."""
    try:
        return any(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _same(one: IndexRoot, other: IndexRoot) -> bool:
    return one.source == other.source


def _root(path: Path, known: KnownSources, name: str, *, worktree: bool) -> IndexRoot:
    """Return a path with its source, and that one's root."""
    top = work_tree_root(path)
    own_tree = top if top is not None and (worktree or is_linked_tree(top)) else None
    around = [
        (directory, source)
        for source, directory in known.roots()
        if path.is_relative_to(directory)
        and (not name or source == name)
        # A work tree inside of a source is no part of it: it holds the same files once more.
        and (own_tree is None or directory.is_relative_to(own_tree))
    ]
    if around:
        directory, source = max(around, key=lambda one: len(one[0].parts))
        return IndexRoot(path, directory, source)
    project = project_root(path, known.projects)
    return IndexRoot(path, project, name or (worktree_name if worktree else default_name)(project))


def is_linked_tree(directory: Path) -> bool:
    """Return whether a directory is the root of a linked work tree of git."""
    repository = open_repository(directory)
    return repository is not None and repository.is_linked


def default_name(project: Path) -> str:
    """Return the name of a source of that root: its repository's, or else the directory's."""
    repository = open_repository(project)
    for name in (repository.name if repository is not None else "", project.name):
        if allowed := allowed_name(name.encode(errors="replace").decode()):
            return allowed
    return "root"


def worktree_name(project: Path) -> str:
    """Return the name of a source that is one of several trees of a repository: the repository's and the directory's.

    Linked work trees have such a name already.
    """
    name, repository = default_name(project), open_repository(project)
    if repository is None or repository.is_linked:
        return name
    directory = project.name if project.name != name else project.parent.name
    return allowed_name(f"{name}@{directory}".encode(errors="replace").decode())


def _conflict(one: IndexRoot, before: Path) -> Invalid:
    project = one.project
    other = project.name if project.name != one.source else f"{project.parent.name}-{project.name}"
    another = one.source == default_name(project) != worktree_name(project)
    advice = "say --worktree if both are trees of one repository, or " if another else ""
    return Invalid(
        f"the source {one.source!r} is the tree at {before}, and {project} is another one;"
        f" {advice}give it another name, such as --source {allowed_name(other) or 'NAME'}",
        field="source",
        code="source_conflict",
    )
