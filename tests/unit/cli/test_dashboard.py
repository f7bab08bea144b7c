import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from penstock.cli.dashboard import render_page
from penstock.cli.status_rates import StatusHistory, StatusSample, parse_status
from penstock.cli.text_charts import (
    ASCII_FALLBACK,
    bar,
    capped,
    compact,
    format_duration,
    megabytes,
    percent,
    sparkline,
)

WALL = datetime(2026, 1, 31, 12, 0, 30, tzinfo=UTC)
TOPICS = (
    "ml.embed",
    "ml.sparse",
    "ml.rerank",
    "search.request",
    "index.request",
    "index.chunk",
    "index.progress",
    "index.complete",
    "collection.created",
    "collection.deleted",
    "alert.triggered",
    "search.complete",
)
QUIET = {"offered": 0, "answered": 0, "failed": 0, "expired": 0, "discarded": 0, "late": 0, "refused": {}}


def status(at_s=0):
    """Return a busy server's status; everything counts up with time."""
    topics = {name: {"name": name, "capacity": 1000, **QUIET} for name in TOPICS}
    topics["search.request"] |= {"waiting": 930, "running": 16, "level": "critical", "congested": True}
    topics["search.request"] |= {"offered": 500 * at_s, "answered": 120 * at_s, "expired": 5 * at_s}
    topics["search.request"] |= {"discarded": 7 * at_s, "refused": {"topic_full": 345 * at_s}}
    topics["ml.embed"] |= {"waiting": 3, "running": 4, "offered": 99 * at_s, "congested": True}
    topics["index.request"] |= {"waiting": 8500, "capacity": 10_000, "level": "high"}
    return {
        "version": "0.1.0",
        "uptime_s": 7000 + at_s,
        "ready": True,
        "in_flight": 217,
        "topics": list(topics.values()),
        "pools": [{"name": name, "active": 2, "limit": 4} for name in ("embed", "sparse", "rerank", "index", "chunk")]
        + [{"name": "search", "active": 16, "limit": 16}],
        "breakers": [
            {"dependency": "store", "state": "closed"},
            {"dependency": "redis", "state": "open", "retry_after_s": 12},
        ],
        "ladder": [
            {"criticality": "interactive", "rung": "full", "level": 0},
            {"criticality": "standard", "rung": "no_rerank", "level": 2},
            {"criticality": "bulk", "rung": "refuse", "level": 5},
        ],
        "caches": [{"name": "embed", "entries": 12345, "bytes": 19_000_000, "hits": 90 * at_s, "misses": 10 * at_s}],
        "memory": {"used_bytes": 1.7e9, "limit_bytes": 2e9, "source": "cgroup", "level": "high"},
        "traffic": {
            "in_flight_max": 412,
            "in_time": 120 * at_s,
            "too_late": at_s,
            "client_gone": 0,
            "cut_off": 0,
            "refused": {"overloaded": 300 * at_s, "rate_limited": 45 * at_s},
            "degraded": {"none": at_s, "no_rerank": 60 * at_s},
        },
        "process": {"tasks": 312, "threads": 9, "loop_lag_ms_max": 132.4},
        "alerts": [
            {"name": "queue", "severity": "critical", "subject": "search.request", "detail": "93 %", "active": True},
            {"name": "old", "severity": "warning", "active": False},
        ],
    }


def watched(*statuses):
    watch = StatusHistory("http://127.0.0.1:8080")
    for at_s, one in enumerate(statuses):
        watch.on_status(StatusSample(parse_status(one), at_s, at_s))
    return watch


def busy(seconds=4):
    return watched(*(status(at_s) for at_s in range(seconds)))


def shown(watch, width, height=None, *, now_s=3.0, color_system=None):
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        height=height or 100,
        force_terminal=color_system is not None,
        color_system=color_system,
        highlight=False,
        markup=False,
    )
    console.print(Text("\n", no_wrap=True, overflow="crop").join(render_page(watch, now_s, WALL, width, height)))
    return out.getvalue()


def row(screen, label):
    return next(line for line in screen.splitlines() if line.startswith(label))


