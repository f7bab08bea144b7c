import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stores.timestamps import to_utc_rfc3339


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-05-01T12:00:00Z", "2024-05-01T12:00:00+00:00"),
        ("2024-05-01t12:00:00z", "2024-05-01T12:00:00+00:00"),
        ("2024-05-01T12:00:00+02:00", "2024-05-01T10:00:00+00:00"),
        ("2024-05-01T12:00:00", "2024-05-01T12:00:00+00:00"),
        ("2024-05-01 12:00:00.5", "2024-05-01T12:00:00.500000+00:00"),
        ("2024-05-01", "2024-05-01T00:00:00+00:00"),
        ("0001-01-01", "0001-01-01T00:00:00+00:00"),
    ],
)
def test_dates_and_times_are_read_and_kept_in_utc(text, utc):
    assert to_utc_rfc3339(text) == utc


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2024",
        "20240501",
        "2024-13-01",
        "2024-02-30",
        "2024-05-01T25:00",
        "0001-01-01T00:00:00+02:00",
        "1-2-3",
    ],
)
def test_anything_else_is_no_time(text):
    assert to_utc_rfc3339(text) is None


@given(st.datetimes(timezones=st.just(dt.UTC)), st.datetimes(timezones=st.just(dt.UTC)))
def test_the_form_sorts_as_time_does(one, other):
    first, second = to_utc_rfc3339(one.isoformat()), to_utc_rfc3339(other.isoformat())
    assert first is not None
    assert second is not None
    assert (dt.datetime.fromisoformat(first) < dt.datetime.fromisoformat(second)) is (one < other)


@given(st.text())
def test_any_text_is_a_time_or_none(text):
    assert to_utc_rfc3339(text) is None or dt.datetime.fromisoformat(to_utc_rfc3339(text) or "").tzinfo is not None
