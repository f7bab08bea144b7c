"""Ignore files mean what they mean to git: thousands of generated ones, read by git and by the walk."""

# Lists of names are read as lists of names, not as columns of quotes.
# ruff: noqa: SIM905

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from penstock.indexing.walk import FoundFile, SkipReason, walk

SEEDS: Final = (1, 2, 3)
TREES: Final = 500
PATHS: Final = 10
NO_CONFIGURATION: Final = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}

_LETTERS: Final = "aaabbbcx"
_ODD: Final = ".-_]![^ \\#A0ö\t*?"
_PIECES: Final = (
    *("a", "b", "c", "ab", ".", "-", "x", "A", "0", "ö"),
    *("*", "*", "*", "?", "**", "**", "***", "/", "/", "/", "**/", "/**", "/**/", "*/", "/*"),
    *(
        "[ab]",
        "[!a]",
        "[^a]",
        "[a-c]",
        "[c-a]",
        "[a-]",
        "[-a]",
        "[]a]",
        "[!]a]",
        "[]-a]",
        "[\\]x]",
        "[a\\-c]",
        "[\\a-c]",
    ),
    *(
        "[[:alpha:]]",
        "[![:alpha:]]",
        "[[:digit:]x]",
        "[[:upper:]]",
        "[[:space:]]",
        "[[:punct:]]",
        "[[:none:]]",
        "[[:a]",
    ),
    *(
        "[[:]",
        "[[:alpha:]-c]",
        "[a[:digit:]",
        "[",
        "[a",
        "[]",
        "[!]",
        "]",
        "\\",
        "\\*",
        "\\a",
        "\\ ",
        "\\/",
        "\\\\",
        "\\[",
    ),
    *(" ", "!", "#", "\t", "a ", "\\!", "{a,b}", "+", "(a)", "$", "|"),
)
_ENDS: Final = ("", "", "", "", "/", "/", " ", "  ", "\\ ", "\\  ", "\t", "\r", "\\", " \\ ", "\0x", " /")


def _pattern(chance: random.Random) -> str:
    body = "".join(chance.choice(_PIECES) for _ in range(chance.choice((1, 1, 2, 2, 3, 4, 6))))
    return chance.choice(("", "", "", "!", "/", "!/", "#")) + body + chance.choice(_ENDS)


def _rules(chance: random.Random) -> bytes:
    mark = chance.choice(("", "", "", "\ufeff"))
    end = chance.choice(("\n", "\n", "\r\n"))
    lines = [_pattern(chance) for _ in range(chance.randint(1, 4))]
    return (mark + end.join(lines) + chance.choice(("", end))).encode()


def _name(chance: random.Random, letters: str) -> str:
    return "".join(chance.choice(letters) for _ in range(chance.choice((1, 1, 2, 2, 3)))).replace("/", "") or "a"


def _path(chance: random.Random, text: str) -> str:
    """Return a path of a few letters, or of what stands in the rules, so that many are matched."""
    letters = chance.choice((_LETTERS, _LETTERS + _ODD, text.replace("/", "") or _LETTERS))
    names = [_name(chance, letters) for _ in range(chance.choice((1, 1, 2, 3, 4)))]
    return "/".join(name for name in names if name not in {".", ".."} and "\0" not in name and "\n" not in name)


def _grow(tree: Path, chance: random.Random) -> None:
    rules = _rules(chance)
    text = "".join(one for one in rules.decode(errors="replace") if one.isprintable() and one not in "�\ufeff")
    tree.mkdir()
    (tree / ".gitignore").write_bytes(rules)
    for _ in range(PATHS):
        file = tree / _path(chance, text)
        if file == tree or any(one.is_file() for one in (file, *file.parents)) or file.is_dir():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text\n")
        if file.parent != tree and chance.random() < 0.2 and not (file.parent / ".gitignore").exists():
            (file.parent / ".gitignore").write_bytes(_rules(chance))


def _kept_by_git(root: Path) -> set[str]:
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, check=True, env=os.environ | NO_CONFIGURATION).stdout
    return {os.fsdecode(name) for name in listed.split(b"\0") if name}


def _kept_by_us(root: Path) -> Iterator[str]:
    for entry in walk([root]):
        # Left out for what it holds, not by a rule: a name such as `x.a`, a rule file with a NUL.
        if isinstance(entry, FoundFile) or entry.reason is SkipReason.BINARY:
            yield str(entry.path.relative_to(root))


