"""A benchmark's harness at a very small size: real processes, real answers."""

import asyncio
import subprocess
from contextlib import contextmanager

import pytest

from bench.answers import conduct as answers
from bench.distributed import conduct as distributed
from bench.distributed.conduct import Effort as Efforts
from bench.distributed.conduct import Lacking, Stage
from bench.scale.one import Effort, Size
from bench.worker import Failed, Worker
from tests.rigs import kafka, redis


def test_a_worker_answers_and_says_what_it_cannot_do():
    with Worker("bench.peers.serve", "engine") as worker, pytest.raises(Failed, match="nowhere"):
        worker.ask(do="fill", corpus="/nowhere", directory="/nowhere")


def test_a_small_size_is_filled_loaded_and_asked(tmp_path):
    effort = Effort(queries=8, seconds=0.2)
    found = asyncio.run(Size(300, tmp_path / "data", effort).run())
    assert found["recall@10"] > 0.9
    assert found["disk_mb"] > 0
    assert found["load_s"] < 30


@pytest.mark.parametrize("carrier", ["redis", "kafka"])
def test_a_bus_and_a_bare_client_take_turns_over_a_real_broker(carrier):
    address = redis.shared().url if carrier == "redis" else kafka.shared().bootstrap
    stage = Stage(carrier, address, Efforts(rounds=1, seconds=0.2, callers=(4,), workers=(2,)))
    (pair,) = stage.pairs(answerers=1)
    assert min(pair.ours[0].requests, pair.bare[0].requests) > 4
    (crowd,) = stage.crowds()
    assert min(crowd.shares) > 0


def test_a_broker_that_is_not_there_is_told_and_the_rest_is_measured():
    @contextmanager
    def nowhere(_directory):
        raise Lacking("no Redis: install it")
        yield

    report = asyncio.run(distributed.run(quick=True, brokers={"redis": nowhere}))
    assert report.peers["not measured"] == {"redis": "no Redis: install it"}
    assert {one.name for one in report.figures} >= {"memory, 1 caller: requests", "memory, 16 callers: requests"}


def test_answers_are_measured_over_the_files_that_git_tracks(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    for name in ("a.py", "b.md", "untracked.py"):
        (tmp_path / name).write_text(f"# The import of {name} is a function of its name.\n")
    git("init")
    git("add", "a.py", "b.md")
    report = asyncio.run(answers.run(tree=tmp_path, changes=1, work=tmp_path / "work"))
    found = {one.name: one.value for one in report.figures}
    assert found["tree, files"] == 2
    assert 0 < found["tree, first hit"] <= found["tree, all words"] <= found["tree, all vectors"] < 60
    assert 0 < found["change by words, median"] <= found["change by meaning, median"] < 60
    assert found["tree, requests that wait"] > 0
