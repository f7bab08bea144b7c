import pytest

from penstock.cli.index import summary_lines
from penstock.cli.progress import line
from penstock.cli.tally import ERRORS_MAX, Pace, Tally, duration_shown


def test_time_left_follows_the_recent_past():
    pace = Pace(window_s=10)
    for second in range(101):
        pace.mark(second, second * 100, second * 2)
    for second in range(101, 121):
        pace.mark(second, 10_000 + (second - 100) * 10, 200 + second - 100)
    assert pace.chunks_per_s() == pytest.approx(1)
    assert pace.left_s(10_300) == pytest.approx(10)


def test_nothing_is_claimed_before_anything_is_known():
    pace = Pace()
    assert pace.left_s(100) is None
    pace.mark(0, 0, 0)
    assert pace.left_s(100) is None
    assert pace.chunks_per_s() == 0
    pace.mark(0, 10, 1)
    assert pace.left_s(100) is None


def test_time_left_is_never_negative():
    pace = Pace()
    pace.mark(0, 0, 0)
    pace.mark(1, 200, 1)
    assert pace.left_s(100) == 0


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "–"), (0.2, "0s"), (59.6, "1m00s"), (125, "2m05s"), (3725, "1h02m")]
)
def test_durations_are_short(seconds, shown):
    assert duration_shown(seconds) == shown


def test_the_progress_line_tells_files_chunks_rate_and_time_left():
    pace = Pace()
    pace.mark(0, 0, 0)
    pace.mark(2, 100, 10)
    tally = Tally(files_done=3, files_total=9, chunks=10, bytes_total=300)
    assert line(tally, pace) == "3/9 files · 10 chunks · 5 chunks/s · 4s left"


def test_the_object_has_exactly_the_promised_members():
    tally = Tally(indexed=2, unchanged=1, removed=1, chunks=9, took_s=1.23456)
    tally.skipped.update({"binary": 2, "a": 1})
    tally.fail("/p/x", "timeout", "too slow")
    assert tally.as_json("docs") == {
        "collection": "docs",
        "indexed": 2,
        "unchanged": 1,
        "removed": 1,
        "failed": 1,
        "skipped": {"a": 1, "binary": 2},
        "chunks": 9,
        "took_s": 1.235,
        "errors": [{"path": "/p/x", "code": "timeout", "detail": "too slow"}],
    }


def test_listed_failures_are_bounded_and_counted_ones_are_not():
    tally = Tally()
    for number in range(ERRORS_MAX + 5):
        tally.fail(str(number), "x", "y")
    assert tally.failed == ERRORS_MAX + 5
    assert len(tally.errors) == ERRORS_MAX


def test_the_summary_tells_counts_skips_and_speed():
    tally = Tally(indexed=2, failed=1, chunks=30, took_s=3.0)
    tally.skipped.update({"binary": 2})
    assert summary_lines(tally, "docs") == [
        "docs: 2 indexed, 1 failed",
        "skipped 2: binary 2",
        "30 chunks in 3.0 s, 10 chunks/s",
    ]
    assert summary_lines(Tally(), "docs")[0] == "docs: 0 indexed"