def test_everything_is_on_a_large_screen():
    screen = shown(busy(), 200, 60)
    title = screen.splitlines()[0]
    assert title.startswith("penstock 0.1.0  up 1h56m  http://127.0.0.1:8080 ")
    assert title.endswith("q quits")
    assert "lines hidden" not in title
    assert row(screen, "ready") == "ready  in flight 217 (recently at most 412)"
    assert row(screen, "alert") == "alert     critical queue search.request: 93 %"
    assert "warning old" not in screen
    assert row(screen, "goodput") == "goodput   120/s    ███ most 120/s"
    assert row(screen, "refused") == "refused   345/s    ███  overloaded 300, rate_limited 45"
    assert row(screen, "degraded") == "degraded  60/s     no_rerank 60"
    assert row(screen, "lost") == "lost      too late 1/s   client gone 0/s   cut off 0/s"
    assert row(screen, "ladder") == "ladder    interactive full quality   standard no reranking   bulk refusing"
    assert row(screen, "memory") == "memory    ██████████▏░ 1.7 GB of 2.0 GB (cgroup), high"
    assert row(screen, "process") == "process   loop lag at most 132 ms, 312 tasks, 9 threads"
    assert row(screen, "caches") == "caches    embed         90% hits now, 90% in all, 12,345 entries, 19 MB"
    assert row(screen, "breakers").split() == ["breakers", "store", "closed", "redis", "open", "12s"]
    assert all(name in screen for name in TOPICS)


def test_a_topics_row_has_its_figures_under_their_titles():
    screen = shown(busy(), 200, 60)
    titles, found = row(screen, "topic ").split(), row(screen, "search.request").split()
    assert dict(zip(titles, found, strict=True)) | {"fill": ""} == {
        "topic": "search.request",
        "fill": "",
        "wait/cap": "930/1k",
        "run": "16",
        "offer/s": "500",
        "answ/s": "120",
        "drop/s": "12",
        "refus/s": "345",
        "failed/s": "0",
        "late/s": "0",
        "blocked": "0",
        "level": "crit+cong",
    }
    assert row(screen, "ml.embed").endswith("congested")
    assert row(screen, "index.request").endswith("high")
    assert row(screen, "ml.sparse").endswith("calm")


def test_a_usual_terminal_shows_what_matters_and_says_what_it_leaves_out():
    screen = shown(busy(), 80, 24)
    lines = screen.splitlines()
    assert len(lines) == 24
    assert lines[0].endswith("lines hidden, q quits")
    for kept in ("ready", "alert", "goodput", "refused", "ladder", "pools", "breakers", "memory", "process"):
        assert row(screen, kept)
    assert row(screen, "search.request").endswith("crit+cong")
    assert "collection.deleted" not in screen
    assert "failed/s" not in screen


def test_on_a_low_screen_the_worst_topics_are_the_last_to_go():
    screen = shown(busy(), 80, 13)
    assert "search.request" in screen
    assert "redis open" in screen
    assert "pools" not in screen
    assert [line.split()[0] for line in shown(busy(), 80, 4).splitlines()] == ["penstock", "ready", "alert", "goodput"]


@given(st.integers(1, 220), st.integers(1, 70), st.sampled_from(["busy", "silent", "new", "old"]))
def test_a_page_fits_into_every_terminal(width, height, kind):
    watch = {"busy": busy, "silent": busy, "new": lambda: StatusHistory("http://h"), "old": lambda: watched({}, {})}[
        kind
    ]()
    if kind == "silent":
        watch.on_error("lost the server " * 9)
    lines = render_page(watch, 3, WALL, width, height)
    assert 0 < len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    assert len(shown(watch, width, height).splitlines()) == len(lines)


def test_a_server_that_is_not_ready_says_why():
    assert row(shown(watched({"reasons": ["a", "b"]}), 80), "not ready") == "not ready: a; b  in flight 0"


def test_an_older_server_shows_what_it_tells_and_nothing_else():
    old = {
        "version": "0.0.9",
        "uptime_s": 1,
        "ready": True,
        "topics": [{"name": "search.request", "waiting": 1, "capacity": 10, "running": 1}],
        "pools": [{"name": "search", "active": 1, "limit": 16}],
    }
    screen = shown(watched(old, old | {"uptime_s": 2}), 80)
    assert row(screen, "goodput").split() == ["goodput", "–/s"]
    assert row(screen, "lost") == "lost      too late –/s   client gone –/s   cut off –/s"
    cells = row(screen, "search.request").split()
    assert cells[2:4] == ["1/10", "1"]
    assert set(cells[4:-1]) == {"–"}
    assert cells[-1] == "calm"
    for absent in ("memory", "caches", "breakers", "ladder", "process", "alert"):
        assert absent not in screen


