"""Roots of indexed paths: the directory that shown paths are relative to, and a check for too broad ones."""

from collections.abc import Iterable
from pathlib import Path

from penstock.indexing.ignore import enclosing_rules, work_tree_root
from penstock.kernel.errors import Invalid


def project_root(path: Path, known_roots: Iterable[Path] = ()) -> Path:
    """Return the directory that shown paths are relative to.

    The nearest enclosing known root; else the enclosing git work tree, unless it ignores `path`;
    else `path` itself, or its parent where it is a file.

    Args:
        path: An existing file or directory.
        known_roots: Roots that the collection was indexed from before.

    Returns:
        An absolute, resolved directory.
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

    Args:
        path: What the user asked to index.

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
