"""Windowed maxima."""

from penstock.telemetry.bus_metrics import WINDOW_S, HighWater


def test_the_highest_value_stays_for_the_window_and_reading_does_not_change_it():
    water = HighWater()
    assert water.read(0) == 0
    for value in (3, 9, 2):
        water.observe(value, 100)
    assert [water.read(100 + after_s) for after_s in (0, 0, WINDOW_S - 1, WINDOW_S)] == [9, 9, 9, 9]
    assert water.read(100 + 2 * WINDOW_S) == 0


def test_a_later_lower_value_takes_over_when_the_higher_has_left():
    water = HighWater()
    water.observe(9, 100)
    water.observe(4, 110)
    assert (water.read(111), water.read(122)) == (9, 4)


def test_what_it_keeps_is_bounded_and_a_clock_that_goes_back_does_no_harm():
    water = HighWater()
    for second in range(1000):
        water.observe(second, second)
    water.observe(5, 3)
    assert len(water._slots) <= 6
    assert water.read(999) == 999


def test_a_short_window_forgets_soon_and_takes_shares():
    water = HighWater(1.0)
    water.observe(0.75, 100)
    assert (water.read(100.9), water.read(101.3)) == (0.75, 0)
