"""Shown paths begin at the project; the whole machine is no project."""

from pathlib import Path

import pytest

from penstock.indexing.walk import project_root, refuse_broad_root
from penstock.kernel.errors import Invalid


def test_project_root_is_the_work_tree(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert project_root(tmp_path / "a" / "b") == tmp_path


def test_project_root_of_an_ignored_path_is_the_path(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("/versions\n")
    (tmp_path / "versions" / "3").mkdir(parents=True)
    assert project_root(tmp_path / "versions" / "3") == tmp_path / "versions" / "3"


def test_project_root_of_a_lone_file_is_its_directory(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    assert project_root(tmp_path / "a.py") == tmp_path


def test_nearest_known_root_wins(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert project_root(inner, [tmp_path, tmp_path / "a", tmp_path / "c"]) == tmp_path / "a"


@pytest.mark.parametrize("path", ["/", "home", "home/.."])
def test_machine_and_home_are_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(Invalid) as raised:
        refuse_broad_root(tmp_path / path)
    assert raised.value.code == "root_too_broad"


def test_project_in_the_home_directory_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    refuse_broad_root(tmp_path / "project")
