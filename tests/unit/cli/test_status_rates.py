import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.status_rates import (
    HISTORY_MAX,
    SLOW_ANSWER_S,
    ServerRates,
    StatusHistory,
    StatusSample,
    parse_status,
    rates,
    total,
)
from penstock.client import status_records
from penstock.http import responses, routes
from penstock.kernel.errors import Broken
from penstock.stores.key_value_cache import CacheState


def sample(at_s, *, uptime_s=None, took_s=0.0, **members):
    told = {"uptime_s": at_s if uptime_s is None else uptime_s, **members}
    return StatusSample(parse_status(told), at_s - took_s, at_s)


def traffic(**counts):
    return {"traffic": counts}


def topic(**counts):
    return {"topics": [{"name": "search.request", "capacity": 10, **counts}]}


def test_two_statuses_make_rates():
    before = sample(100, **traffic(in_time=50, too_late=1, client_gone=0, cut_off=2, refused={"overloaded": 5}))
    after = sample(102, **traffic(in_time=150, too_late=2, client_gone=0, cut_off=2, refused={"overloaded": 9, "x": 1}))
    found = rates(before, after)
    assert found.over_s == 2
    assert (found.goodput, found.too_late, found.client_gone, found.cut_off) == (50, 0.5, 0, 0)
    assert found.refused == {"overloaded": 2, "x": 0.5}
    assert total(found.refused) == 2.5


def test_a_topic_flows_and_what_expired_or_was_discarded_is_dropped():
    before = sample(10, **topic(offered=0, answered=0, failed=0, expired=0, discarded=0, late=0, refused={"a": 1}))
    after = sample(11, **topic(offered=9, answered=4, failed=1, expired=1, discarded=2, late=1, refused={"a": 3}))
    flow = rates(before, after).topics["search.request"]
    assert (flow.offered, flow.answered, flow.failed, flow.dropped, flow.late, flow.refused) == (9, 4, 1, 3, 1, 2)


def test_searches_that_lacked_nothing_are_not_degraded():
    before = sample(10, **traffic(degraded={"none": 1, "cached": 0}))
    after = sample(11, **traffic(degraded={"none": 9, "cached": 0, "no_rerank": 2}))
    assert rates(before, after).degraded == {"no_rerank": 2}


def test_a_cache_that_was_asked_has_a_share_of_hits():
    before = sample(10, caches=[{"name": "embed", "hits": 1, "misses": 1}, {"name": "idle", "hits": 1, "misses": 1}])
    after = sample(11, caches=[{"name": "embed", "hits": 4, "misses": 2}, {"name": "idle", "hits": 1, "misses": 1}])
    assert rates(before, after).hits == {"embed": 0.75}


@pytest.mark.parametrize("uptime_s", [0.5, 105])
def test_a_server_that_was_started_anew_has_no_rates_yet(uptime_s):
    # Even where the new one has run for longer than the old one had when it was last seen.
    before = sample(1000, uptime_s=100, **traffic(in_time=10))
    after = sample(1200, uptime_s=uptime_s, **traffic(in_time=50))
    assert rates(before, after) == ServerRates()


def test_a_count_that_went_back_has_no_rate():
    before = sample(10, **traffic(in_time=50, too_late=1, refused={"a": 9, "b": 1}))
    after = sample(11, **traffic(in_time=2, too_late=2, refused={"a": 1, "b": 2}))
    found = rates(before, after)
    assert (found.goodput, found.too_late, found.refused) == (None, 1, {"b": 1})


def test_an_answer_that_was_long_on_its_way_does_not_change_the_rate():
    before = sample(100, **traffic(in_time=0))
    after = sample(111, uptime_s=101, took_s=10, **traffic(in_time=7))
    assert rates(before, after).goodput == 7


def test_a_status_that_was_made_before_it_was_asked_for_is_no_restart():
    before, after = sample(100, uptime_s=50, **traffic(in_time=0)), sample(100.6, uptime_s=51.3, **traffic(in_time=13))
    assert rates(before, after).goodput == 10
    before, after = sample(100, uptime_s=50, **traffic(in_time=0)), sample(101, uptime_s=50.2, **traffic(in_time=2))
    assert rates(before, after).goodput == 10


def test_the_same_status_again_leaves_the_rates_as_they_are():
    watch = StatusHistory()
    for at_s, uptime_s, count in ((100, 50, 0), (101, 51, 7), (101.4, 51, 7), (102, 52, 9)):
        watch.on_status(sample(at_s, uptime_s=uptime_s, **traffic(in_time=count)))
    assert list(watch.goodput) == [7, 2]


def test_a_server_that_does_not_tell_its_uptime_has_rates_all_the_same():
    found = rates(sample(100, uptime_s=0, **traffic(in_time=0)), sample(102, uptime_s=0, **traffic(in_time=8)))
    assert found.goodput == 4


