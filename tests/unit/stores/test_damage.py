"""What is a collection's own fault, whose death it is, and what a checkpoint tells."""

import errno
import os
import signal

import pytest

from penstock.kernel.errors import Broken, Invalid, Unavailable
from penstock.pools.guard import HEALTHY_CODES
from penstock.stores.backends.edge import activity, checkpoint, damage
from penstock.stores.backends.edge.activity import CurrentTask
from penstock.stores.backends.edge.checkpoint import Checkpoint
from penstock.stores.backends.edge.crash_attribution import PANIC_EXIT_STATUS, REPEAT_WINDOW_S, CrashAttribution
from penstock.stores.backends.edge.damage import REOPEN_RETRY_S, Damage
from penstock.stores.contract import CollectionDamaged, DirectoryGone, check_usable
from penstock.stores.data_model import STATE_DAMAGED, CollectionInfo


def engine(text):
    return Broken(f"the store engine failed: Service runtime error: {text}", code="store_failed")


@pytest.mark.parametrize(
    ("error", "spoils"),
    [
        (engine("IO Error: Input/output error (os error 5)"), True),
        (engine("No such file or directory (os error 2)"), True),
        (engine("Permission denied (os error 13)"), True),
        (engine("Cannot allocate memory (os error 12)"), False),
        (engine("Too many open files (os error 24)"), False),
        (engine("Read-only file system (os error 30)"), False),
        (engine("Not existing vector name"), False),
        (Invalid("no such thing"), False),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_errors_of_the_files_spoil_a_collection_and_those_of_the_machine_or_the_request_do_not(error, spoils):
    assert damage.is_file_error(error) is spoils


def test_a_cause_is_looked_at():
    outer = Unavailable("it cannot be read", dependency="store")
    outer.__cause__ = OSError(errno.EACCES, "Permission denied")
    assert damage.errno_of(outer) == errno.EACCES


def test_a_damaged_collection_is_tried_again_after_a_while_but_not_if_it_ended_the_process():
    assert not Damage("x", 10.0).may_retry(10.0 + REOPEN_RETRY_S - 0.1)
    assert Damage("x", 10.0).may_retry(10.0 + REOPEN_RETRY_S)
    assert not Damage("x", 10.0, final=True).may_retry(1e9)


def test_what_an_operator_mends_counts_against_no_breaker_and_is_not_tried_again_by_itself():
    for error in (CollectionDamaged("c", "why"), DirectoryGone("gone", dependency="store")):
        assert error.code in HEALTHY_CODES
        assert not error.retryable
    check_usable(CollectionInfo("c", 2, "m"))
    with pytest.raises(CollectionDamaged, match="restore it from a snapshot"):
        check_usable(CollectionInfo("c", 0, "", state=STATE_DAMAGED, reason="why"))


# --- Deaths

OPENING, WORKING, IDLE = (
    CurrentTask("c", is_opening=True),
    CurrentTask("c", is_opening=False),
    CurrentTask("", is_opening=False),
)


def test_a_crash_while_it_is_opened_condemns_a_collection():
    for status in (-signal.SIGBUS, -signal.SIGSEGV, -signal.SIGABRT, PANIC_EXIT_STATUS):
        blame = CrashAttribution()
        assert blame.record_exit(status, OPENING, 0.0)
        assert "opening it" in blame.quarantined["c"]
        blame.release("c")
        assert not blame.quarantined


def test_a_crash_over_other_work_condemns_it_the_second_time():
    blame = CrashAttribution()
    assert not blame.record_exit(-signal.SIGSEGV, WORKING, 0.0)
    assert blame.record_exit(-signal.SIGSEGV, WORKING, REPEAT_WINDOW_S - 1)
    later = CrashAttribution()
    assert not later.record_exit(-signal.SIGSEGV, WORKING, 0.0)
    assert not later.record_exit(-signal.SIGSEGV, WORKING, REPEAT_WINDOW_S)


def test_a_kill_is_nobodys_fault_unless_it_comes_twice_over_the_same_opening():
    blame = CrashAttribution()
    for _ in range(3):
        assert not blame.record_exit(-signal.SIGKILL, WORKING, 0.0)
        assert not blame.record_exit(-signal.SIGTERM, OPENING, 0.0)
    assert not blame.record_exit(-signal.SIGKILL, OPENING, 0.0)
    assert blame.record_exit(-signal.SIGKILL, OPENING, 1.0)


def test_an_end_of_a_mapping_on_a_full_disk_is_no_collections_fault():
    blame = CrashAttribution()
    assert blame.record_exit(-signal.SIGBUS, OPENING, 0.0, disk_full=True)
    assert (blame.disk_starved, blame.quarantined) == (True, {})
    assert not blame.record_exit(-signal.SIGBUS, OPENING, 1.0, disk_full=True), "nothing keeps the next one from it"
    assert blame.record_exit(-signal.SIGBUS, OPENING, 2.0)


def test_an_end_at_rest_or_in_order_condemns_nothing():
    blame = CrashAttribution()
    for status, doing in ((-signal.SIGSEGV, IDLE), (0, OPENING), (1, OPENING), (None, OPENING)):
        assert not blame.record_exit(status, doing, 0.0)
        assert not blame.record_exit(status, doing, 0.0)


def test_what_a_process_does_is_read_on_the_other_side():
    writer = activity.create_activity_record()
    reader = activity.ActivityRecord(os.dup(writer.fd))
    assert (reader.heartbeats, reader.current_task) == (0, IDLE)
    writer.record("c", opening=True)
    assert (reader.heartbeats, reader.current_task) == (1, OPENING)
    writer.record("c")
    writer.freeze()
    writer.record("d")
    assert (reader.heartbeats, reader.current_task) == (2, WORKING)
    writer.close()
    assert reader.current_task == WORKING, "also when it is gone"
    reader.close()


# --- Checkpoints


@pytest.fixture
def home(tmp_path):
    (tmp_path / "g2" / "wal").mkdir(parents=True)
    (tmp_path / "g2" / "wal" / "open-1").write_bytes(bytes(100))
    (tmp_path / "g2" / "page").write_bytes(bytes(10))
    return tmp_path


def held(home):
    found = checkpoint.scan_files(home / "g2")
    return Checkpoint("g2", 1, 2, found.disk_bytes, 3, found.files, found.fingerprint)


def test_a_checkpoint_is_read_as_it_was_written_and_for_its_generation_alone(home):
    assert checkpoint.read_checkpoint(home, "g2") is None
    checkpoint.write_checkpoint(home, held(home))
    assert checkpoint.read_checkpoint(home, "g2") == held(home)
    assert checkpoint.read_checkpoint(home, "g3") is None
    for torn in (b"", b"{", b"\xff", b"[]"):
        (home / checkpoint.CHECKPOINT_FILE).write_bytes(torn)
        assert checkpoint.read_checkpoint(home, "g2") is None
    checkpoint.remove_checkpoint(home)
    checkpoint.remove_checkpoint(home)


def test_files_that_are_missing_or_shorter_are_lost_and_others_only_changed(home):
    before = held(home)
    assert checkpoint.scan_files(home / "g2").missing_file(before) == ""
    (home / "g2" / "more").write_bytes(b"x")
    found = checkpoint.scan_files(home / "g2")
    assert (found.missing_file(before), found.fingerprint == before.stamp) == ("", False)
    os.truncate(home / "g2" / "page", 9)
    assert checkpoint.scan_files(home / "g2").missing_file(before) == "page has 9 bytes, not 10"
    (home / "g2" / "wal" / "open-1").unlink()
    os.truncate(home / "g2" / "page", 10)
    assert checkpoint.scan_files(home / "g2").missing_file(before) == "wal/open-1 is missing"


def test_a_change_of_owner_changes_no_stamp_and_a_foreign_file_is_told(home, monkeypatch):
    before = held(home)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    found = checkpoint.scan_files(home / "g2")
    assert found.fingerprint == before.stamp
    assert found.foreign_file


def test_what_may_not_be_used_is_named_with_its_owner_and_the_cure(home, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: path != home)
    denied = OSError(errno.EACCES, "Permission denied")
    assert damage.explain_damage(home, denied).startswith(f"{home} belongs to ")
    assert f"chown -R {damage._user(os.geteuid())} {home}" in damage.explain_damage(home, denied)
    assert damage.explain_damage(home, OSError(errno.EIO, "Input/output error", "x")) == "x: Input/output error"


def test_a_checkpoint_that_cannot_be_written_leaves_none(home, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(home), "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.write_checkpoint(home, held(home))
    assert [path.name for path in home.iterdir()] == ["g2"]


@pytest.mark.parametrize("target", ["", "/dev/zero", "itself"])
def test_a_pipe_or_a_device_among_its_files_is_told_before_the_engine_waits_for_it(home, target):
    place = home / "shard" / "itself"
    place.parent.mkdir(parents=True, exist_ok=True)
    if target:
        place.symlink_to(target)
    else:
        os.mkfifo(place)
    with pytest.raises(OSError, match="itself"):
        checkpoint.scan_files(home / "shard")
