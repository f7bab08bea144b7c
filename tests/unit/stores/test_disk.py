import errno
import os
import select
import threading
from types import SimpleNamespace

import pytest

from penstock.stores.backends.edge import disk as module
from penstock.stores.backends.edge.disk import DirectoryCopy, copy_directory

HOLE = 64 << 20


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "source"
    (directory / "deep" / "empty").mkdir(parents=True)
    (directory / "plain").write_bytes(b"plain")
    (directory / "nothing").write_bytes(b"")
    with (directory / "deep" / "sparse").open("wb") as file:
        file.seek(HOLE)
        file.write(b"after the hole")
        file.truncate(2 * HOLE)
    return directory


def wait(copying):
    poll = select.poll()
    poll.register(copying, select.POLLIN)
    assert poll.poll(30_000)


def test_a_copy_has_every_file_and_keeps_the_holes(tmp_path, source):
    copying = DirectoryCopy(source, tmp_path / "target")
    wait(copying)
    copying.close()
    assert copying.error is None
    for path in source.rglob("*"):
        there = tmp_path / "target" / path.relative_to(source)
        assert there.is_dir() if path.is_dir() else there.read_bytes() == path.read_bytes()
    sparse = (tmp_path / "target" / "deep" / "sparse").stat()
    assert sparse.st_size == 2 * HOLE
    assert sparse.st_blocks * 512 < HOLE


def test_a_copy_that_fails_tells_why(tmp_path, source):
    (tmp_path / "target").write_text("in the way")
    copying = DirectoryCopy(source, tmp_path / "target")
    wait(copying)
    copying.close()
    assert isinstance(copying.error, FileExistsError)


def test_a_copy_leaves_room_on_the_disk(tmp_path, source, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=module.COPY_FREE_BYTES_MIN - 1))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        copy_directory(source, tmp_path / "target")


def test_a_copy_can_be_stopped(tmp_path, source):
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(OSError, match=os.strerror(errno.ECANCELED)):
        copy_directory(source, tmp_path / "target", stopped)
