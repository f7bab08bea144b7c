"""File walk: finds the files to index below the named paths, and the reasons why others are skipped."""

# Strings and os.path, because a Path for each entry would double the walk's time.
# Lists of names are read as lists of names, not as columns of quotes.
# ruff: noqa: PTH116, PTH119, PTH120, SIM905

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from penstock.indexing.ignore import IGNORE_FILES, IgnoreChain, enclosing_rules, work_tree_root
from penstock.kernel.errors import Invalid

VENDORED_DIRECTORIES: Final = frozenset(
    """
    .git .hg .svn .bzr .jj CVS _darcs
    node_modules bower_components jspm_packages vendor third_party thirdparty site-packages
    dist-packages .venv .tox .nox .eggs .mypy_cache .ruff_cache .pytest_cache .hypothesis
    __pycache__ .ipynb_checkpoints .idea .gradle .terraform .bundle .yarn .pnpm-store .next .nuxt
    .svelte-kit .parcel-cache .cache .penstock Pods DerivedData
    """.split()
)

#: A directory that holds one of these is an environment or a data directory, whatever its name.
VENDORED_MARKERS: Final = frozenset({"pyvenv.cfg", "penstock.lock"})

LOCK_FILES: Final = frozenset(
    """
    package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock
    poetry.lock uv.lock pdm.lock Pipfile.lock pixi.lock conda-lock.yml pylock.toml
    requirements.lock requirements-lock.txt requirements-dev.lock
    Cargo.lock Gemfile.lock Podfile.lock Package.resolved composer.lock mix.lock rebar.lock
    go.sum go.work.sum gradle.lockfile packages.lock.json paket.lock pubspec.lock flake.lock
    Chart.lock .terraform.lock.hcl MODULE.bazel.lock
    """.split()
)

BINARY_EXTENSIONS: Final = frozenset(
    """
    pyc pyo pyd so dylib dll exe o a class jar war ear wasm node pdb ilk elf ko
    zip gz tgz bz2 xz zst lz4 7z rar tar whl egg deb rpm apk dmg iso img cab msi
    png jpg jpeg gif bmp ico icns webp tif tiff psd avif heic jp2 xcf
    mp3 mp4 m4a m4v wav ogg oga ogv flac aac avi mov mkv webm wmv
    ttf otf woff woff2 eot
    pdf doc docx xls xlsx ppt pptx odt ods odp epub mobi
    sqlite sqlite3 mdb parquet feather arrow npy npz h5 hdf5 pkl pickle joblib pt pth onnx
    safetensors gguf tflite mo gmo swp swo keystore jks p12 pfx der
    """.split()
)


def is_binary_name(name: str) -> bool:
    """Tell whether the extension alone says that the file is not text."""
    return name.rpartition(".")[2].lower() in BINARY_EXTENSIONS and "." in name[1:]


SNIFF_BYTES: Final = 8_192
#: Byte order marks of encodings in which text holds NUL bytes.
_WIDE_MARKS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


class SkipReason(StrEnum):
    """Reason why a file, or a directory with all that is in it, is not indexed."""

    IGNORED = "ignored"
    VENDORED = "vendored"
    LOCK_FILE = "lock_file"
    BINARY = "binary"
    TOO_LARGE = "too_large"
    EMPTY = "empty"
    SYMLINK = "symlink"
    SYMLINK_OUTSIDE = "symlink_outside"
    SYMLINK_LOOP = "symlink_loop"
    SYMLINK_BROKEN = "symlink_broken"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable"


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


