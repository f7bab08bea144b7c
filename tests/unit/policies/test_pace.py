import pytest

from penstock.kernel.errors import Invalid
from penstock.policies.pace import Pace, PaceSettings


def test_the_window_grows_by_one_for_each_window_that_was_taken_and_stays_within_its_bound():
    pace = Pace(PaceSettings(4), window=1.0)
    windows = []
    for _ in range(12):
        pace.on_taken(0.0, whole=True)
        windows.append(int(pace.window))
    assert windows[:4] == [2, 2, 2, 3]
    assert windows[-1] == 4
    assert "0/4.0" in repr(pace)


def test_a_refusal_halves_the_window_once_for_all_that_were_under_way_together():
    pace = Pace(PaceSettings(8), window=8.0)
    assert pace.wait_s(0.0) == 0.0
    assert all(pace.on_refused(0.0, 0.0) for _ in range(5))
    assert pace.window == 4.0
    assert pace.wait_s(0.0) == 1.0, "the second of them asks for the doubled pause, and none for more"
    assert pace.on_refused(0.0, 1.0)
    assert pace.window == 2.0


def test_the_pause_is_what_the_server_asks_for_up_to_a_bound_or_doubles():
    pace = Pace(PaceSettings(1, pause_s=0.5, pause_s_max=10.0), window=1.0)
    now_s, pauses = 0.0, []
    for asked_s in (0.0, 0.0, 7.0, 99.0):
        assert pace.wait_s(now_s) == 0.0
        assert pace.on_refused(asked_s, now_s)
        pauses.append(pace.wait_s(now_s))
        now_s += pauses[-1]
    assert pauses == [0.5, 1.0, 7.0, 10.0]
    pace.on_taken(now_s, whole=False)
    pace.on_refused(0.0, now_s)
    assert pace.wait_s(now_s) == 8.0, "while some is refused the pause goes on doubling"
    pace.on_taken(now_s + 8, whole=True)
    pace.on_refused(0.0, now_s + 8)
    assert pace.wait_s(now_s + 8) == 0.5


def test_a_full_window_waits_for_an_end():
    pace = Pace(PaceSettings(1), window=1.0)
    pace.under_way = 1
    assert pace.wait_s(0.0) is None


def test_patience_ends_when_nothing_was_taken_for_so_long():
    pace = Pace(PaceSettings(1, pause_s=1.0, patience_s=10.0), window=1.0)
    assert pace.on_refused(0.0, 100.0), "nothing is known of the time before"
    pace.wait_s(100.0)
    assert pace.on_refused(0.0, 105.0)
    assert not pace.on_refused(0.0, 109.0)
    pace.on_taken(109.0, whole=False)
    assert pace.on_refused(0.0, 110.0)


@pytest.mark.parametrize("wrong", [{"window_max": 0}, {"window_max": 1, "pause_s": 9.0, "pause_s_max": 1.0}])
def test_absurd_settings_are_refused(wrong):
    with pytest.raises(Invalid):
        PaceSettings(**wrong)
