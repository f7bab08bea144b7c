from __future__ import annotations

import datetime as dt

import pytest

from penstock.kernel.errors import Invalid
from penstock.stores.backends.edge.snapshot_files import SnapshotFiles

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def test_snapshots_of_one_second_are_listed_in_the_order_they_were_made(tmp_path):
    files = SnapshotFiles(tmp_path, keep=0)
    (tmp_path / "mine.snapshot").touch()
    made = []
    for _ in range(11):
        file = files.new_path(NOW)
        file.touch()
        made.append(file.name)
    assert [told.name for told in files.list_snapshots()] == ["mine.snapshot", *made]


def test_the_first_of_one_second_is_removed_first(tmp_path):
    files = SnapshotFiles(tmp_path, keep=2)
    for _ in range(11):
        last = files.new_path(NOW)
        last.touch()
        files.prune(last)
    assert [told.name[-12:] for told in files.list_snapshots()] == ["-10.snapshot", "-11.snapshot"]


def test_a_directory_is_no_snapshot(tmp_path):
    (tmp_path / "directory").mkdir()
    files = SnapshotFiles(tmp_path, keep=0)
    assert files.list_snapshots() == []
    with pytest.raises(Invalid, match="no snapshot"):
        files.delete("directory")
    assert (tmp_path / "directory").is_dir()