@pytest.mark.parametrize("status", [{}, {"topics": None, "traffic": None, "memory": None}, {"topics": [{}]}])
def test_what_a_server_does_not_tell_is_unknown_and_not_nothing(status):
    before, after = StatusSample(parse_status(status), 1, 1), StatusSample(parse_status(status), 2, 2)
    found = rates(before, after)
    assert (found.goodput, found.refused, found.degraded, found.hits) == (None, None, None, {})
    assert all(flow.offered is None and flow.dropped is None for flow in found.topics.values())


def test_a_topic_that_is_new_has_no_flow_yet():
    assert rates(sample(1), sample(2, **topic(offered=5))).topics == {}


def test_unknown_members_are_ignored_and_those_of_another_type_are_told():
    assert parse_status({"version": "9", "later": {"x": 1}}).version == "9"
    with pytest.raises(Broken, match="topics"):
        parse_status({"topics": "many"})


@pytest.mark.parametrize(
    ("record", "answer"),
    [
        (status_records.Status, responses.ServerStatus),
        (status_records.TopicSummary, responses.TopicStatus),
        (status_records.PoolSummary, responses.PoolStatus),
        (status_records.BreakerSummary, responses.BreakerStatus),
        (status_records.LadderRung, responses.RungStatus),
        (status_records.CacheSummary, CacheState),
        (status_records.MemorySummary, responses.MemoryStatus),
        (status_records.TrafficSummary, responses.TrafficStatus),
        (status_records.ProcessSummary, responses.ProcessStatus),
        (status_records.Alert, responses.AlertStatus),
    ],
)
def test_every_member_that_is_read_is_one_that_the_server_tells(record, answer):
    assert set(record.__struct_fields__) <= set(answer.__struct_fields__)


def test_the_servers_own_record_is_read():
    status = responses.ServerStatus(
        version="1",
        uptime_s=3.0,
        ready=True,
        reasons=[],
        data_dir="/d",
        model="m",
        dim=3,
        in_flight=1,
        collections=[],
        topics=[responses.TopicStatus("t", 1, 2, 3)],
        pools=[responses.PoolStatus("p", 1, 2)],
        memory=responses.MemoryStatus(1, 2, "cgroup", "calm"),
        alerts=[responses.AlertStatus("n", "warning", "s", "d", active=True, since="x")],
    )
    seen = parse_status(msgspec.json.decode(routes.to_json(status)))
    assert (seen.topics[0].running, seen.pools[0].limit, seen.memory.source) == (3, 2, "cgroup")
    assert seen.traffic.in_time == 0


counts = st.one_of(st.none(), st.integers(0, 1000))


@given(st.lists(st.tuples(st.floats(0.001, 100), st.floats(0, 1e6), counts), min_size=2, max_size=8))
def test_rates_are_never_negative(steps):
    watch, now_s = StatusHistory(), 0.0
    for pause_s, uptime_s, count in steps:
        now_s += pause_s
        watch.on_status(sample(now_s, uptime_s=uptime_s, **traffic(in_time=count, refused={"a": count or 0})))
        assert watch.rates.goodput is None or watch.rates.goodput >= 0
        assert all(rate > 0 for rate in (watch.rates.refused or {}).values())


def test_nothing_is_wrong_before_the_first_answer_is_late():
    watch = StatusHistory()
    watch.on_request(10)
    assert watch.silent_s(10 + SLOW_ANSWER_S) is None
    assert watch.silent_s(10.5 + SLOW_ANSWER_S) == 0.5 + SLOW_ANSWER_S


def test_silence_is_counted_from_the_last_answer():
    watch = StatusHistory()
    watch.on_status(sample(10))
    watch.on_request(11)
    assert watch.silent_s(12) is None
    assert watch.silent_s(14) == 4
    watch.on_error("gone")
    assert watch.silent_s(15) == 5
    watch.on_request(15)
    assert watch.silent_s(15) == 5


def test_the_last_values_stay_until_the_server_is_back():
    watch = StatusHistory()
    watch.on_status(sample(10, **traffic(in_time=0)))
    watch.on_status(sample(11, **traffic(in_time=5)))
    watch.on_error("gone")
    assert watch.rates.goodput == 5
    assert watch.last_error == "gone"
    watch.on_status(sample(20, uptime_s=1, **traffic(in_time=1)))
    assert (watch.last_error, watch.silent_s(20), watch.rates) == ("", None, ServerRates())
    assert list(watch.goodput) == [5, None, None]


def test_the_history_is_bounded():
    watch = StatusHistory()
    for second in range(1, 3 * HISTORY_MAX):
        watch.on_status(sample(second))
        watch.on_error("gone")
    assert len(watch.goodput) == len(watch.refused) == HISTORY_MAX
