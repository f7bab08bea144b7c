"""The user's choice stands above what is left out, and leads into directories that are."""

import os
from pathlib import Path

import pytest

from penstock.indexing.inclusion import Inclusion
from penstock.indexing.walk import FoundFile, walk

TREE = {
    "src/a.py": "x",
    "src/vendor/own.py": "x",
    "src/vendor/uv.lock": "x",
    "vendor/acme/own.py": "x",
    "vendor/acme/deep/own.py": "x",
    "vendor/other.py": "x",
    "third_party/x/y/ours.py": "x",
    "third_party/x/theirs.py": "x",
    "build/made.py": "x",
    "build/kept/a.py": "x",
    "app.min.js": "x",
    "logo.svg": "<svg/>",
    ".env": "x",
    ".gitignore": "build/\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, text in TREE.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def found(root: Path, *include: str, below: str = "") -> set[str]:
    entries = walk([root / below], include=[Inclusion(root / below, include)])
    names = {str(entry.path.relative_to(root)) for entry in entries if isinstance(entry, FoundFile)}
    return {name for name in names if not name.rpartition("/")[2].startswith((".gitignore", ".penstock", ".ignore"))}


def test_by_itself_the_walk_leaves_out_what_is_not_the_users(tree: Path) -> None:
    assert found(tree) == {"src/a.py"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("vendor/", {"src/vendor/own.py", "vendor/acme/own.py", "vendor/acme/deep/own.py", "vendor/other.py"}),
        ("/vendor/", {"vendor/acme/own.py", "vendor/acme/deep/own.py", "vendor/other.py"}),
        ("vendor/acme/", {"vendor/acme/own.py", "vendor/acme/deep/own.py"}),
        ("vendor/acme/own.py", {"vendor/acme/own.py"}),
        ("src/vendor", {"src/vendor/own.py"}),
        ("third_party/**/ours.py", {"third_party/x/y/ours.py"}),
        ("**/acme/deep", set()),
        ("build/", {"build/made.py", "build/kept/a.py"}),
        ("build/kept/", {"build/kept/a.py"}),
        ("*.min.js", {"app.min.js"}),
        ("*.svg", {"logo.svg"}),
        (".env", {".env"}),
        ("nothing", set()),
    ],
)
def test_a_pattern_includes_what_is_left_out(tree: Path, pattern: str, names: set[str]) -> None:
    assert found(tree, pattern) == {"src/a.py"} | names
    (tree / ".penstockignore").write_text(f"!{pattern}\n")
    assert found(tree) == {"src/a.py"} | names


def test_a_file_of_choices_excludes_too_and_its_last_line_wins(tree: Path) -> None:
    (tree / ".penstockignore").write_text("a.py\n!vendor/\nsrc/vendor\n")
    assert found(tree) == {"vendor/acme/own.py", "vendor/acme/deep/own.py", "vendor/other.py"}


def test_the_nearest_file_of_choices_wins_and_the_users_pattern_wins_over_it(tree: Path) -> None:
    (tree / ".penstockignore").write_text("!*.py\n")
    (tree / "src" / ".penstockignore").write_text("a.py\n")
    assert found(tree) == set()
    assert found(tree, "a.py") == {"src/a.py"}


def test_choices_from_above_hold_inside_a_work_tree(tree: Path) -> None:
    (tree / ".git").mkdir()
    (tree / ".penstockignore").write_text("!vendor/\n")
    assert found(tree, below="src") == {"src/a.py", "src/vendor/own.py"}


def test_the_file_that_search_tools_share_spares_but_stands_below_git(tree: Path) -> None:
    (tree / ".ignore").write_text("!vendor/\n!*.svg\nother.py\n")
    assert found(tree) == {
        "src/a.py",
        "src/vendor/own.py",
        "vendor/acme/own.py",
        "vendor/acme/deep/own.py",
        "logo.svg",
    }


def test_what_git_includes_again_is_not_taken_for_a_wish(tree: Path) -> None:
    (tree / ".gitignore").write_text("*.svg\n!logo.svg\n!vendor/\n")
    assert found(tree) == {"src/a.py", "build/made.py", "build/kept/a.py"}


def test_the_repository_itself_is_never_included(tree: Path) -> None:
    (tree / ".git").mkdir()
    (tree / ".git" / "config").write_text("x")
    assert found(tree, ".git/", "*") & {".git/config"} == set()


def test_a_named_file_is_found_whatever_its_name_and_content_say(tree: Path) -> None:
    (tree / "bundle.js").write_text("var x=1;" * 9000)
    for name in ("app.min.js", "logo.svg", ".env", "bundle.js"):
        assert next(one.path.name for one in walk([tree, tree / name]) if isinstance(one, FoundFile)) == name


def test_files_of_choices_that_cannot_be_used_are_told(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tree / ".penstockignore")
    assert found(tree) == {"src/a.py"}
    assert ".penstockignore" in caplog.text
