import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.values import from_text, from_yaml, shown
from penstock.kernel.settings import Spec, Unit

COUNT = Spec("COUNT", "a count", Unit.COUNT, 1, 100)
DURATION = Spec("DURATION", "a duration", Unit.DURATION, 0.001, 86_400)
SIZE = Spec("SIZE", "a size", Unit.SIZE, 1, 2**40)
TEXT = Spec("TEXT", "a text", Unit.TEXT, 0, 10)
LEVEL = Spec("LEVEL", "a level", Unit.TEXT, 0, 10, ("info", "debug"))
FLAG = Spec("FLAG", "a flag", Unit.FLAG)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("500ms", 0.5),
        ("5m", 300),
        ("1h", 3600),
        ("1.5s", 1.5),
        ("12", 12),
        ("0.25", 0.25),
        ("1h30m", 5400),
    ],
)
def test_durations_are_read(text, seconds):
    assert from_text(text, DURATION) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10MB", 10_000_000),
        ("256KB", 256_000),
        ("1KiB", 1024),
        ("1GiB", 2**30),
        ("7", 7),
        ("7B", 7),
        ("1.5 mb", 1_500_000),
    ],
)
def test_sizes_are_read(text, size):
    assert from_text(text, SIZE) == size


@pytest.mark.parametrize("text", ["", "s", "30x", "-1s", "nan", "inf", "1e3s", "30 s s", "٣s", "1" * 5000, "0s", "25h"])
def test_bad_durations_are_refused(text):
    with pytest.raises(ValueError, match=r"duration|between"):
        from_text(text, DURATION)


@pytest.mark.parametrize("text", ["", "MB", "10XB", "-1", "1.5", "0.1KiB", "nan", "2TiB", "9" * 5000])
def test_bad_sizes_are_refused(text):
    with pytest.raises(ValueError, match=r"size|between"):
        from_text(text, SIZE)


@pytest.mark.parametrize("text", ["", "4.0", "4x", "0x4", "1_0", "٤", "0", "101", "9" * 5000, "true"])
def test_bad_counts_are_refused(text):
    with pytest.raises(ValueError, match=r"whole number|between"):
        from_text(text, COUNT)


@pytest.mark.parametrize("value", ["4", 4.0, True, [4], None, 0, 101, 10**40])
def test_yaml_counts_must_be_whole_numbers_within_bounds(value):
    with pytest.raises(ValueError, match=r"whole number|between|no value"):
        from_yaml(value, COUNT)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "soon", -1, 10**400])
def test_bad_yaml_durations_are_refused(value):
    with pytest.raises(ValueError, match=r"duration|between"):
        from_yaml(value, DURATION)


def test_yaml_durations_are_seconds_or_text():
    assert from_yaml(30, DURATION) == 30.0
    assert from_yaml("30s", DURATION) == 30.0


def test_a_number_is_no_text():
    with pytest.raises(ValueError, match="127 is not text"):
        from_yaml(127, TEXT)


def test_text_is_bounded_and_chosen():
    assert from_text("info", LEVEL) == "info"
    with pytest.raises(ValueError, match="none of info, debug"):
        from_text("loud", LEVEL)
    with pytest.raises(ValueError, match="longer than 10"):
        from_text("x" * 11, TEXT)


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("Off", False), ("1", True), ("false", False)])
def test_flags_are_read(text, value):
    assert from_text(text, FLAG) is value
    assert from_yaml(value, FLAG) is value
    assert from_text(shown(value, Unit.FLAG), FLAG) is value


@given(st.integers(1, 2**40))
def test_a_shown_size_reads_back(size):
    assert from_text(shown(size, Unit.SIZE), SIZE) == size


@given(st.floats(0.001, 86_400))
def test_a_shown_duration_reads_back(seconds):
    assert from_text(shown(seconds, Unit.DURATION), DURATION) == pytest.approx(seconds, rel=1e-12)


@given(st.integers(1, 86_000_000))
def test_milliseconds_are_exact(milliseconds):
    assert from_text(f"{milliseconds}ms", DURATION) == milliseconds / 1000


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_with_a_reason(text):
    for spec in (COUNT, DURATION, SIZE, TEXT, LEVEL, FLAG):
        try:
            value = from_text(text, spec)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - refusing is one of the two right answers
        else:
            assert isinstance(value, int | float | str)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (30.0, Unit.DURATION, "30s"),
        (0.5, Unit.DURATION, "500ms"),
        (300.0, Unit.DURATION, "5m"),
        (10_000_000, Unit.SIZE, "10MB"),
        (1024, Unit.SIZE, "1KiB"),
        (999, Unit.SIZE, "999"),
        (4, Unit.COUNT, "4"),
    ],
)
def test_values_are_shown_as_people_write_them(value, unit, text):
    assert shown(value, unit) == text


def test_a_secret_is_read_as_it_is_and_never_shown():
    secret = Spec("KEY", "a key", Unit.SECRET, 0, 4096)
    assert from_text(" sk-1 ", secret) == "sk-1"
    assert from_yaml("sk-1", secret) == "sk-1"
    assert [shown(value, Unit.SECRET) for value in ("", "sk-1")] == ["", "(set)"]