def test_before_the_first_answer_the_screen_says_that_it_waits():
    assert "Waiting for the first answer" in shown(StatusHistory("http://h:1"), 80, 24, now_s=1)


def test_a_silent_server_is_told_with_the_time_and_its_last_values_are_dim():
    watch = busy()
    watch.on_error("no server runs on /data")
    screen = shown(watch, 80, 24, now_s=13)
    assert screen.splitlines()[1:3] == ["no status since 12:00:20 (10s)", "no server runs on /data"]
    assert row(screen, "goodput").startswith("goodput   120/s")
    coloured = shown(watch, 80, 24, now_s=13, color_system="standard").splitlines()
    assert all(line.startswith("\x1b[2m") for line in coloured[3:] if line)


def test_colours_tell_severity():
    coloured = shown(busy(), 200, 60, color_system="standard")
    assert "\x1b[32mfull quality" in coloured
    assert "\x1b[33mno reranking" in coloured
    assert "\x1b[1;31mrefusing" in coloured
    assert "\x1b[1;31m crit+cong" in coloured
    assert "\x1b" not in shown(busy(), 200, 60)


def test_an_unknown_rung_and_level_are_shown_as_they_are():
    one = {"ladder": [{"criticality": "bulk", "rung": "half_asleep", "level": 99}], "topics": [{"level": "odd"}]}
    screen = shown(watched(one), 80)
    assert row(screen, "ladder") == "ladder    bulk half asleep"
    assert "odd" in screen


def test_nothing_that_a_server_says_steers_the_terminal():
    evil = "\x1b[2J\n"
    one = {
        "version": evil,
        "reasons": [evil],
        "topics": [{"name": evil, "level": evil}],
        "pools": [{"name": evil, "limit": 1}],
        "breakers": [{"dependency": evil, "state": evil}],
        "ladder": [{"criticality": evil, "rung": evil}],
        "caches": [{"name": evil}],
        "memory": {"source": evil, "level": evil},
        "alerts": [{"name": evil, "detail": evil, "active": True}],
    }
    for line in render_page(watched(one), 1, WALL, 120):
        assert "\x1b" not in line.plain
        assert "\n" not in line.plain


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (7, "7"),
        (0.04, "0"),
        (3.44, "3.4"),
        (2.0, "2"),
        (9.96, "10"),
        (345.4, "345"),
        (999.6, "1k"),
        (1000, "1k"),
        (1234, "1.2k"),
        (12_345, "12k"),
        (999_600, "1M"),
        (2_500_000, "2.5M"),
        (3e12, "3000G"),
    ],
)
def test_figures_are_short(value, text):
    assert compact(value) == text


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        (0, 10, "░░░░"),
        (1, 1000, "▏░░░"),
        (5, 10, "██░░"),
        (999, 1000, "███▉"),
        (10, 10, "████"),
        (20, 10, "████"),
        (1, 0, "░░░░"),
        (-1, 10, "░░░░"),
    ],
)
def test_a_bar_shows_the_least_and_is_full_only_when_full(value, limit, text):
    assert bar(value, limit, 4) == text


@given(st.integers(0, 100), st.integers(1, 100), st.integers(0, 40))
def test_a_bar_has_its_width(value, limit, width):
    assert len(bar(value, limit, width)) == width


def test_a_curve_goes_from_nothing_to_the_greatest_and_shows_the_end():
    assert sparkline([9, 0, 1, None, 4, 8], 5) == "▁▁ ▄█"
    assert sparkline([0, 0], 5) == "▁▁"
    assert sparkline([], 5) == sparkline([1], 0) == ""


def test_shares_sizes_and_long_names():
    assert (percent(0.871), percent(None)) == ("87%", "–")
    assert (megabytes(12_300_000), megabytes(1.25e9)) == ("12 MB", "1.2 GB")
    assert (capped("abc", 3), capped("abcd", 3)) == ("abc", "ab…")


def test_a_terminal_without_unicode_gets_signs_of_the_same_width():
    watch = busy()
    watch.on_error("gone")
    for line in render_page(watch, 9, WALL, 80):
        plain = line.plain.translate(ASCII_FALLBACK)
        assert plain.isascii()
        assert len(plain) == len(line.plain)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "–"), (0.2, "0s"), (59.6, "1m00s"), (125, "2m05s"), (3725, "1h02m")]
)
def test_durations_are_short(seconds, shown):
    assert format_duration(seconds) == shown
