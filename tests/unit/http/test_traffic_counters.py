import pytest

from penstock.http.exchange import TrafficCounters


@pytest.mark.parametrize(("status", "counts"), [(200, 1), (207, 1), (404, 1), (408, 0), (429, 0), (500, 0), (503, 0)])
def test_goodput_is_what_came_in_time_and_was_no_fault_of_the_servers(status, counts):
    tally = TrafficCounters()
    tally.count_response(status, in_time=True)
    assert (tally.in_time, tally.too_late) == (counts, 0)
    tally.count_response(status, in_time=False)
    assert (tally.in_time, tally.too_late) == (counts, 1)
