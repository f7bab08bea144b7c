"""The index is read as git reads it, and what is no index does no harm."""

import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from penstock.indexing import git_index
from penstock.indexing.git_index import WorkTree, parse_index, tracked_files
from penstock.indexing.git_repository import GitRepository, open_repository

QUIET = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
NAMES = [b"a", b"b c", b"dir/a", b"dir/sub/deep/" + b"n" * 200, b"\xff\xfe", "ö日本".encode(), b"x" * 7, b"x" * 8, b"-"]


def git(directory: Path, *arguments: str, data: bytes = b"") -> bytes:
    done = subprocess.run(["git", *arguments], cwd=directory, env=QUIET, input=data, capture_output=True, check=True)
    return done.stdout


def opened(directory: Path) -> GitRepository:
    found = open_repository(directory)
    assert found is not None
    return found


def filled(root: Path, *, object_format: str = "sha1", names: list[bytes] = NAMES) -> Path:
    git(root.parent, "init", "-q", f"--object-format={object_format}", root.name)
    blob = git(root, "hash-object", "-w", "--stdin").decode().strip()
    lines = b"".join(b"100644 %s 0\t%s\0" % (blob.encode(), name) for name in names)
    git(root, "update-index", "-z", "--index-info", data=lines)
    return root


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
@pytest.mark.parametrize("change", ["version 2", "version 4", "intent to add", "split", "split and changed"])
def test_the_names_are_those_that_git_lists(tmp_path: Path, object_format: str, change: str) -> None:
    root = filled(tmp_path / "r", object_format=object_format)
    (root / "new").write_text("new\n")
    if change.startswith("version"):
        git(root, "update-index", f"--index-version={change[-1]}", "--force-write-index")
    elif change == "intent to add":
        git(root, "add", "-N", "new")
    else:
        git(root, "update-index", "--split-index")
        if change.endswith("changed"):
            git(root, "-c", "splitIndex.maxPercentChange=100", "add", "new")
    listed = {os.fsdecode(name) for name in git(root, "ls-files", "-z").split(b"\0") if name}
    assert set(tracked_files(opened(root))) == listed
    assert len(listed) >= len(NAMES)


def test_conflicting_and_linked_entries_are_names_like_others(tmp_path: Path) -> None:
    root = filled(tmp_path / "r")
    blob = git(root, "hash-object", "-w", "--stdin").strip()
    stages = b"".join(b"100644 %s %d\tboth\0" % (blob, stage) for stage in (1, 2, 3))
    git(root, "update-index", "-z", "--index-info", data=stages + b"160000 " + b"1" * 40 + b" 0\tmodule\0")
    assert {"both", "module"} <= set(tracked_files(opened(root)))
    tree = WorkTree(opened(root))
    assert tree.tracks(str(root / "module"), is_directory=True)
    assert not tree.is_partly_ignored(str(root / "module" / "x"))
    assert tree.tracks(str(root / "dir"), is_directory=True)
    assert tree.is_partly_ignored(str(root / "dir" / "x"))
    assert not tree.tracks(str(root / "dir" / "x"), is_directory=False)


def test_what_is_cut_off_or_changed_is_refused_or_read_without_harm(tmp_path: Path) -> None:
    root = filled(tmp_path / "r")
    chance = random.Random(1)
    for version in ("2", "4"):
        git(root, "update-index", f"--index-version={version}", "--force-write-index")
        data = (root / ".git" / "index").read_bytes()
        for _ in range(2000):
            broken = bytearray(data[: chance.randrange(len(data) + 1)])
            for _ in range(chance.randrange(3)):
                if broken:
                    broken[chance.randrange(len(broken))] = chance.randrange(256)
            try:
                names, _ = parse_index(bytes(broken))
            except (ValueError, IndexError, struct.error):
                continue
            assert len(names) <= len(data)


@pytest.mark.parametrize(
    "data", [b"", b"DIRC", b"DIRC\0\0\0\2\xff\xff\xff\xff", b"DIRC\0\0\0\5\0\0\0\0", b"not an index", bytes(1000)]
)
def test_no_index_is_no_tracked_file(tmp_path: Path, data: bytes) -> None:
    root = filled(tmp_path / "r", names=[b"a"])
    (root / ".git" / "index").write_bytes(data)
    assert list(tracked_files(opened(root))) == []


def test_an_index_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = filled(tmp_path / "r")
    monkeypatch.setattr(git_index, "INDEX_BYTES_MAX", 100)
    assert list(tracked_files(opened(root))) == []


def test_an_index_whose_shared_part_is_gone_still_tells_its_own_entries(tmp_path: Path) -> None:
    root = filled(tmp_path / "r")
    (root / "new").write_text("new\n")
    git(root, "update-index", "--split-index")
    git(root, "-c", "splitIndex.maxPercentChange=100", "add", "new")
    for shared in (root / ".git").glob("sharedindex.*"):
        shared.unlink()
    assert set(tracked_files(opened(root))) == {"new"}
    shutil.rmtree(root / ".git")
    assert open_repository(root) is None
