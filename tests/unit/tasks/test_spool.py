"""The spool on a disk: what a crash leaves, what is damaged, and who may read it."""

import errno
import os
import stat
from types import SimpleNamespace

import msgspec
import pytest

from penstock.kernel.errors import Broken, Unavailable
from penstock.tasks.records import TaskKind, TaskRecord, TaskStatus
from penstock.tasks.spool import DAMAGED, TaskSpool, body_digest

BODY = b'{"documents": []}'
IDS = [f"{number:020x}" for number in range(1, 5)]


def record(id=IDS[0], body=BODY, **fields):
    return TaskRecord(
        id, TaskKind.INDEX_DOCUMENTS, "client", "notes", body_bytes=len(body), body_digest=body_digest(body), **fields
    )


@pytest.fixture
def spool(tmp_path):
    return TaskSpool(tmp_path / "tasks")


def test_an_empty_data_directory_has_no_tasks_and_gets_no_directory(spool, tmp_path):
    assert spool.load() == []
    assert not (tmp_path / "tasks").exists()


def test_what_was_accepted_is_there_again(spool):
    spool.accept(record(), BODY)
    (found,) = spool.load()
    assert found == record()
    assert spool.read_body(found) == BODY


def test_only_the_owner_may_read_it(spool, tmp_path):
    before = os.umask(0)
    try:
        spool.accept(record(), BODY)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "tasks").iterdir()}
    assert modes == {f"{IDS[0]}.json": 0o600, f"{IDS[0]}.body": 0o600}
    assert stat.S_IMODE((tmp_path / "tasks").stat().st_mode) == 0o700


def test_a_task_that_was_running_waits_again(spool):
    spool.accept(record(), BODY)
    spool.write(record(status=TaskStatus.RUNNING, attempts=1))
    (found,) = spool.load()
    assert (found.status, found.attempts) == (TaskStatus.WAITING, 1)


def test_an_ended_task_keeps_its_result_and_not_its_body(spool, tmp_path):
    spool.accept(record(), BODY)
    spool.write(record(status=TaskStatus.SUCCEEDED, result=msgspec.Raw(b'{"indexed":3}')))
    assert sorted(path.name for path in (tmp_path / "tasks").iterdir()) == [f"{IDS[0]}.json"]
    (found,) = spool.load()
    assert (found.status, bytes(found.result)) == (TaskStatus.SUCCEEDED, b"null")
    assert bytes(spool.read(IDS[0]).result) == b'{"indexed":3}'


def test_what_a_crash_leaves_half_written_is_tidied_up(spool, tmp_path):
    spool.accept(record(), BODY)
    (tmp_path / "tasks" / f"{IDS[1]}.tmp").write_bytes(b'{"id": ')
    (tmp_path / "tasks" / f"{IDS[2]}.body").write_bytes(b"never accepted")
    (tmp_path / "tasks" / "README").write_bytes(b"somebody's own")
    assert [one.id for one in spool.load()] == [IDS[0]]
    assert sorted(path.name for path in (tmp_path / "tasks").iterdir()) == [
        f"{IDS[0]}.body",
        f"{IDS[0]}.json",
        "README",
    ]


@pytest.mark.parametrize("data", [b"", b"\x00" * 40, b'{"id": "1"}', b"[" * 100_000, b'{"id":"%s"}' % IDS[3].encode()])
def test_a_damaged_record_is_named_and_set_aside_and_the_others_go_on(spool, tmp_path, caplog, data):
    spool.accept(record(), BODY)
    spool.accept(record(IDS[1]), BODY)
    (tmp_path / "tasks" / f"{IDS[0]}.json").write_bytes(data)
    assert [one.id for one in spool.load()] == [IDS[1]]
    assert IDS[0] in caplog.text
    aside = sorted(path.name for path in (tmp_path / "tasks" / DAMAGED).iterdir())
    assert aside == [f"{IDS[0]}.body", f"{IDS[0]}.json"]
    assert [one.id for one in spool.load()] == [IDS[1]]


def test_a_record_that_is_a_pipe_is_set_aside(spool, tmp_path):
    (tmp_path / "tasks").mkdir()
    os.mkfifo(tmp_path / "tasks" / f"{IDS[0]}.json")
    assert spool.load() == []


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_task_whose_body_is_damaged_has_failed(spool, tmp_path, damage):
    spool.accept(record(), BODY)
    body = tmp_path / "tasks" / f"{IDS[0]}.body"
    if damage == "gone":
        body.unlink()
    else:
        body.write_bytes(BODY[:-1])
    (found,) = spool.load()
    assert (found.status, found.error.code) == (TaskStatus.FAILED, "task_damaged")


def test_a_body_that_was_changed_is_not_worked(spool, tmp_path):
    spool.accept(record(), BODY)
    (tmp_path / "tasks" / f"{IDS[0]}.body").write_bytes(BODY[::-1])
    (found,) = spool.load()
    with pytest.raises(Broken, match="changed"):
        spool.read_body(found)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EDQUOT, "disk_full"),
        (errno.EROFS, "disk_read_only"),
        (errno.EIO, "directory_unusable"),
    ],
)
@pytest.mark.parametrize("name", [".body", ".tmp"])
def test_nothing_is_half_accepted_on_a_disk_that_fails(spool, tmp_path, monkeypatch, number, code, name):
    spool.accept(record(), BODY)
    write = TaskSpool._write

    def failing(self, path, data):
        write(self, path, data[:3])
        if path.suffix == name:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(TaskSpool, "_write", failing)
    with pytest.raises(Unavailable) as refused:
        spool.accept(record(IDS[1]), BODY)
    assert refused.value.code == code
    monkeypatch.undo()
    assert [one.id for one in spool.load()] == [IDS[0]]
    assert len(list((tmp_path / "tasks").iterdir())) == 2


def test_the_last_of_the_disk_is_left_to_the_store(spool, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(Unavailable) as refused:
        spool.accept(record(), BODY)
    assert refused.value.code == "disk_full"
    assert spool.load() == []


def test_a_removed_task_leaves_nothing(spool, tmp_path):
    spool.accept(record(), BODY)
    spool.remove(IDS[0])
    spool.remove(IDS[0])
    assert list((tmp_path / "tasks").iterdir()) == []


def test_a_link_in_the_place_of_a_body_is_not_followed(spool, tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / f"{IDS[0]}.body").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        spool.accept(record(), BODY)
    assert not (tmp_path / "elsewhere").exists()
