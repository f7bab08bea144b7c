import io

from rich.console import Console
from rich.progress import Progress

from penstock.cli.index_progress import LINE_EVERY_S, ProgressDisplay, progress_display
from penstock.indexing.sources.index_stats import IndexStats


def piped():
    return Console(file=io.StringIO(), force_terminal=False, width=100)


def said(console):
    return console.file.getvalue().splitlines()


def test_a_pipe_gets_a_line_every_few_seconds_and_no_control_characters():
    console, now = piped(), [0.0]
    lines = ProgressDisplay(console, now=lambda: now[0])
    tally = IndexStats(files_total=100, bytes_total=10_000)
    for second in range(21):
        now[0] = float(second)
        tally.files_done, tally.bytes_done, tally.chunks = second, 100 * second, 2 * second
        lines.update(tally)
    assert len(said(console)) == 20 // LINE_EVERY_S
    assert said(console)[-1] == "Words: 20/100 files · 40 chunks · 2 chunks/s · 1m20s left"
    assert "\x1b" not in console.file.getvalue()


def test_a_pipe_hears_of_a_large_file_while_it_takes_its_time():
    console, now = piped(), [0.0]
    lines = ProgressDisplay(console, now=lambda: now[0])
    tally = IndexStats(files_total=2, bytes_total=1_001_000)
    lines.update(tally)
    now[0], tally.files_done, tally.bytes_done, tally.chunks = 1.0, 1, 1000, 2
    lines.update(tally)
    tally.add_in_flight(1, 1_000_000)
    for second in range(2, 60):
        now[0] = float(second)
        lines.update(tally)
    told = said(console)
    assert len(told) == 58 // LINE_EVERY_S
    assert all("1/2 files" in line for line in told)
    assert told == sorted(told, reverse=True)  # the time left falls


def test_a_run_that_waits_says_so_and_for_what():
    console, now = piped(), [0.0]
    lines = ProgressDisplay(console, now=lambda: now[0])
    tally = IndexStats(files_total=9, files_done=3, waiting_for="store is busy")
    lines.update(tally)
    now[0] = 6.0
    lines.update(tally)
    assert said(console) == ["Words: 3/9 files · 0 chunks · 0 chunks/s · waiting: store is busy"]


def test_a_short_run_and_a_quiet_one_say_nothing():
    for quiet in (False, True):
        console = piped()
        with progress_display(console, quiet=quiet) as shown:
            shown.show_stage("Looking for files")
            shown.update(IndexStats())
        assert said(console) == []


def test_a_terminal_shows_the_line_beside_the_bar():
    progress = Progress(console=piped())
    bar = ProgressDisplay(None, progress)
    bar.show_stage("Looking for files")
    assert progress.tasks[0].description == "Looking for files"
    bar.update(IndexStats(files_total=3, bytes_total=30))
    assert progress.tasks[0].description == "Words"
    assert progress.tasks[0].fields["shown"].startswith("0/3 files")


def test_a_second_bar_grows_with_the_vectors():
    progress, now = Progress(console=piped()), [100.0]
    bar = ProgressDisplay(None, progress, now=lambda: now[0])
    tally = IndexStats(files_total=3, bytes_total=30, files_done=3, bytes_done=30, chunks=40, chunks_pending=40)
    assert not progress.tasks[1].visible
    bar.update(tally)
    now[0], tally.chunks_pending = 102.0, 30
    bar.update(tally)
    vectors = progress.tasks[1]
    assert (vectors.description, vectors.completed, vectors.total, vectors.visible) == ("Vectors", 10, 40, True)
    assert vectors.fields["shown"] == "10/40 chunks · 5 chunks/s · 6s left"


def test_a_pipe_hears_of_words_and_then_of_vectors():
    console, now = piped(), [0.0]
    lines = ProgressDisplay(console, now=lambda: now[0])
    tally = IndexStats(files_total=1, files_done=1, chunks=40, chunks_pending=40, searchable_s=1.0)
    lines.update(tally)
    now[0], tally.chunks_pending = LINE_EVERY_S, 20
    lines.update(tally)
    assert said(console) == ["Vectors: 20/40 chunks · 4 chunks/s · 5s left"]


def test_a_terminal_is_left_as_it_was():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, _environ={"TERM": "xterm"})
    with progress_display(console) as shown:
        shown.update(IndexStats(files_total=3, bytes_total=30))
    assert console.file.getvalue().endswith(
        "\x1b[?25h\r\x1b[1A\x1b[2K\x1b[1A\x1b[2K"
    )  # the cursor is back, both bars are wiped
