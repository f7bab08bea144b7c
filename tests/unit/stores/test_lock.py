"""One process holds a data directory; others learn who."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from penstock.kernel.errors import Unavailable
from penstock.stores.lock import LOCK_FILE, DirectoryLock, LockHolder, find_lock_holder


def refusal(lock: DirectoryLock) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        lock.acquire()
    return caught.value


def test_a_directory_is_made_held_and_given_back(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    lock = DirectoryLock(directory)
    assert find_lock_holder(directory) is None
    lock.acquire()
    assert find_lock_holder(directory) == LockHolder(os.getpid())
    lock.publish(LockHolder(os.getpid(), "http://127.0.0.1:8080"))
    assert find_lock_holder(directory) == LockHolder(os.getpid(), "http://127.0.0.1:8080")
    lock.release()
    assert find_lock_holder(directory) is None


def test_a_second_holder_is_refused_and_told_who_and_where(tmp_path: Path) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    first.acquire()
    first.publish(LockHolder(os.getpid(), "http://127.0.0.1:8080"))
    error = refusal(second)
    assert error.code == "directory_locked"
    assert f"process {os.getpid()}, serving http://127.0.0.1:8080" in error.detail
    first.release()
    second.acquire()
    second.release()


def test_a_refused_one_takes_nothing_from_the_holder(tmp_path: Path) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    first.acquire()
    refusal(second)
    second.release()
    second.publish(LockHolder(os.getpid(), "http://impostor"))
    assert find_lock_holder(tmp_path) == LockHolder(os.getpid())
    first.release()


@pytest.mark.parametrize("content", [b"", b"not json", b'{"pid": "x"}'])
def test_a_holder_that_has_not_said_who_it_is_still_holds(tmp_path: Path, content: bytes) -> None:
    first = DirectoryLock(tmp_path)
    first.acquire()
    (tmp_path / LOCK_FILE).write_bytes(content)
    assert find_lock_holder(tmp_path) == LockHolder(0)
    assert "held by another process" in refusal(DirectoryLock(tmp_path)).detail
    first.release()


def test_what_a_killed_holder_left_behind_does_not_count(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_bytes(b'{"pid":1,"url":"http://127.0.0.1:8080"}')
    assert find_lock_holder(tmp_path) is None
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    assert find_lock_holder(tmp_path) == LockHolder(os.getpid())  # a shorter entry leaves nothing of the longer
    lock.release()


def test_asking_who_holds_it_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).touch()
    assert find_lock_holder(tmp_path) is None
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    lock.release()


def test_giving_back_twice_is_once(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()
    lock.acquire()
    lock.release()


def test_a_file_in_the_directory_s_place_is_a_clear_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refusal(DirectoryLock(tmp_path / "file"))
    assert error.code == "directory_unusable"
    assert str(tmp_path / "file") in error.detail


def test_a_file_system_without_locks_is_a_clear_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(fd: int, _operation: int) -> None:
        opened.append(fd)
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    opened: list[int] = []
    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert refusal(DirectoryLock(tmp_path)).code == "directory_unusable"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_somebody_who_only_asks_does_not_keep_the_directory_from_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = DirectoryLock(tmp_path)
    taken.acquire()
    taken.release()
    asking = os.open(tmp_path / LOCK_FILE, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(asking, fcntl.LOCK_UN))
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    assert find_lock_holder(tmp_path) == LockHolder(os.getpid())
    lock.release()
    os.close(asking)


def test_a_pipe_in_the_lock_file_s_place_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK_FILE)
    assert find_lock_holder(tmp_path) is None


@pytest.mark.parametrize(
    "damage", [b"", b'{"pid":1,"url":"\xff"}', b"[" * 100_000], ids=("empty", "no UTF-8", "nested")
)
def test_a_holder_that_cannot_be_read_is_one_all_the_same(tmp_path: Path, damage: bytes) -> None:
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    (tmp_path / LOCK_FILE).write_bytes(damage)
    assert find_lock_holder(tmp_path) == LockHolder(0)
    lock.release()
