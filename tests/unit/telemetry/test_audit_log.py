import json
import os
import stat
import threading

import pytest

from penstock.telemetry import audit_log
from penstock.telemetry.audit_log import AUDIT_FILE, REFUSED_BURST, REFUSED_PER_S, AuditLog


def lines(directory):
    return [json.loads(line) for line in (directory / AUDIT_FILE).read_text().splitlines()]


def test_lines_are_in_their_order_and_for_their_owner(tmp_path):
    one = AuditLog(tmp_path)
    for number in range(20):
        one.act("key_created", name=f"k{number}", key="A")
    one.close()
    assert [line["name"] for line in lines(tmp_path)] == [f"k{number}" for number in range(20)]
    assert lines(tmp_path)[0]["event"] == "key_created"
    assert lines(tmp_path)[0]["time"].endswith("Z")
    assert stat.S_IMODE((tmp_path / AUDIT_FILE).stat().st_mode) == 0o600


def test_a_flood_of_refusals_is_written_in_part_and_counted(tmp_path):
    one = AuditLog(tmp_path)
    for _ in range(10_000):
        one.refused(100.0, code="key_unknown")
    one.refused(101.0, code="key_unknown")
    one.close()
    found = lines(tmp_path)
    assert len(found) == REFUSED_BURST + 1
    assert found[-1]["omitted_before"] == 10_000 - REFUSED_BURST
    assert REFUSED_PER_S < REFUSED_BURST


def test_acts_are_never_left_out_for_refusals(tmp_path):
    one = AuditLog(tmp_path)
    for _ in range(1000):
        one.refused(1.0)
    one.act("DELETE /v1/collections/a")
    one.close()
    assert lines(tmp_path)[-1]["event"] == "DELETE /v1/collections/a"


@pytest.mark.parametrize("text", ["a\nb", '"', "\ud800", "\x00", "é" * 1000])
def test_no_text_breaks_a_line(tmp_path, text):
    one = AuditLog(tmp_path)
    one.act("x", name=text)
    one.act("y")
    one.close()
    assert [line["event"] for line in lines(tmp_path)] == ["x", "y"]


def test_a_grown_file_is_put_aside_and_the_oldest_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_log, "FILE_BYTES_MAX", 100)
    monkeypatch.setattr(audit_log, "FILES_KEPT", 3)
    one = AuditLog(tmp_path)
    for number in range(40):
        one.act("e", number=number)
    one.close()
    assert {path.name for path in tmp_path.iterdir()} <= {AUDIT_FILE, *(f"{AUDIT_FILE}.{n}" for n in (1, 2, 3))}
    newest = json.loads((tmp_path / f"{AUDIT_FILE}.1").read_text().splitlines()[-1])["number"]
    assert newest >= 37


def test_a_log_that_cannot_be_written_is_told_once_and_harms_nobody(tmp_path, caplog):
    one = AuditLog(tmp_path / "nowhere")
    for _ in range(5):
        one.act("x")
    one.close()
    assert len(caplog.records) == 1


def test_a_pipe_in_its_place_holds_nobody(tmp_path, caplog):
    os.mkfifo(tmp_path / AUDIT_FILE)
    one = AuditLog(tmp_path)
    for _ in range(audit_log.WAITING_MAX * 2):
        one.act("x", name="n", message="m")
    one.close()
    assert "cannot be written" in caplog.text


def test_a_disk_that_hangs_costs_lines_and_not_requests(tmp_path, caplog, monkeypatch):
    hangs, goes_on = threading.Event(), threading.Event()

    def write(*_):
        hangs.set()
        goes_on.wait(10)

    monkeypatch.setattr(audit_log, "write_line", write)
    monkeypatch.setattr(audit_log, "CLOSE_S", 0.01)
    one = AuditLog(tmp_path)
    one.act("first")
    hangs.wait(10)
    for _ in range(audit_log.WAITING_MAX + 5):
        one.act("x", name="n", message="m")
    assert caplog.text.count("too slow") == 5
    one.close()
    goes_on.set()


def test_a_line_that_was_cut_does_not_spoil_the_next(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]) if b"cut" in data else write(fd, data))
    one = AuditLog(tmp_path)
    one.act("cut")
    one.act("whole")
    one.close()
    assert json.loads((tmp_path / AUDIT_FILE).read_text().splitlines()[-1])["event"] == "whole"


def test_a_log_of_a_command_does_not_put_a_grown_file_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_log, "FILE_BYTES_MAX", 10)
    one = AuditLog(tmp_path, rotates=False)
    for _ in range(5):
        one.act("x")
    one.close()
    assert [path.name for path in tmp_path.iterdir()] == [AUDIT_FILE]


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("")
    (tmp_path / AUDIT_FILE).symlink_to(tmp_path / "victim")
    one = AuditLog(tmp_path)
    one.act("x")
    one.close()
    assert (tmp_path / "victim").read_text() == ""
