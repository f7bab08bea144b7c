"""File walk: finds the files to index below the named paths, and the reasons why others are skipped."""

# Strings and os.path, because a Path for each entry would double the walk's time.
# ruff: noqa: PTH116, PTH120

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from penstock.indexing import notebook
from penstock.indexing.exclusion import (
    SNIFF_BYTES,
    VENDORED_DIRECTORIES,
    VENDORED_MARKERS,
    SkipReason,
    extension_of,
    is_binary,
    judge_content,
    judge_name,
)
from penstock.indexing.file_reader import open_in_place
from penstock.indexing.ignore import IGNORE_FILES, IgnoreChain, enclosing_rules, work_tree_root
from penstock.indexing.inclusion import CHOICE_FILES, Choice, ChoiceChain, Inclusion, enclosing_choices
from penstock.kernel.errors import Invalid

#: A notebook may be so many times as large as other files: most of it are outputs, which are not indexed.
NOTEBOOK_SIZE_FACTOR: Final = 16


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A text file to index: its absolute path and its size in bytes."""

    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class SkippedPath:
    """A file, or a directory counted once for all that is in it, that is not indexed."""

    path: Path
    reason: SkipReason


def walk(
    paths: Sequence[Path], file_bytes_max: int = 1_000_000, include: Sequence[Inclusion] = ()
) -> Iterator[FoundFile | SkippedPath]:
    """Walk `paths` in sorted order, with `.gitignore` semantics.

    A named path is a root: what is skipped elsewhere (`vendor`, a lock file) is not skipped there, and ignore rules
    from above that exclude the root itself are dropped. Links are never followed. Nothing but regular files is opened.
    A file below two of the roots comes once.

    Args:
        paths: Files and directories.
        file_bytes_max: Larger files are skipped.
        include: Patterns of what is not skipped.

    Yields:
        Each file, and each skipped file or directory with its reason.

    Raises:
        Invalid: A path does not exist; raised before anything is walked.
    """
    roots: list[Path] = []
    for path in paths:
        try:
            roots.append(path.resolve(strict=True))
        except (OSError, RuntimeError) as error:
            raise Invalid(f"{path}: no such file or directory", field="path", code="path_not_found") from error
    walker = _Walker(tuple(map(str, dict.fromkeys(roots))), file_bytes_max, tuple(include))
    return _walk_roots(list(dict.fromkeys(roots)), walker)


def _walk_roots(roots: Sequence[Path], walker: _Walker) -> Iterator[FoundFile | SkippedPath]:
    reported: set[Path] = set()
    nested = any(one != other and one.is_relative_to(other) for one in roots for other in roots)
    for root in sorted(roots, key=lambda root: -len(root.parts)) if nested else roots:
        for entry in walker.root(root):
            if not nested:
                yield entry
            elif entry.path not in reported:
                reported.add(entry.path)
                yield entry


class _Place(NamedTuple):
    """A directory to walk.

    Attributes:
        path: Its absolute path.
        rules: Ignore rules that hold for it.
        choices: The user's choices that hold for it.
        reason: Why it is left out; what is in it is skipped but for what is included.
        is_chosen: Whether the user named or included it.
    """

    path: str
    rules: IgnoreChain
    choices: ChoiceChain
    reason: SkipReason | None = None
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class _Walker:
    roots: tuple[str, ...]
    file_bytes_max: int
    include: tuple[Inclusion, ...]

    def root(self, root: Path) -> Iterator[FoundFile | SkippedPath]:
        try:
            status = root.lstat()
        except OSError:
            yield SkippedPath(root, SkipReason.UNREADABLE)
            return
        if not stat.S_ISDIR(status.st_mode):
            yield self.judge(str(root), status, root.name, is_chosen=True)
            return
        rules = enclosing_rules(root)
        choices = enclosing_choices(root, self.include)
        yield from self._tree(_Place(str(root), IgnoreChain() if rules is None else rules, choices, is_chosen=True))

    def _tree(self, place: _Place) -> Iterator[FoundFile | SkippedPath]:
        # An explicit stack: a path may be nested deeper than Python recurses.
        stack = [self._directory(place)]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
            elif isinstance(step, _Place):
                stack.append(self._directory(step))
            else:
                yield step

    def _directory(self, place: _Place) -> Iterator[FoundFile | SkippedPath | _Place]:
        """Yield a directory's files and skips, and subdirectories to walk."""
        try:
            with os.scandir(place.path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            yield SkippedPath(Path(place.path), SkipReason.UNREADABLE)
            return
        names = {entry.name for entry in entries}
        if not place.is_chosen and not VENDORED_MARKERS.isdisjoint(names):
            yield SkippedPath(Path(place.path), SkipReason.VENDORED)
            return
        if not names.isdisjoint(IGNORE_FILES):
            place = place._replace(rules=place.rules.descend(place.path, names))
        if not names.isdisjoint(CHOICE_FILES):
            place = place._replace(choices=place.choices.descend(place.path, names))
        for entry in entries:
            yield self._entry(entry, place)

    def _entry(self, entry: os.DirEntry[str], place: _Place) -> FoundFile | SkippedPath | _Place:
        try:
            if entry.is_symlink():
                return self._link(entry, place.rules)
            is_directory = entry.is_dir(follow_symlinks=False)
            choices, choice = place.choices, None
            if choices.asked or choices.files:
                choice = choices.choice(entry.path, is_directory=is_directory)
            reason = self._reason(entry, place, choice, is_directory=is_directory)
            if is_directory:
                if reason is not None and not choices.leads_on(entry.path):
                    return SkippedPath(Path(entry.path), reason)
                return _Place(entry.path, place.rules, choices, reason, choice is not None)
            if reason is not None:
                return SkippedPath(Path(entry.path), reason)
            return self.judge(entry.path, entry.stat(follow_symlinks=False), entry.name, is_chosen=choice is not None)
        except OSError:
            return SkippedPath(Path(entry.path), SkipReason.UNREADABLE)

    def _reason(
        self, entry: os.DirEntry[str], place: _Place, choice: Choice | None, *, is_directory: bool
    ) -> SkipReason | None:
        """Return why an entry is left out whatever it holds; what the user chose stands above it."""
        reason = place.reason
        # `.git` is a file in submodules and linked work trees.
        if entry.name == ".git" or (is_directory and reason is None and entry.name in VENDORED_DIRECTORIES):
            reason = SkipReason.VENDORED
        if choice is not None and entry.name != ".git":
            if choice is not Choice.SPARED:
                return None if choice is Choice.INCLUDED else SkipReason.IGNORED
            reason = reason if reason is SkipReason.IGNORED else None
        rules = place.rules
        if reason is None and rules.files and rules.ignores(entry.path, is_directory=is_directory):
            reason = SkipReason.IGNORED
        return reason

    def _link(self, entry: os.DirEntry[str], rules: IgnoreChain) -> SkippedPath:
        path = Path(entry.path)
        if rules.files and rules.ignores(entry.path, is_directory=False):
            return SkippedPath(path, SkipReason.IGNORED)
        target = os.path.realpath(entry.path)
        try:
            os.stat(entry.path)
        except OSError as error:
            looping = error.errno == errno.ELOOP
            return SkippedPath(path, SkipReason.SYMLINK_LOOP if looping else SkipReason.SYMLINK_BROKEN)
        if _is_within(os.path.dirname(entry.path), target):
            return SkippedPath(path, SkipReason.SYMLINK_LOOP)
        inside = any(_is_within(target, root) for root in self.roots)
        return SkippedPath(path, SkipReason.SYMLINK if inside else SkipReason.SYMLINK_OUTSIDE)

    def judge(self, path: str, status: os.stat_result, name: str, *, is_chosen: bool) -> FoundFile | SkippedPath:
        """Judge a file by its kind and, unless the user named or included it, by its name and its beginning."""
        reason: SkipReason | None = None
        extension = extension_of(name)
        if not stat.S_ISREG(status.st_mode):
            reason = SkipReason.NOT_A_FILE
        elif not is_chosen and (by_name := judge_name(name, extension)) is not None:
            reason = by_name
        elif status.st_size == 0:
            reason = SkipReason.EMPTY
        elif status.st_size > self.file_bytes_max and not self._is_notebook(name, status.st_size):
            reason = SkipReason.TOO_LARGE
        elif isinstance(head := _read_head(path), SkipReason):
            reason = head
        elif is_chosen:
            reason = SkipReason.BINARY if is_binary(head) else None
        else:
            reason = judge_content(extension, head, status.st_size)
        return SkippedPath(Path(path), reason) if reason is not None else FoundFile(Path(path), status.st_size)

    def _is_notebook(self, name: str, size: int) -> bool:
        return name.endswith(notebook.SUFFIX) and size <= self.file_bytes_max * NOTEBOOK_SIZE_FACTOR


def is_left_out(path: Path, top: Path) -> bool:
    """Tell whether a walk of `top` leaves out `path`, which lies below it, unless the user chooses otherwise."""
    directories = [one for one in (path, *path.parents) if one.is_relative_to(top) and one != top and one.is_dir()]
    marked = any(os.path.lexists(one / marker) for one in directories for marker in VENDORED_MARKERS)
    if marked or any(one.name in VENDORED_DIRECTORIES for one in directories) or enclosing_rules(path) is None:
        return True
    if path.is_dir():
        return False
    walker, status = _Walker((), sys.maxsize, ()), path.stat()
    chosen, unchosen = (walker.judge(str(path), status, path.name, is_chosen=is_chosen) for is_chosen in (True, False))
    return isinstance(chosen, FoundFile) and isinstance(unchosen, SkippedPath)


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _read_head(path: str) -> bytes | SkipReason:
    """Return the file's first bytes, or why there are none."""
    try:
        descriptor = open_in_place(path)
        try:
            return os.read(descriptor, SNIFF_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return SkipReason.UNREADABLE


def project_root(path: Path, known_roots: Iterable[Path] = ()) -> Path:
    """Return the directory that shown paths are relative to, absolute and resolved.

    The nearest enclosing known root; else the enclosing git work tree, unless it ignores `path`;
    else `path` itself, or its parent where it is a file.

    Args:
        path: An existing file or directory.
        known_roots: Roots that the collection was indexed from before.
    """
    path = path.resolve()
    enclosing = [root for root in (known.resolve() for known in known_roots) if path.is_relative_to(root)]
    if enclosing:
        return max(enclosing, key=lambda root: len(root.parts))
    top = work_tree_root(path)
    if top is not None and enclosing_rules(path) is not None:
        return top
    return path if path.is_dir() else path.parent


def refuse_broad_root(path: Path) -> None:
    """Refuse to index the whole machine or a whole home directory.

    Raises:
        Invalid: `path` is `/`, the home directory, or a directory above it.
    """
    resolved = path.resolve()
    try:
        home = Path.home().resolve()
    except RuntimeError:  # no home directory can be told
        home = Path(resolved.anchor)
    if resolved == Path(resolved.anchor) or home.is_relative_to(resolved):
        message = f"{resolved} is too broad to index; name a project below it, or use --force"
        raise Invalid(message, field="path", code="root_too_broad")
