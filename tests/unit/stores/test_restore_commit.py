"""Renames that are written down beforehand: whatever a crash leaves, the next start makes it whole."""

import threading

import pytest

from penstock.stores.backends.edge import restore_commit
from penstock.stores.backends.edge.restore_commit import (
    COMMIT_FILE,
    STAGING_DIR,
    DirectoryMove,
    commit_moves,
    finish_committed,
    staging_path,
    swap_in,
    sweep_staging,
    withdraw_commit,
)

MOVES = [
    DirectoryMove("collections-2", "c", "c~2"),
    DirectoryMove("collections-2", "d", ""),
    DirectoryMove("collections", "c", "c"),
    DirectoryMove("collections", "d", "d"),
]


def lay(directory, text):
    directory.mkdir(parents=True)
    (directory / "points").write_text(text)


def there(data_dir):
    """Return what every collection's directory holds, once what is being removed is gone."""
    for thread in threading.enumerate():
        if thread.name == "removal":
            thread.join()
    found = [path for path in data_dir.glob("collections*/*/points") if not path.parent.name.startswith(".gone-")]
    return {str(path.parent.relative_to(data_dir)): path.read_text() for path in found}


@pytest.fixture
def data_dir(tmp_path):
    """Return a data directory in which ``c`` and ``d`` are spread over two processes, and are to be replaced."""
    for shelf in ("collections", "collections-2"):
        for name in ("c", "d"):
            lay(tmp_path / shelf / name, "old")
    return tmp_path


@pytest.fixture
def staging(data_dir):
    staging = staging_path(data_dir)
    for part in ("c", "c~2", "d"):
        lay(staging / part, "new")
    return staging


OLD = {f"{shelf}/{name}": "old" for shelf in ("collections", "collections-2") for name in ("c", "d")}
NEW = {"collections/c": "new", "collections/d": "new", "collections-2/c": "new"}


def start(data_dir):
    """Do what a server does when it starts."""
    sweep_staging(data_dir)
    for shelf in ("collections", "collections-2"):
        finish_committed(data_dir / shelf)
    sweep_staging(data_dir)


def test_what_is_not_committed_is_removed(data_dir, staging):
    start(data_dir)
    assert there(data_dir) == OLD
    assert not (data_dir / STAGING_DIR).exists()


def test_what_is_committed_is_done_by_a_start_and_done_once(data_dir, staging):
    commit_moves(staging, MOVES)
    start(data_dir)
    assert there(data_dir) == NEW
    assert not (data_dir / STAGING_DIR).exists()
    start(data_dir)
    assert there(data_dir) == NEW


@pytest.mark.parametrize(("done", "half"), [(0, True), (1, False), (2, True), (3, False), (3, True), (4, False)])
def test_a_crash_after_any_rename_is_made_good(data_dir, staging, done, half):
    commit_moves(staging, MOVES)
    for move in MOVES[:done]:
        swap_in(staging / move.part if move.part else None, data_dir / move.shelf / move.name)
    if half and done < len(MOVES):
        # The one before is out of sight, and nothing is in its place yet.
        home = data_dir / MOVES[done].shelf / MOVES[done].name
        home.replace(home.with_name(".gone-1-1"))
    start(data_dir)
    assert there(data_dir) == NEW
    assert not (data_dir / STAGING_DIR).exists()


def test_what_is_withdrawn_is_not_done(data_dir, staging):
    commit_moves(staging, MOVES)
    withdraw_commit(staging)
    start(data_dir)
    assert there(data_dir) == OLD


def test_a_directory_that_cannot_be_moved_leaves_the_one_before(data_dir, staging, monkeypatch):
    replace = restore_commit.Path.replace

    def refuse(self, target):
        if self == staging / "c":
            raise OSError("no")
        return replace(self, target)

    monkeypatch.setattr(restore_commit.Path, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        swap_in(staging / "c", data_dir / "collections" / "c")
    assert there(data_dir) == OLD
    commit_moves(staging, MOVES)
    start(data_dir)
    assert there(data_dir) == {**NEW, "collections/c": "old"}
    monkeypatch.undo()
    start(data_dir)
    assert there(data_dir) == NEW


@pytest.mark.parametrize(
    "data", [b"", b"[", b"\xff", b"[" * 100_000, b'[{"shelf":"collections","name":"../../x","part":"c"}]']
)
def test_what_is_written_down_and_cannot_be_read_or_leads_elsewhere_moves_nothing(data_dir, staging, data):
    (staging / COMMIT_FILE).write_bytes(data)
    start(data_dir)
    assert there(data_dir) == OLD
    assert not (data_dir / STAGING_DIR).exists()
