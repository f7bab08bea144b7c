"""Files are their owner's alone; what is no plain file is refused at once, what is too long is not read whole."""

import os
import stat
from pathlib import Path

import pytest

from penstock.kernel.files import read_regular, restrict_to_owner, set_private_umask


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


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("lay", [pipe, endless, sparse, loop, Path.mkdir])
def test_what_is_no_small_plain_file_is_refused_at_once(tmp_path, lay):
    lay(tmp_path / "file")
    with pytest.raises(OSError, match=r"/file'"):
        read_regular(tmp_path / "file")


def test_a_plain_file_is_read_up_to_its_bound(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"four")
    assert read_regular(file, 4) == b"four"
    with pytest.raises(OSError, match="longer than 3 bytes"):
        read_regular(file, 3)
