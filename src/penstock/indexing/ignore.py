"""Ignore rules as git applies them: nested files, negation, and exclude files of the repository."""

# Strings and os.path, because the walk that asks here has no Path at hand.
# ruff: noqa: PTH116, PTH118, PTH123

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pathspec import GitIgnoreSpec

#: Later names win over earlier ones in the same directory.
RULE_FILES: Final = (".gitignore", ".ignore")
RULE_FILE_BYTES_MAX: Final = 1_000_000
_EXCLUDE: Final = ".git/info/exclude"

# pathspec marks with this group the slash up to which a directory pattern matched.
_DIRECTORY_MARK: Final = "ps_d"


@dataclass(frozen=True, slots=True)
class _Rule:
    regex: re.Pattern[str]
    ignores: bool
    directories_only: bool

    def matches(self, path: str, *, is_directory: bool) -> bool:
        """Tell whether the rule names exactly this path, not one of its parents.

        The walk comes from above, so a parent's verdict has been given already; taking it again for
        the child would let `!*/` re-include every file.
        """
        if not self.directories_only:
            found = self.regex.search(path)
            return found is not None and found.groupdict().get(_DIRECTORY_MARK) is None
        if not is_directory:
            return False
        path += "/"
        # Unanchored patterns are reduced to a bare slash, which `search` would find too early.
        for found in (self.regex.search(path), self.regex.search(path, len(path) - 1)):
            if found is not None and found.end(_DIRECTORY_MARK) == len(path):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one ignore file, relative to the directory `base`."""

    base: str
    rules: tuple[_Rule, ...]

    def verdict(self, path: str, *, is_directory: bool) -> bool | None:
        """Return what the last matching rule says of `path`, `None` where no rule does."""
        relative = path[len(self.base) :].lstrip(os.sep).replace(os.sep, "/")
        for rule in reversed(self.rules):
            if rule.matches(relative, is_directory=is_directory):
                return rule.ignores
        return None


def parse_rules(base: str, lines: Iterable[str]) -> Rules:
    """Compile ignore lines; like git, drop the lines that are no valid pattern.

    Args:
        base: Absolute directory that the patterns are relative to.
        lines: Lines of a `.gitignore`.

    Returns:
        The compiled rules.
    """
    rules: list[_Rule] = []
    for line in lines:
        try:
            patterns = list(GitIgnoreSpec.from_lines([line]).patterns)
        except ValueError:
            continue
        for pattern in patterns:
            regex = getattr(pattern, "regex", None)
            if pattern.include is not None and regex is not None:
                text = line.rstrip("\n\r").rstrip(" ")
                rules.append(_Rule(regex, pattern.include, text.endswith("/")))
    return Rules(base, tuple(rules))


def _read_rules(base: str, name: str) -> Rules | None:
    path = os.path.join(base, name)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            lines = file.read(RULE_FILE_BYTES_MAX).split("\n")
    except OSError:
        return None
    rules = parse_rules(base, lines)
    return rules if rules.rules else None


@dataclass(frozen=True, slots=True)
class IgnoreChain:
    """All rule files that hold in one directory, the weakest first."""

    files: tuple[Rules, ...] = ()

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Tell whether an entry of this chain's directory is ignored; the nearest file decides."""
        for rules in reversed(self.files):
            verdict = rules.verdict(path, is_directory=is_directory)
            if verdict is not None:
                return verdict
        return False

    def entered(self, directory: str, names: Iterable[str] = RULE_FILES) -> "IgnoreChain":
        """Return the chain that holds inside `directory`, reading its rule files.

        Args:
            directory: Absolute path, one below this chain's directory.
            names: The rule files that exist there, where the caller knows them.
        """
        wanted = set(names)
        read = (_read_rules(directory, name) for name in RULE_FILES if name in wanted)
        found = tuple(rules for rules in read if rules is not None)
        return IgnoreChain(self.files + found) if found else self


def git_top(path: Path) -> Path | None:
    """Return the nearest directory at or above `path` that holds `.git`, or `None`."""
    for directory in (path, *path.parents):
        if os.path.lexists(directory / ".git"):
            return directory
    return None


def _steps(top: Path, path: Path) -> Iterator[Path]:
    step = top
    for part in path.relative_to(top).parts:
        step /= part
        yield step


def inherited(path: Path) -> IgnoreChain | None:
    """Return the rules that the enclosing git work tree lays on `path`.

    Args:
        path: Absolute, resolved path of a file or directory.

    Returns:
        The chain of the directory that holds `path`; an empty chain where there is no work tree
        above it; `None` where the work tree ignores `path`, which then stands on its own (a Python
        below `~/.pyenv/versions`, say).
    """
    top = git_top(path)
    if top is None or top == path:
        return IgnoreChain(_excluded(path)) if top is not None else IgnoreChain()
    chain = IgnoreChain(_excluded(top))
    directory = top
    for step in _steps(top, path):
        chain = chain.entered(str(directory))
        if chain.ignores(str(step), is_directory=step.is_dir()):
            return None
        directory = step
    return chain


def _excluded(top: Path) -> tuple[Rules, ...]:
    rules = _read_rules(str(top), _EXCLUDE)
    return (rules,) if rules is not None else ()
