"""A repository's name and commit, beside what git itself says."""

import os
import subprocess
from pathlib import Path

import pytest

from penstock.indexing.git_repository import open_repository

QUIET = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=directory, env=QUIET, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main", "project")
    root = tmp_path / "project"
    (root / "a.py").write_text("a = 1\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    return root


@pytest.mark.parametrize("state", ["branch", "packed", "detached", "tag of the name"])
def test_the_commit_is_the_one_that_git_names(repository: Path, state: str) -> None:
    if state == "packed":
        git(repository, "pack-refs", "--all")
    elif state == "detached":
        git(repository, "checkout", "-q", "--detach")
    elif state == "tag of the name":
        git(repository, "commit", "-q", "--allow-empty", "-m", "two")
        git(repository, "tag", "main", "HEAD~1")
        git(repository, "pack-refs", "--all")
    found = open_repository(repository)
    assert found is not None
    assert found.commit == git(repository, "rev-parse", "HEAD")


def test_without_a_commit_there_is_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "fresh")
    found = open_repository(tmp_path / "fresh")
    assert found is not None
    assert (found.commit, found.name, found.is_linked) == ("", "fresh", False)


@pytest.mark.parametrize(
    "url",
    ["https://host/o/Name.git", "git@host:Name", "host:o/Name.git/", "/srv/Name", "ssh://u@h:22/Name.git"],
)
def test_the_name_is_that_of_origin(repository: Path, url: str) -> None:
    git(repository, "remote", "add", "upstream", "https://host/other.git")
    git(repository, "remote", "add", "origin", url)
    found = open_repository(repository)
    assert found is not None
    assert found.name == "Name"


def test_a_linked_work_tree_is_named_after_its_repository_and_itself(repository: Path) -> None:
    git(repository, "worktree", "add", "-q", "../linked", "-b", "other")
    linked = repository.parent / "linked"
    git(linked, "commit", "-q", "--allow-empty", "-m", "two")
    found = open_repository(linked)
    assert found is not None
    assert (found.name, found.is_linked) == ("project@linked", True)
    assert found.commit == git(linked, "rev-parse", "HEAD")


def test_a_submodule_is_a_repository_of_its_own(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "outer")
    outer = tmp_path / "outer"
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(repository), "inner")
    found = open_repository(outer / "inner")
    assert found is not None
    assert (found.name, found.is_linked) == ("project", False)
    assert found.commit == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (".git", "gitdir: /nowhere\n"),
        (".git", "gitdir: a\0b\n"),
        (".git", "x" * 100_000),
        (".git", ""),
        (".git/config", "["),
        (".git/HEAD", "ref: refs/../../../etc/passwd"),
        (".git/HEAD", "ref: refs/heads/\0"),
        (".git/HEAD", "x" * 100_000),
        (".git/commondir", "\0"),
    ],
)
def test_a_broken_repository_does_no_harm(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    found = open_repository(tmp_path)
    assert found is None or (found.commit, bool(found.name)) == ("", True)


def test_a_pipe_in_the_place_of_a_file_of_gits_is_no_hang(repository: Path) -> None:
    (repository / ".git" / "HEAD").unlink()
    os.mkfifo(repository / ".git" / "HEAD")
    found = open_repository(repository)
    assert found is not None
    assert found.commit == ""
