"""Inclusion of what would be left out: patterns of `.penstockignore`, of `.ignore` and of the user.

The patterns are those of `.gitignore`, and `!` includes. A pattern with a slash is followed into directories that are
left out: `!vendor/acme/` includes that directory although `vendor` is not walked.
"""

# Strings and os.path, because the walk that asks here has no Path at hand.
# ruff: noqa: PTH118

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final, NamedTuple

from penstock.indexing.file_reader import FileChanged, read_bytes
from penstock.indexing.ignore import RULE_FILE_BYTES_MAX, IgnoreRules, parse_rules, work_tree_root
from penstock.kernel.errors import Invalid

log = logging.getLogger(__name__)

CHOICE_FILE: Final = ".penstockignore"
#: The file that search tools share: it includes what is left out here, but not what git ignores.
_SHARED_FILE: Final = ".ignore"
#: Later names win over earlier ones in the same directory.
CHOICE_FILES: Final = (_SHARED_FILE, CHOICE_FILE)


class Inclusion(NamedTuple):
    """Patterns of what is not left out, as in `.gitignore` and without `!`.

    Attributes:
        base: Directory that they are relative to.
        patterns: The patterns.
        is_kept: Whether they come from an earlier run; files of choices then stand above them.
    """

    base: Path
    patterns: Collection[str]
    is_kept: bool = False


class Choice(Enum):
    """Choice of the user for a file or directory."""

    INCLUDED = auto()
    """Indexed whatever git ignores and whatever is left out by itself."""
    SPARED = auto()
    """Not left out by itself."""
    EXCLUDED = auto()
    """Not indexed."""


@dataclass(frozen=True, slots=True)
class ChoiceRules:
    """Patterns of one file, relative to its directory.

    Attributes:
        rules: The patterns; what they ignore is excluded, what follows `!` is included.
        passages: The directories above what is included by a path.
        is_shared: Whether git's ignore rules stand above them.
    """

    rules: IgnoreRules
    passages: IgnoreRules
    is_shared: bool = False

    def choice(self, path: str, *, is_directory: bool) -> Choice | None:
        """Return what the patterns say of `path`, `None` where they say nothing."""
        ignores = self.rules.verdict(path, is_directory=is_directory)
        if ignores is None:
            return None
        if self.is_shared:
            return None if ignores else Choice.SPARED
        return Choice.EXCLUDED if ignores else Choice.INCLUDED


def parse_choices(base: str, lines: Collection[str], *, is_shared: bool = False) -> ChoiceRules:
    """Read the lines of a file of choices in the directory `base`."""
    return ChoiceRules(parse_rules(base, lines), parse_rules(base, _passages(lines)), is_shared)


def _passages(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        parts = line.removeprefix("!").strip().strip("/").split("/")
        if not line.startswith("!") or len(parts) < 2:
            continue
        for end in range(1, len(parts)):
            # What follows `**` may be at any depth.
            if parts[end - 1] == "**" and end > 1:
                yield "/".join(parts[:end])
                break
            if parts[end - 1] != "**":
                yield "/" * (end == 1) + "/".join(parts[:end]) + "/"


@dataclass(frozen=True, slots=True)
class ChoiceChain:
    """All choices that hold in one directory, the weakest first.

    Attributes:
        asked: The patterns that the user gave; they win over those of files.
        files: The files of choices, the nearest last.
    """

    asked: tuple[ChoiceRules, ...] = ()
    files: tuple[ChoiceRules, ...] = ()

    def choice(self, path: str, *, is_directory: bool) -> Choice | None:
        """Return what is chosen for an entry of this chain's directory."""
        for rules in reversed(self.files + self.asked):
            choice = rules.choice(path, is_directory=is_directory)
            if choice is not None:
                return choice
        return None

    def leads_on(self, path: str) -> bool:
        """Tell whether something may be included below the directory `path`."""
        return any(rules.passages.verdict(path, is_directory=True) for rules in self.asked + self.files)

    def descend(self, directory: str, names: Collection[str] = CHOICE_FILES) -> ChoiceChain:
        """Return the chain that holds inside `directory`, reading its files of choices.

        Args:
            directory: Absolute path, one below this chain's directory.
            names: Names of what is in it, where the caller knows them.
        """
        read = (_read_choices(directory, name) for name in CHOICE_FILES if name in names)
        found = tuple(rules for rules in read if rules is not None)
        return ChoiceChain(self.asked, self.files + found) if found else self


def enclosing_choices(root: Path, include: Iterable[Inclusion]) -> ChoiceChain:
    """Return the choices that hold for a root: those of the user, and of files above it in its git work tree."""
    asked: list[ChoiceRules] = []
    kept: list[ChoiceRules] = []
    for one in include:
        if root.is_relative_to(one.base):
            rules = parse_choices(str(one.base), [f"!{pattern}" for pattern in one.patterns])
            (kept if one.is_kept else asked).append(rules)
    chain = ChoiceChain(tuple(asked), tuple(kept))
    directory = work_tree_root(root)
    if directory is not None:
        for part in root.relative_to(directory).parts:
            chain, directory = chain.descend(str(directory)), directory / part
    return chain


def _read_choices(directory: str, name: str) -> ChoiceRules | None:
    path = os.path.join(directory, name)
    try:
        text = read_bytes(Path(path), RULE_FILE_BYTES_MAX).removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        return None
    except (OSError, FileChanged, Invalid) as error:
        log.warning("the patterns in %r cannot be read and are not used: %s", path, error)
        return None
    lines = text.decode(errors="surrogateescape").split("\n")
    return parse_choices(directory, lines, is_shared=name == _SHARED_FILE)
