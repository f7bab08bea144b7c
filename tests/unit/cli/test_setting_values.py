import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.setting_values import format_value, parse_text, parse_yaml
from penstock.kernel.setting_spec import SettingSpec, SettingUnit

COUNT = SettingSpec("COUNT", "a count", SettingUnit.COUNT, 1, 100)
DURATION = SettingSpec("DURATION", "a duration", SettingUnit.DURATION, 0.001, 86_400)
SIZE = SettingSpec("SIZE", "a size", SettingUnit.SIZE, 1, 2**40)
TEXT = SettingSpec("TEXT", "a text", SettingUnit.TEXT, 0, 10)
LEVEL = SettingSpec("LEVEL", "a level", SettingUnit.TEXT, 0, 10, ("info", "debug"))
FLAG = SettingSpec("FLAG", "a flag", SettingUnit.FLAG)


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
    assert parse_text(text, DURATION) == seconds


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
    assert parse_text(text, SIZE) == size


@pytest.mark.parametrize("text", ["", "s", "30x", "-1s", "nan", "inf", "1e3s", "30 s s", "٣s", "1" * 5000, "0s", "25h"])
def test_bad_durations_are_refused(text):
    with pytest.raises(ValueError, match=r"duration|between"):
        parse_text(text, DURATION)


@pytest.mark.parametrize("text", ["", "MB", "10XB", "-1", "1.5", "0.1KiB", "nan", "2TiB", "9" * 5000])
def test_bad_sizes_are_refused(text):
    with pytest.raises(ValueError, match=r"size|between"):
        parse_text(text, SIZE)


@pytest.mark.parametrize("text", ["", "4.0", "4x", "0x4", "1_0", "٤", "0", "101", "9" * 5000, "true"])
def test_bad_counts_are_refused(text):
    with pytest.raises(ValueError, match=r"whole number|between"):
        parse_text(text, COUNT)


@pytest.mark.parametrize("value", ["4", 4.0, True, [4], None, 0, 101, 10**40])
def test_yaml_counts_must_be_whole_numbers_within_bounds(value):
    with pytest.raises(ValueError, match=r"whole number|between|no value"):
        parse_yaml(value, COUNT)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "soon", -1, 10**400])
def test_bad_yaml_durations_are_refused(value):
    with pytest.raises(ValueError, match=r"duration|between"):
        parse_yaml(value, DURATION)


def test_yaml_durations_are_seconds_or_text():
    assert parse_yaml(30, DURATION) == 30.0
    assert parse_yaml("30s", DURATION) == 30.0


def test_a_number_is_no_text():
    with pytest.raises(ValueError, match="127 is not text"):
        parse_yaml(127, TEXT)


def test_text_is_bounded_and_chosen():
    assert parse_text("info", LEVEL) == "info"
    with pytest.raises(ValueError, match="none of info, debug"):
        parse_text("loud", LEVEL)
    with pytest.raises(ValueError, match="longer than 10"):
        parse_text("x" * 11, TEXT)


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("Off", False), ("1", True), ("false", False)])
def test_flags_are_read(text, value):
    assert parse_text(text, FLAG) is value
    assert parse_yaml(value, FLAG) is value
    assert parse_text(format_value(value, SettingUnit.FLAG), FLAG) is value


@given(st.integers(1, 2**40))
def test_a_shown_size_reads_back(size):
    assert parse_text(format_value(size, SettingUnit.SIZE), SIZE) == size


@given(st.floats(0.001, 86_400))
def test_a_shown_duration_reads_back(seconds):
    assert parse_text(format_value(seconds, SettingUnit.DURATION), DURATION) == pytest.approx(seconds, rel=1e-12)


@given(st.integers(1, 86_000_000))
def test_milliseconds_are_exact(milliseconds):
    assert parse_text(f"{milliseconds}ms", DURATION) == milliseconds / 1000


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_with_a_reason(text):
    for spec in (COUNT, DURATION, SIZE, TEXT, LEVEL, FLAG):
        try:
            value = parse_text(text, spec)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - refusing is one of the two right answers
        else:
            assert isinstance(value, int | float | str)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (30.0, SettingUnit.DURATION, "30s"),
        (0.5, SettingUnit.DURATION, "500ms"),
        (300.0, SettingUnit.DURATION, "5m"),
        (10_000_000, SettingUnit.SIZE, "10MB"),
        (1024, SettingUnit.SIZE, "1KiB"),
        (999, SettingUnit.SIZE, "999"),
        (4, SettingUnit.COUNT, "4"),
    ],
)
def test_values_are_shown_as_people_write_them(value, unit, text):
    assert format_value(value, unit) == text


def test_a_secret_is_read_as_it_is_and_never_shown():
    secret = SettingSpec("KEY", "a key", SettingUnit.SECRET, 0, 4096)
    assert parse_text(" sk-1 ", secret) == "sk-1"
    assert parse_yaml("sk-1", secret) == "sk-1"
    assert [format_value(value, SettingUnit.SECRET) for value in ("", "sk-1")] == ["", "(set)"]
