"""What is written is for its owner alone; so is what was written before."""

import os
import stat

import pytest

from penstock.kernel.file_permissions import restrict_to_owner, set_private_umask


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def old(tmp_path):
    """A data directory as an older version left it."""
    root = tmp_path / "data"
    (root / "collections" / "x").mkdir(parents=True)
    (root / "collections" / "x" / "wal").write_text("points")
    (root / "snapshot").write_text("points")
    for path in (root, *root.rglob("*")):
        path.chmod(0o775 if path.is_dir() else 0o664)
    return root


def test_a_directory_of_an_older_version_is_taken_away_from_others_with_all_in_it(old):
    restrict_to_owner(old)
    found = {path.name: mode(path) for path in (old, *old.rglob("*"))}
    assert found == {"data": 0o700, "collections": 0o700, "x": 0o700, "wal": 0o600, "snapshot": 0o600}


def test_a_directory_that_is_private_is_not_looked_into(old):
    old.chmod(0o700)
    restrict_to_owner(old)
    assert mode(old / "snapshot") == 0o664


def test_what_a_link_leads_to_is_left_as_it_is(old, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o644)
    (old / "link").symlink_to(outside)
    restrict_to_owner(old)
    assert mode(outside) == 0o644


def test_what_is_anothers_is_left_as_it_is(old, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    restrict_to_owner(old)
    assert mode(old / "snapshot") == 0o664


def test_a_directory_that_is_not_there_is_no_matter(tmp_path):
    restrict_to_owner(tmp_path / "none")


def test_nobody_else_gets_anything_of_what_this_process_writes(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "umask", asked.append)
    set_private_umask()
    assert asked == [0o077]