def _repository(root: Path) -> None:
    subprocess.run(["git", "init", "-q", str(root)], check=True, env=os.environ | NO_CONFIGURATION)
    (root / ".git" / "info" / "exclude").unlink(missing_ok=True)


def _differences(root: Path) -> dict[str, bytes]:
    theirs, ours = _kept_by_git(root), set(_kept_by_us(root))
    differing = theirs ^ ours
    assert len(theirs) > 0
    return {
        f"{'git' if path in theirs else 'the walk'} keeps {path!r}": (
            root / path.split("/")[0] / ".gitignore"
        ).read_bytes()
        for path in sorted(differing)[:20]
    }


@pytest.fixture(autouse=True)
def without_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be ignored because the user's own configuration of git says so."""
    for name, value in {**NO_CONFIGURATION, "HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"}.items():
        monkeypatch.setenv(name, value)


def _track(root: Path, chance: random.Random, version: int) -> None:
    """Add some of the files to the index, whether they are ignored or not."""
    files = [str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() and ".git" not in file.parts]
    names = "\0".join(chance.sample(sorted(files), len(files) // 10)).encode()
    command = ["git", "-C", str(root), "-c", f"index.version={version}", "add", "-f", "--pathspec-from-file=-"]
    literally = os.environ | {"GIT_LITERAL_PATHSPECS": "1"}
    subprocess.run([*command, "--pathspec-file-nul"], input=names, check=True, env=literally)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("version", [0, 2, 4])
def test_generated_rules_keep_what_git_keeps(tmp_path: Path, seed: int, version: int) -> None:
    _repository(tmp_path)
    chance = random.Random(seed)
    for number in range(TREES // 3 if version else TREES):
        _grow(tmp_path / f"t{number}", chance)
    if version:
        _track(tmp_path, chance, version)
    assert _differences(tmp_path) == {}


NAMES: Final = """
    a.txt b.txt A.TXT dir/a.txt dir/sub/a.txt dir/sub/b.log build/x.txt build/keep.txt src/build/y.txt src/build.txt
    foo/bar/baz.txt foo/x/bar/baz.txt logs/1.log logs/keep.log logs/deep/2.log docs/a.md docs/.hidden.md #hash.txt
    !bang.txt back\\slash.txt [x].txt x.txt y-z.txt tmp1.txt tmp12.txt tmp/t.txt node/a/b/c.txt deep/a/b/c/d.txt
    öäü.txt star*.txt q?.txt abc ab/c/z.txt ab/d/c a/b/c.txt a/c.txt a/x/y/c.txt ].txt -.txt ^.txt ~ {a,b}.txt
""".split()
LINES: Final = """
    *.txt /a.txt dir/ dir dir/* dir/** **/a.txt dir/**/a.txt /build build/|!build/keep.txt build/*|!build/keep.txt
    *|!*.md|!*/ /*|!/dir /*|!/dir|/dir/*|!/dir/sub *.log|!keep.log \\#hash.txt #hash.txt \\!bang.txt !bang.txt
    back\\\\slash.txt [x].txt \\[x\\].txt [!a].txt [^a].txt y[-]z.txt tmp? tmp?.txt foo/*/bar foo/**/bar **/bar */ **
    **/ /** / // öäü.txt ö* ??????.txt star\\*.txt q\\?.txt [[:alpha:]].txt [[:digit:]]* []x].txt [\\]x].txt [!]x].txt
    a**/c a**/c.txt a**c.txt **/b/** a/**/c.txt *.[a-Z] [z-a].txt log[_-.]* [a-\\]] [[:nosuch:]]* [[:space:]]* x[9-0]
    ./a.txt ../a.txt dir//a.txt a.txt/ [a.txt a.txt\\ \\a.txt {a,b}.txt ***/a.txt dir*** /*/a.txt !**/ **/**/a.txt [
    [] [!] [a \\ ! *a*a*a*b *\\ ? ?* *.t[xy]t [+--].txt [a-]b
""".split()


@pytest.mark.parametrize("lines", LINES)
def test_a_rule_keeps_what_git_keeps(tmp_path: Path, lines: str) -> None:
    _repository(tmp_path)
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text\n")
    (tmp_path / ".gitignore").write_text(lines.replace("|", "\n") + "\n")
    assert set(_kept_by_us(tmp_path)) == _kept_by_git(tmp_path)
