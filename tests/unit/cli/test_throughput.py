import pytest

from penstock.cli.index_progress import SAMPLES_MIN, Throughput
from penstock.indexing.sources.index_stats import FILE_OVERHEAD_BYTES, IndexStats


class Run:
    """A run on a clock of its own: files are sent, take their time, and are done."""

    def __init__(self, sizes, window_s=20.0):
        self.tally = IndexStats(files_total=len(sizes), bytes_total=sum(sizes))
        self.pace = Throughput(window_s)
        self.now_s = 0.0
        self.look()

    def look(self, after_s=0.0):
        self.now_s += after_s
        self.pace.record(self.now_s, self.tally)
        return self.left_s

    @property
    def left_s(self):
        return self.pace.eta_s(self.now_s, self.tally)

    @property
    def chunks_per_s(self):
        return self.pace.chunks_per_s(self.now_s, self.tally)

    def send(self, size):
        self.tally.add_in_flight(1, size)

    def answer(self, size, chunks=1):
        self.tally.add_in_flight(-1, -size)
        self.tally.files_done += 1
        self.tally.bytes_done += size
        self.tally.chunks += chunks

    def do(self, size, seconds, chunks=1):
        self.send(size)
        self.now_s += seconds
        self.answer(size, chunks)
        self.look()


def effort(*sizes):
    return sum(sizes) + FILE_OVERHEAD_BYTES * len(sizes)


def test_nothing_is_claimed_before_anything_is_known():
    run = Run([100, 100])
    assert run.left_s is None
    assert run.look(5) is None
    assert run.chunks_per_s == 0


def test_time_left_follows_the_recent_past():
    run = Run([1000] * 300, window_s=10)
    for _ in range(100):
        run.do(1000, 0.1)
    for _ in range(100):
        run.do(1000, 1.0)
    assert run.chunks_per_s == pytest.approx(1)
    assert run.left_s == pytest.approx(100)


def test_time_left_is_right_when_files_differ_a_hundredfold():
    rate = 10_000  # of effort a second
    sizes = [500, 50_000, 500, 500, 50_000, 500] * 4
    run = Run(sizes)
    for done, size in enumerate(sizes, 1):
        run.do(size, effort(size) / rate)
        truth = sum(effort(other) for other in sizes[done:]) / rate
        assert run.left_s == pytest.approx(truth)


def test_time_left_goes_on_falling_while_a_large_file_is_on_its_way():
    run = Run([1000] * 10 + [100_000, 1000])
    for _ in range(10):
        run.do(1000, 1.0)
    before = run.left_s
    run.send(100_000)
    told = [run.look(10) for _ in range(5)]
    assert told == pytest.approx([before - 10 * n for n in range(1, 6)])


def test_a_run_that_stands_still_is_told_to_have_become_slower():
    run = Run([1000] * 100)
    for _ in range(10):
        run.do(1000, 1.0)
    run.send(1000)
    running = run.chunks_per_s
    run.look(1)
    assert run.chunks_per_s == pytest.approx(running)
    before = run.left_s
    run.look(60)
    assert run.chunks_per_s < running / 5
    assert run.left_s > before * 5


def test_a_file_costs_something_whatever_its_size():
    run = Run([1] * 1000 + [0] * 1000)
    for _ in range(500):
        run.do(1, 0.01)
    assert run.left_s == pytest.approx(15, rel=0.01)


def test_time_left_is_never_negative():
    run = Run([100])
    run.do(100, 1)
    run.do(100, 1)  # a file that came up later
    assert run.left_s == 0


def test_few_marks_are_kept_however_many_there_were():
    run = Run([1] * 5000, window_s=1)
    for _ in range(5000):
        run.do(1, 0.5)
    assert len(run.pace._marks) == SAMPLES_MIN
