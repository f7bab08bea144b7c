"""The data directory, watched: gone, replaced, full, hanging."""

import os
import shutil
from types import SimpleNamespace

import pytest

from penstock.kernel.errors import Unavailable
from penstock.stores import directory_watch
from penstock.stores.directory_watch import HANG_TIMEOUT_S, WRITE_FREE_BYTES_MIN, DataDirectoryWatch
from penstock.stores.lock import LOCK_FILE, DirectoryLock, LockHolder, find_lock_holder


@pytest.fixture
def lock(tmp_path):
    lock = DirectoryLock(tmp_path / "data")
    lock.acquire()
    yield lock
    lock.release()


@pytest.fixture
def watch(lock):
    return DataDirectoryWatch(lock.directory, lock.lost_reason)


def test_a_directory_that_is_as_it_was_gives_no_reason(watch):
    watch.check()
    assert (watch.reasons(), watch.warnings()) == ([], [])


def test_a_directory_that_is_gone_or_another_one_is_a_reason_not_to_be_ready(lock, watch):
    shutil.rmtree(lock.directory)
    watch.check()
    assert "is gone" in watch.reasons()[0]
    lock.directory.mkdir()
    (lock.directory / LOCK_FILE).touch()
    watch.check()
    assert "is another one" in watch.reasons()[0]


def test_a_full_disk_is_a_warning(watch, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=WRITE_FREE_BYTES_MIN - 1))
    watch.check()
    assert watch.reasons() == []
    assert "nothing is written" in watch.warnings()[0]


def test_a_disk_that_does_not_answer_is_a_reason(watch, monkeypatch):
    monkeypatch.setattr(directory_watch, "time", SimpleNamespace(monotonic=lambda: 100.0))
    watch.check()
    monkeypatch.setattr(directory_watch, "time", SimpleNamespace(monotonic=lambda: 100.0 + HANG_TIMEOUT_S))
    assert "does not answer" in watch.reasons()[0]


def test_nobody_is_told_of_a_directory_that_was_given_back(lock):
    lock.release()
    assert lock.lost_reason() == ""


def test_a_lock_is_held_though_there_is_no_room_to_say_by_whom(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("penstock.stores.lock.os.pwrite", full)
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    assert find_lock_holder(tmp_path) is not None
    lock.publish(LockHolder(os.getpid(), "http://127.0.0.1:1"))
    lock.release()
    assert find_lock_holder(tmp_path) is None


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (30, "copy it to a disk that can be written"),
        (13, "change its owner"),
        (28, "free some room"),
        (20, "--data-dir"),
    ],
)
def test_a_directory_that_cannot_be_used_is_told_with_what_to_do(tmp_path, monkeypatch, number, cure):
    def refused(*_, **__):  # a thread of another test may still remove its files
        raise OSError(number, "Refused")

    monkeypatch.setattr("penstock.stores.lock.os.open", refused)
    with pytest.raises(Unavailable, match=cure) as caught:
        DirectoryLock(tmp_path).acquire()
    assert caught.value.code == "directory_unusable"
