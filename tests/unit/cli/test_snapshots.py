"""A snapshot goes to where it is wanted whole, or stays where it was made."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from penstock.cli.snapshots import check_not_existing, check_regular_file, move_snapshot
from penstock.kernel.errors import Invalid, Unavailable


@pytest.fixture
def made(tmp_path):
    file = tmp_path / "data" / "made.snapshot"
    file.parent.mkdir()
    file.write_bytes(b"snapshot")
    return file


def other_file_system(monkeypatch, made):
    """Let no rename lead away from the data directory."""
    replace = Path.replace

    def refuse(self, target):
        if self == made:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)


@pytest.mark.parametrize("across", [False, True])
def test_it_is_moved_within_a_file_system_and_to_another(monkeypatch, tmp_path, made, across):
    if across:
        other_file_system(monkeypatch, made)
    move_snapshot(made, tmp_path / "wanted")
    assert (tmp_path / "wanted").read_bytes() == b"snapshot"
    assert not made.exists()


def test_where_there_is_no_room_nothing_is_left_and_it_stays_where_it_was(monkeypatch, tmp_path, made):
    other_file_system(monkeypatch, made)

    def full(_, target):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(Unavailable, match=r"No space left.*made\.snapshot") as caught:
        move_snapshot(made, tmp_path / "wanted")
    assert caught.value.code == "disk_full"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert made.exists()


def test_what_is_no_plain_file_is_not_restored(tmp_path, made):
    os.mkfifo(tmp_path / "pipe")
    check_regular_file(made)
    for other in (tmp_path / "pipe", Path(os.devnull), tmp_path):
        with pytest.raises(Invalid, match="no plain file"):
            check_regular_file(other)


def test_where_no_file_can_be_is_refused_with_the_reason(tmp_path):
    with pytest.raises(Invalid, match="is a directory; name a file in it"):
        check_not_existing(tmp_path, force=True)
    with pytest.raises(Invalid, match="there is no such directory"):
        check_not_existing(tmp_path / "absent" / "x.snapshot", force=True)
