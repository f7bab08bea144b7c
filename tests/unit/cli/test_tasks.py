"""A task's row, what is printed of one, and its exit code."""

import pytest

from penstock.cli.tasks import print_task, task_row
from penstock.client import ServerTask
from penstock.client.records import Problem

DONE = ServerTask(
    "1", "index_documents", "succeeded", "notes", done=2, total=3, accepted_at="2026-01-01T00:00:00+00:00"
)


def test_a_row_tells_how_far_it_is():
    assert task_row(DONE) == ["1", "index_documents", "notes", "succeeded", "2/3", "2026-01-01T00:00:00+00:00"]
    assert task_row(ServerTask("1", "make_snapshot", "waiting"))[2:5] == ["", "waiting", ""]


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("cancelled", 0), ("failed", 1)])
def test_only_a_failed_task_is_a_no(status, code, capsys):
    error = Problem(detail="gone\x1b[2J", code="unavailable") if status == "failed" else None
    assert print_task(ServerTask("1", "index_documents", status, error=error)) == code
    shown = capsys.readouterr().out
    assert f"status: {status}" in shown
    assert ("(unavailable)" in shown) is (status == "failed")
    assert "\x1b" not in shown


def test_what_failed_is_named_by_id_or_by_line(capsys):
    failures = [{"id": "a", "error": {"detail": "too odd"}}, {"line": 7, "error": {"detail": "no JSON"}}]
    print_task(
        ServerTask("1", "index_documents", "succeeded", result={"indexed": 1, "failed": 2, "failures": failures})
    )
    shown = capsys.readouterr().out
    assert "indexed: 1\nfailed: 2\nfailed: a: too odd\nfailed: line 7: no JSON\n" in shown
