"""A benchmark's harness at a very small size: real processes, real answers."""

import asyncio

import pytest

from bench.scale.one import Effort, Size
from bench.worker import Failed, Worker


def test_a_worker_answers_and_says_what_it_cannot_do():
    with Worker("bench.peers.serve", "engine") as worker, pytest.raises(Failed, match="nowhere"):
        worker.ask(do="fill", corpus="/nowhere", directory="/nowhere")


def test_a_small_size_is_filled_loaded_and_asked(tmp_path):
    effort = Effort(queries=8, seconds=0.2)
    found = asyncio.run(Size(300, tmp_path / "data", effort).run())
    assert found["recall@10"] > 0.9
    assert found["disk_mb"] > 0
    assert found["load_s"] < 30
