"""What is found, what is skipped, and why."""

# os functions, because Path and rmtree recurse on deep trees.
# ruff: noqa: PTH102, PTH106, PTH107

import os
import socket
from pathlib import Path

import pytest

from penstock.indexing.walk import FoundFile, SkippedPath, SkipReason, walk
from penstock.kernel.errors import Invalid


def make(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def seen(root: Path, *paths: Path, file_bytes_max: int = 1_000_000) -> dict[str, str]:
    entries = walk(paths or (root,), file_bytes_max)
    return {
        str(entry.path.relative_to(root)): "found" if isinstance(entry, FoundFile) else entry.reason.value
        for entry in entries
    }


def test_files_come_sorted_with_their_sizes(tmp_path: Path) -> None:
    make(tmp_path, {"b/z.py": "1", "b/a.py": "22", "a.py": "333", "c.py": "4"})
    found = [entry for entry in walk([tmp_path]) if isinstance(entry, FoundFile)]
    assert [str(one.path.relative_to(tmp_path)) for one in found] == [
        "a.py",
        "b/a.py",
        "b/z.py",
        "c.py",
    ]
    assert [one.size for one in found] == [3, 2, 1, 1]


def test_nested_ignore_files_and_negation_hold(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            ".gitignore": "*.log\nout/\n!out/kept.py\n",
            "a.log": "x",
            "out/kept.py": "x",
            "sub/.gitignore": "!a.log\n/only.py\n",
            "sub/a.log": "x",
            "sub/only.py": "x",
            "sub/deep/only.py": "x",
            ".ignore": "private.py\n",
            "private.py": "x",
            ".github/ci.yml": "x",
        },
    )
    result = seen(tmp_path)
    assert result["a.log"] == "ignored"
    assert result["out"] == "ignored"
    assert "out/kept.py" not in result
    assert result["sub/a.log"] == "found"
    assert result["sub/only.py"] == "ignored"
    assert result["sub/deep/only.py"] == "found"
    assert result["private.py"] == "ignored"
    assert result[".github/ci.yml"] == "found"


def test_rules_from_above_hold_inside_a_work_tree(tmp_path: Path) -> None:
    make(tmp_path, {".git/info/exclude": "secret.py\n", ".gitignore": "*.tmp\n/s/gone.py\n"})
    make(tmp_path, {"s/secret.py": "x", "s/a.tmp": "x", "s/gone.py": "x", "s/kept.py": "x"})
    assert seen(tmp_path, tmp_path / "s") == {
        "s/a.tmp": "ignored",
        "s/gone.py": "ignored",
        "s/kept.py": "found",
        "s/secret.py": "ignored",
    }


def test_rules_from_above_are_dropped_where_they_ignore_the_named_path(tmp_path: Path) -> None:
    make(tmp_path, {".git/HEAD": "x", ".gitignore": "/versions\n*.py\n", "versions/3/a.py": "x"})
    assert seen(tmp_path, tmp_path / "versions" / "3") == {"versions/3/a.py": "found"}
    assert seen(tmp_path, tmp_path / "versions" / "3" / "a.py") == {"versions/3/a.py": "found"}


def test_rules_from_above_need_a_work_tree(tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": "*.py\n", "s/a.py": "x"})
    assert seen(tmp_path, tmp_path / "s") == {"s/a.py": "found"}


def test_vendored_directories_count_once(tmp_path: Path) -> None:
    make(tmp_path, {"node_modules/a/b.js": "x", "node_modules/c.js": "x", "my_env/pyvenv.cfg": "x"})
    make(
        tmp_path,
        {"my_env/lib/a.py": "x", "data/penstock.lock": "x", "data/a.txt": "x", ".git/config": "x"},
    )
    assert seen(tmp_path) == dict.fromkeys([".git", "data", "my_env", "node_modules"], "vendored")


def test_named_roots_are_walked_whatever_their_name(tmp_path: Path) -> None:
    make(
        tmp_path,
        {"vendor/a.py": "x", "vendor/vendor/b.py": "x", "env/pyvenv.cfg": "x", "uv.lock": "x"},
    )
    assert seen(tmp_path, tmp_path / "vendor", tmp_path / "env", tmp_path / "uv.lock") == {
        "vendor/a.py": "found",
        "vendor/vendor": "vendored",
        "env/pyvenv.cfg": "found",
        "uv.lock": "found",
    }


def test_content_and_size_are_reasons_to_skip(tmp_path: Path) -> None:
    make(
        tmp_path,
        {"uv.lock": "x", "a.bin": b"a\x00b", "a.png": "x", "big.txt": "x" * 11, "empty.py": ""},
    )
    make(tmp_path, {"wide.txt": "é".encode("utf-16"), "fits.txt": "x" * 10})
    assert seen(tmp_path, file_bytes_max=10) == {
        "a.bin": "binary",
        "a.png": "binary",
        "big.txt": "too_large",
        "empty.py": "empty",
        "fits.txt": "found",
        "uv.lock": "lock_file",
        "wide.txt": "found",
    }


def test_links_are_never_followed(tmp_path: Path) -> None:
    make(tmp_path, {"in/a.py": "x", "in/d/b.py": "x", "out/c.py": "x"})
    inside = tmp_path / "in"
    links = {
        "file": inside / "a.py",
        "dir": inside / "d",
        "away": tmp_path / "out" / "c.py",
        "up": inside,
    }
    for name, target in {**links, "self": inside / "self", "gone": inside / "nothing"}.items():
        (inside / name).symlink_to(target)
    reasons = {name.removeprefix("in/"): reason for name, reason in seen(tmp_path, inside).items()}
    assert reasons == {
        "a.py": "found",
        "d/b.py": "found",
        "file": "symlink",
        "dir": "symlink",
        "away": "symlink_outside",
        "up": "symlink_loop",
        "self": "symlink_loop",
        "gone": "symlink_broken",
    }


def test_fifos_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert seen(tmp_path) == {"fifo": "not_a_file", "socket": "not_a_file"}


def test_unreadable_directory_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, {"shut/a.py": "x", "z.py": "x"})
    scandir = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("shut"):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert seen(tmp_path) == {"shut": "unreadable", "z.py": "found"}


def test_a_file_below_two_roots_comes_once(tmp_path: Path) -> None:
    make(tmp_path, {"a/b/c.py": "x"})
    entries = list(walk([tmp_path, tmp_path / "a", tmp_path, tmp_path / "a" / "b" / "c.py"]))
    assert [entry.path.name for entry in entries] == ["c.py"]


def test_deep_trees_do_not_exhaust_the_stack(tmp_path: Path) -> None:
    levels = [str(tmp_path) + "/d" * depth for depth in range(1, 1500)]
    for level in levels:
        os.mkdir(level)
    Path(levels[-1], "a.py").write_text("x")
    assert [entry.path.name for entry in walk([tmp_path])] == ["a.py"]
    # Python's own rmtree would recurse, so pytest cannot clean up what is left here.
    os.remove(levels[-1] + "/a.py")
    for level in reversed(levels):
        os.rmdir(level)


def test_missing_path_is_invalid_before_the_walk_begins(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as raised:
        walk([tmp_path, tmp_path / "absent"])
    assert raised.value.code == "path_not_found"
    assert "absent" in str(raised.value)


def test_skips_carry_their_reason(tmp_path: Path) -> None:
    make(tmp_path, {"yarn.lock": "x"})
    assert list(walk([tmp_path])) == [SkippedPath(tmp_path / "yarn.lock", SkipReason.LOCK_FILE)]
