"""A tree is walked as `git status` sees it, and nothing in it makes anything run."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.indexing.walk import FoundFile, walk

QUIET = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return git with a home directory of its own, which the walk has too."""
    home = tmp_path / "home"
    (home / ".config" / "git").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)

    def run(directory: Path, *arguments: str) -> str:
        command = ["git", "-c", "protocol.file.allow=always", *arguments]
        environ = {**QUIET, "HOME": str(home)}
        return subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=True).stdout

    return run


def grow(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text\n")


def found(*roots: Path) -> set[str]:
    return {str(one.path.relative_to(roots[0])) for one in walk(roots) if isinstance(one, FoundFile)}


def kept_by_git(git: Callable[..., str], root: Path) -> set[str]:
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return {name for name in listed.split("\0") if name and (root / name).is_file()}


@pytest.fixture
def repository(git: Callable[..., str], tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main", "project")
    root = tmp_path / "project"
    grow(root, "src/kept.py")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    return root


def test_excludes_that_are_in_no_gitignore_hold_in_every_work_tree(
    git: Callable[..., str], repository: Path, tmp_path: Path
) -> None:
    (repository / ".git" / "info" / "exclude").write_text("scratch/\n")
    (tmp_path / "home" / ".config" / "git" / "ignore").write_text("*.local.py\n")
    git(repository, "worktree", "add", "-q", "../linked", "-b", "other")
    for root in (repository, tmp_path / "linked"):
        grow(root, "scratch/s.py", "src/mine.local.py", "src/new.py")
        assert found(root) == kept_by_git(git, root) == {"src/kept.py", "src/new.py"}
        assert found(root / "src") == {"kept.py", "new.py"}


@pytest.mark.parametrize("where", ["global", "local", "quoted", "home", "none"])
def test_the_file_of_global_excludes_is_the_one_that_git_reads(
    git: Callable[..., str], repository: Path, tmp_path: Path, where: str
) -> None:
    (tmp_path / "home" / ".config" / "git" / "ignore").write_text("*.default\n")
    (tmp_path / "home" / "my ignore").write_text("*.mine\n")
    path = {"home": "~/my ignore", "none": ""}.get(where, str(tmp_path / "home" / "my ignore"))
    git(repository, "config", "--local" if where == "local" else "--global", "core.excludesFile", path)
    if where == "quoted":
        (tmp_path / "home" / ".gitconfig").write_text(
            f'[Core]\n\tpager = less # as always\n\texcludesfile="{path}" ; mine'
        )
    grow(repository, "a.default", "a.mine")
    assert found(repository) == kept_by_git(git, repository)


def test_tracked_files_count_even_if_they_are_ignored(git: Callable[..., str], repository: Path) -> None:
    (repository / ".gitignore").write_text("build/\n*.gen\n!build/deep/taken.py\n")
    grow(repository, "build/kept.py", "build/left.py", "build/deep/kept.gen", "build/deep/taken.py", "a.gen", "b.gen")
    git(repository, "add", "-f", "build/kept.py", "build/deep/kept.gen", "a.gen")
    kept = {"src/kept.py", ".gitignore", "build/kept.py", "build/deep/kept.gen", "a.gen"}
    assert found(repository) == kept_by_git(git, repository) == kept
    assert found(repository / "build") == {"kept.py", "deep/kept.gen"}
    # What is left out for the search alone is left out whether it is tracked or not.
    (repository / ".ignore").write_text("build/deep/\n")
    assert "build/deep/kept.gen" not in found(repository)


def test_a_repository_inside_of_another_has_rules_of_its_own(git: Callable[..., str], repository: Path) -> None:
    (repository / ".gitignore").write_text("*.txt\n/left/\n")
    (repository / ".ignore").write_text("*.csv\n")
    for name in ("inner", "left"):
        git(repository, "init", "-q", name)
        (repository / name / ".git" / "info" / "exclude").write_text("scratch/\n")
        grow(repository, f"{name}/z.py", f"{name}/a.txt", f"{name}/a.csv", f"{name}/scratch/y.py")
    kept = {"src/kept.py", ".gitignore", ".ignore", "inner/z.py", "inner/a.txt"}
    assert found(repository) == kept
    assert found(repository / "inner") == {"z.py", "a.txt", "a.csv"}
    assert kept_by_git(git, repository / "inner") == {"z.py", "a.txt", "a.csv"}


def test_a_submodule_is_walked_with_its_own_excludes(git: Callable[..., str], repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "outer")
    outer = tmp_path / "outer"
    git(outer, "submodule", "add", "-q", str(repository), "vendor-ed/module")
    (outer / ".gitignore").write_text("vendor-ed/\n")
    (outer / ".git" / "modules" / "vendor-ed" / "module" / "info" / "exclude").write_text("scratch/\n")
    grow(outer, "vendor-ed/module/scratch/y.py", "vendor-ed/module/new.py", "vendor-ed/left.py")
    assert found(outer) == {
        ".gitignore",
        ".gitmodules",
        "vendor-ed/module/src/kept.py",
        "vendor-ed/module/new.py",
    }


def test_work_trees_kept_inside_of_their_repository_come_once(git: Callable[..., str], repository: Path) -> None:
    for name in ("one", "two"):
        git(repository, "worktree", "add", "-q", f".worktrees/{name}", "-b", name)
    assert found(repository) == {"src/kept.py"}
    one = repository / ".worktrees" / "one"
    assert found(one) == {"src/kept.py"}
    assert found(repository, one) == {"src/kept.py", ".worktrees/one/src/kept.py"}


def test_a_hostile_repository_makes_nothing_run(
    git: Callable[..., str], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "run.sh"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o700)
    for key in ("core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "diff.x.textconv", "filter.x.clean"):
        git(repository, "config", key, str(program))
    git(repository, "config", "core.hooksPath", str(tmp_path))
    git(repository, "config", "include.path", "/dev/zero")
    (repository / ".gitattributes").write_text("* filter=x diff=x\n")
    (repository / ".gitignore").write_text("*.gen\n")
    grow(repository, "a.gen")
    monkeypatch.setenv("PATH", "")
    assert found(repository) == {"src/kept.py", ".gitattributes", ".gitignore"}
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("target", ["/dev/zero", "fifo", "..", "/"])
def test_what_is_no_file_in_the_place_of_one_of_gits_is_not_read(
    git: Callable[..., str], repository: Path, target: str
) -> None:
    if target == "fifo":
        os.mkfifo(repository.parent / "fifo")
        target = str(repository.parent / "fifo")
    git(repository, "config", "core.excludesFile", target)
    for name in ("index", "info/exclude", "commondir"):
        (repository / ".git" / name).unlink(missing_ok=True)
        (repository / ".git" / name).symlink_to(target)
    (repository / ".gitignore").write_text("*.py\n")
    assert found(repository) == {".gitignore"}
