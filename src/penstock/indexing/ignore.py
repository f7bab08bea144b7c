"""Ignore rules as git applies them: nested files, negation, and exclude files of the repository."""

# Strings and os.path, because the walk that asks here has no Path at hand.
# ruff: noqa: PTH116, PTH118, PTH123

import codecs
import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.indexing.git_index import WorkTree
from penstock.indexing.git_repository import open_repository
from penstock.indexing.wildmatch import Glob, literal_prefix_length

log = logging.getLogger(__name__)

#: Entries of a directory that change which rules hold in it. A repository has rules of its own, and of files of rules
#: the later ones win over the earlier ones.
IGNORE_FILES: Final = (".git", ".gitignore", ".ignore")
#: What is read of a rule file, and how many of its rules are used; the log tells of a file with more.
RULE_FILE_BYTES_MAX: Final = 1_000_000
RULES_MAX: Final = 10_000
#: Bytes of a rule, as many as a path may have. Each class of a pattern takes kilobytes while it is read.
RULE_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class _SuffixPattern:
    """A pattern such as `*.log`, the most common with a wild card: it needs no look at each character."""

    text: str

    def matches(self, text: str) -> bool:
        """Tell whether the pattern takes the whole text."""
        return text.endswith(self.text)


@dataclass(frozen=True, slots=True)
class _PatternRule:
    """A pattern with a wild card or a slash.

    Attributes:
        number: Its place in the file; later rules win.
        ignores: Whether it ignores or, after `!`, does not.
        directories_only: Whether it ended with a slash.
        is_path: Whether it is compared with the path below the file's directory rather than the name.
        plain: How it begins, up to its first wild card.
        rest: What follows; `None` where nothing does.
    """

    number: int
    ignores: bool
    directories_only: bool
    is_path: bool
    plain: str
    rest: Glob | _SuffixPattern | None

    def matches(self, path: str, name: str) -> bool:
        """Tell whether the rule names exactly this path, not one of its parents.

        The walk comes from above, so a parent's verdict has been given already.
        """
        text = path if self.is_path else name
        if self.rest is None:
            return text == self.plain
        return text.startswith(self.plain) and self.rest.matches(text[len(self.plain) :])


#: The number of a rule that is not there, and whether it ignores.
_NO_RULE: Final = (-1, False)


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The rules of one ignore file, relative to the directory `base`.

    Attributes:
        base: Absolute directory.
        of_git: Whether git reads the file: then what is tracked is not ignored.
        rules: Those that have to be tried one by one.
        names: The last of those that are a mere name, of which a file may have thousands.
        directory_names: The same for directories only.
    """

    base: str
    of_git: bool = True
    rules: list[_PatternRule] = field(default_factory=list)
    names: dict[str, tuple[int, bool]] = field(default_factory=dict)
    directory_names: dict[str, tuple[int, bool]] = field(default_factory=dict)

    def verdict(self, path: str, *, is_directory: bool) -> bool | None:
        """Return what the last matching rule says of `path`, `None` where no rule does."""
        relative = _bytes_of(path[len(self.base) :].lstrip(os.sep))
        name = relative.rpartition("/")[2]
        number, ignores = self.names.get(name, _NO_RULE)
        if is_directory:
            number, ignores = max((number, ignores), self.directory_names.get(name, _NO_RULE))
        for rule in reversed(self.rules):
            if rule.number < number:
                break
            if (is_directory or not rule.directories_only) and rule.matches(relative, name):
                return rule.ignores
        return ignores if number >= 0 else None

    def add(self, number: int, line: str) -> None:
        """Take in a line: one character for each byte, without its end.

        A line that git could not use is a rule that matches nothing.
        """
        ignores = not line.startswith("!")
        pattern = line if ignores else line[1:]
        directories_only = pattern.endswith("/")
        pattern = pattern.removesuffix("/")
        is_path = "/" in pattern
        # As in git, `**` at the end of the plain beginning counts as the pattern's beginning: `a**/c` crosses slashes.
        plain = literal_prefix_length(pattern)
        if plain == len(pattern) and not is_path:
            (self.directory_names if directories_only else self.names)[pattern] = (number, ignores)
            return
        rest: Glob | _SuffixPattern | None = None
        if not is_path and pattern.startswith("*") and literal_prefix_length(pattern[1:]) == len(pattern) - 1:
            rest = _SuffixPattern(pattern[1:])
        elif plain < len(pattern):
            rest = Glob(pattern[plain:] if is_path else pattern, is_path=is_path)
        begin = pattern[:plain].removeprefix("/") if is_path else ""
        self.rules.append(_PatternRule(number, ignores, directories_only, is_path, begin, rest))


def parse_rules(base: str, lines: Iterable[str], *, of_git: bool = True) -> IgnoreRules:
    """Read ignore rules as git does.

    Args:
        base: Absolute directory that the patterns are relative to.
        lines: Lines of a `.gitignore`; bytes that are no UTF-8 are lone surrogates in them.
        of_git: Whether git reads the file.

    Bounds:
        The first `RULES_MAX` rules, of at most `RULE_BYTES_MAX` bytes each.
    """
    rules, overlong = IgnoreRules(base, of_git), 0
    used = [line for line in lines if line and not line.startswith("#")]
    if len(used) > RULES_MAX:
        log.warning("an ignore file in %r has more than %d rules; the others are not used", base, RULES_MAX)
    for number, line in enumerate(used[:RULES_MAX]):
        rule = _bytes_of(_trimmed(line))
        if len(rule) <= RULE_BYTES_MAX:
            rules.add(number, rule)
        else:
            overlong += 1
    if overlong:
        log.warning("%d rules in %r are longer than %d bytes and not used", overlong, base, RULE_BYTES_MAX)
    return rules


def _bytes_of(text: str) -> str:
    """Return one character for each byte of the text in UTF-8, as git compares bytes."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode("latin-1")


