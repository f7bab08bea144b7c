"""What a worker process does, run in this one; real ones are in ``tests/e2e/test_processes.py``."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal

import pytest

from penstock.pools import process_pool


@pytest.fixture
def orphaned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens when this process is one whose parent has died."""
    told: list[str] = []

    class Parent:
        def join(self) -> None:
            told.append("the parent ended")

    monkeypatch.setattr(multiprocessing, "parent_process", Parent)
    monkeypatch.setattr(os, "_exit", lambda status: told.append(f"exit {status}"))
    return told


def test_it_is_prepared_once_and_answers_until_its_pipe_ends() -> None:
    ours, theirs = multiprocessing.Pipe()
    prepared: list[str] = []
    for _ in range(2):
        ours.send_bytes(pickle.dumps(list))
    before = signal.getsignal(signal.SIGINT)

    def prepare(word: str) -> None:
        prepared.append(word)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    class Ending:
        """The pipe, whose other end is closed when all has been read."""

        def recv_bytes(self) -> bytes:
            if not theirs.poll():
                raise EOFError
            return theirs.recv_bytes()

        send_bytes = staticmethod(theirs.send_bytes)

    try:
        process_pool._worker_main(Ending(), prepare, ("hello",))
    finally:
        signal.signal(signal.SIGINT, before)
    assert prepared == ["hello"]
    assert [pickle.loads(ours.recv_bytes()) for _ in range(2)] == [(True, [])] * 2
    ours.close()
    theirs.close()


def test_it_ends_with_its_parent(orphaned: list[str]) -> None:
    process_pool._exit_with_parent()
    assert orphaned == ["the parent ended", "exit 1"]


def test_what_is_no_child_ends_with_nobody(orphaned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: None)
    process_pool._exit_with_parent()
    assert orphaned == []