def walk(paths: Sequence[Path], file_bytes_max: int = 1_000_000) -> Iterator[FoundFile | SkippedPath]:
    """Walk `paths` in sorted order, with `.gitignore` semantics.

    A named path is a root: names that are skipped elsewhere (`vendor`, a lock file) are not skipped
    there, and ignore rules from above that exclude the root itself are dropped. Links are never
    followed. Nothing but regular files is opened. A file below two of the roots comes once.

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
    return _walk_roots(list(dict.fromkeys(roots)), file_bytes_max)


def _walk_roots(roots: Sequence[Path], file_bytes_max: int) -> Iterator[FoundFile | SkippedPath]:
    walker = _Walker(tuple(map(str, roots)), file_bytes_max)
    reported: set[Path] = set()
    nested = any(one != other and one.is_relative_to(other) for one in roots for other in roots)
    for root in roots:
        for entry in walker.root(root):
            if not nested:
                yield entry
            elif entry.path not in reported:
                reported.add(entry.path)
                yield entry


@dataclass(frozen=True, slots=True)
class _Walker:
    roots: tuple[str, ...]
    file_bytes_max: int

    def root(self, root: Path) -> Iterator[FoundFile | SkippedPath]:
        try:
            status = root.lstat()
        except OSError:
            yield SkippedPath(root, SkipReason.UNREADABLE)
            return
        if not stat.S_ISDIR(status.st_mode):
            yield self._file(str(root), status)
            return
        chain = enclosing_rules(root)
        yield from self._tree(str(root), IgnoreChain() if chain is None else chain)

    def _tree(self, root: str, chain: IgnoreChain) -> Iterator[FoundFile | SkippedPath]:
        # An explicit stack: a path may be nested deeper than Python recurses.
        stack = [self._directory(root, chain, is_root=True)]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
            elif isinstance(step, FoundFile | SkippedPath):
                yield step
            else:
                stack.append(self._directory(*step))

    def _directory(
        self, directory: str, chain: IgnoreChain, *, is_root: bool = False
    ) -> Iterator[FoundFile | SkippedPath | tuple[str, IgnoreChain]]:
        """Yield a directory's files and skips, and subdirectories (path, rules) to walk."""
        try:
            with os.scandir(directory) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            yield SkippedPath(Path(directory), SkipReason.UNREADABLE)
            return
        names = {entry.name for entry in entries}
        if not is_root and not VENDORED_MARKERS.isdisjoint(names):
            yield SkippedPath(Path(directory), SkipReason.VENDORED)
            return
        if not names.isdisjoint(IGNORE_FILES):
            chain = chain.descend(directory, names)
        for entry in entries:
            yield self._entry(entry, chain)

    def _entry(self, entry: os.DirEntry[str], chain: IgnoreChain) -> FoundFile | SkippedPath | tuple[str, IgnoreChain]:
        try:
            if entry.is_symlink():
                return self._link(entry, chain)
            is_directory = entry.is_dir(follow_symlinks=False)
            # `.git` is a file in submodules and linked work trees.
            if (is_directory and entry.name in VENDORED_DIRECTORIES) or entry.name == ".git":
                return SkippedPath(Path(entry.path), SkipReason.VENDORED)
            if chain.files and chain.ignores(entry.path, is_directory=is_directory):
                return SkippedPath(Path(entry.path), SkipReason.IGNORED)
            if is_directory:
                return entry.path, chain
            return self._file(entry.path, entry.stat(follow_symlinks=False), entry.name)
        except OSError:
            return SkippedPath(Path(entry.path), SkipReason.UNREADABLE)

    def _link(self, entry: os.DirEntry[str], chain: IgnoreChain) -> SkippedPath:
        path = Path(entry.path)
        if chain.files and chain.ignores(entry.path, is_directory=False):
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

    def _file(self, path: str, status: os.stat_result, name: str = "") -> FoundFile | SkippedPath:
        """Judge a file; `name` is empty for one that the user named, which may be a lock file."""
        reason: SkipReason | None = None
        if not stat.S_ISREG(status.st_mode):
            reason = SkipReason.NOT_A_FILE
        elif name in LOCK_FILES:
            reason = SkipReason.LOCK_FILE
        elif status.st_size == 0:
            reason = SkipReason.EMPTY
        elif is_binary_name(os.path.basename(path)):
            reason = SkipReason.BINARY
        elif status.st_size > self.file_bytes_max:
            reason = SkipReason.TOO_LARGE
        else:
            reason = _sniff(path)
        return SkippedPath(Path(path), reason) if reason is not None else FoundFile(Path(path), status.st_size)


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _sniff(path: str) -> SkipReason | None:
    """Return why the file's first bytes forbid indexing it, if they do."""
    try:
        # Non-blocking, because a FIFO may have taken the file's place since it was looked at.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            head = os.read(descriptor, SNIFF_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return SkipReason.UNREADABLE
    return SkipReason.BINARY if b"\x00" in head and not head.startswith(_WIDE_MARKS) else None


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