def _trimmed(line: str) -> str:
    """Return a line without a carriage return and, unless they are escaped, spaces at its end."""
    line = line.removesuffix("\r").partition("\0")[0]
    end = len(line.rstrip(" "))
    escapes = end - len(line[:end].rstrip("\\"))
    # An escaped space is part of the name, spaces after it are not.
    return line[: end + 1] if escapes % 2 and end < len(line) else line[:end]


def _read_rules(base: str, path: str, *, in_tree: bool = True) -> IgnoreRules | None:
    """Return the rules of a file, `None` where it has none; as in git, a link in the tree is not followed."""
    try:
        status = os.lstat(path) if in_tree else os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return None
        with open(path, "rb") as file:
            text = file.read(RULE_FILE_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning("the ignore rules in %r cannot be read and are not used: %s", path, error.strerror or error)
        return None
    if len(text) > RULE_FILE_BYTES_MAX:
        log.warning("%r has more than %d bytes; the rules after them are not used", path, RULE_FILE_BYTES_MAX)
        text = text[:RULE_FILE_BYTES_MAX].rpartition(b"\n")[0]
    lines = text.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape").split("\n")
    rules = parse_rules(base, lines, of_git=not path.endswith("/.ignore"))
    return rules if rules.rules or rules.names or rules.directory_names else None


@dataclass(frozen=True, slots=True)
class IgnoreChain:
    """All rule files that hold in one directory, the weakest first.

    Attributes:
        files: Their rules; in a work tree there is at least one.
        work_tree: The git work tree that the directory is in.
    """

    files: tuple[IgnoreRules, ...] = ()
    work_tree: WorkTree | None = None

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Tell whether an entry of this chain's directory is ignored; the nearest file decides.

        What git tracks is ignored by other files than git's alone. A linked work tree holds the files of the one that
        it lies in once more, and is ignored.
        """
        tree = self.work_tree
        if is_directory and tree is not None and tree.holds_linked_tree(path):
            return True
        # No rule of git's takes back in what is in an ignored directory.
        inside = tree is not None and tree.is_partly_ignored(path)
        for rules in reversed(self.files):
            if inside and rules.of_git:
                continue
            verdict = rules.verdict(path, is_directory=is_directory)
            if verdict is not None:
                if verdict and rules.of_git and tree is not None:
                    return not tree.tracks(path, is_directory=is_directory)
                return verdict
        return inside and tree is not None and not tree.tracks(path, is_directory=is_directory)

    def descend(self, directory: str, names: Iterable[str] = IGNORE_FILES) -> "IgnoreChain":
        """Return the chain that holds inside `directory`, reading its rule files.

        Args:
            directory: Absolute path, one below this chain's directory.
            names: The entries of `IGNORE_FILES` that exist there, where the caller knows them.
        """
        wanted = set(names)
        chain = self._entered(directory) if ".git" in wanted else self
        read = (_read_rules(directory, os.path.join(directory, name)) for name in IGNORE_FILES[1:] if name in wanted)
        found = tuple(rules for rules in read if rules is not None)
        return IgnoreChain(chain.files + found, chain.work_tree) if found else chain

    def _entered(self, directory: str) -> "IgnoreChain":
        """Return the chain that holds in a work tree: git's rules from outside of it do not."""
        repository = open_repository(Path(directory))
        if repository is None:
            return self
        files = [repository.global_excludes(), repository.common_dir / "info" / "exclude"]
        read = [_read_rules(directory, str(file), in_tree=False) for file in files if file is not None]
        others = tuple(rules for rules in self.files if not rules.of_git)
        own = tuple(rules for rules in read if rules is not None) or (IgnoreRules(directory),)
        return IgnoreChain(others + own, WorkTree(repository))


def work_tree_root(path: Path) -> Path | None:
    """Return the nearest directory at or above `path` that holds `.git`, or `None`."""
    for directory in (path, *path.parents):
        if os.path.lexists(directory / ".git"):
            return directory
    return None


def enclosing_rules(path: Path) -> IgnoreChain | None:
    """Return the rules that the enclosing git work tree lays on `path`.

    Args:
        path: Absolute, resolved path of a file or directory.

    Returns:
        The chain of the directory that holds `path`; an empty chain where there is no work tree
        above it; `None` where the work tree ignores `path`, which then stands on its own (a Python
        below `~/.pyenv/versions`, say).
    """
    directory = work_tree_root(path)
    if directory is None:
        return IgnoreChain()
    chain = IgnoreChain()
    for part in path.relative_to(directory).parts:
        chain, directory = chain.descend(str(directory)), directory / part
        if chain.ignores(str(directory), is_directory=directory.is_dir()):
            return None
    return chain
