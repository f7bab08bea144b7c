"""What is remembered of points: bounded by bytes, the least recently used given up first."""

import tracemalloc

import numpy as np

from penstock.stores.backends.point_cache import ENTRY_BYTES, PointCache


def filled(entries=4, size=100):
    cache = PointCache(entries * (size + ENTRY_BYTES))
    space = cache.new_namespace()
    for point in range(entries):
        cache.put(space, point, f"value {point}", size)
    return cache, space


def test_the_least_recently_used_is_given_up_for_want_of_room():
    cache, space = filled()
    assert cache.get(space, [0]) == {0: "value 0"}
    cache.put(space, 9, "new", 100)
    assert cache.get(space, range(10)) == {0: "value 0", 2: "value 2", 3: "value 3", 9: "new"}
    assert cache.state().evictions == 1


def test_a_point_is_another_in_every_space():
    cache, space = filled()
    other = cache.new_namespace()
    assert cache.get(other, [0, 1]) == {}
    cache.put(other, 0, "other", 100)
    cache.drop(other, [0, 5])
    assert cache.get(space, [1]) == {1: "value 1"}
    assert cache.get(other, [0]) == {}


def test_what_is_kept_anew_counts_once():
    cache, space = filled()
    cache.put(space, 1, "again", 50)
    assert cache.get(space, [1]) == {1: "again"}
    assert cache.state().bytes == 4 * (100 + ENTRY_BYTES) - 50


def test_nothing_is_kept_that_is_larger_than_all_of_it():
    cache, space = filled(entries=1)
    cache.put(space, 1, "huge", 101)
    assert cache.get(space, [0, 1]) == {0: "value 0"}
    nothing = PointCache(0)
    nothing.put(0, 0, "small", 0)
    assert nothing.get(0, [0]) == {}


def test_shrinking_keeps_a_share_and_ends_in_nothing():
    cache, space = filled()
    cache.shrink(0.5)
    assert cache.get(space, range(4)) == {2: "value 2", 3: "value 3"}
    cache.shrink(0.0)
    assert (cache.state().entries, cache.state().bytes) == (0, 0)


def test_hits_and_misses_are_counted():
    cache, space = filled()
    cache.get(space, [0, 1, 7])
    state = cache.state()
    assert (state.name, state.entries, state.hits, state.misses) == ("points", 4, 2, 1)


def test_its_own_account_is_no_less_than_what_it_takes_up():
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        cache = PointCache(1 << 30)
        space = cache.new_namespace()
        for point in range(2000):
            cache.put(space, (1 << 127) + point, np.zeros((62, 64), np.int8), 62 * 64)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 * cache.state().bytes < after - before <= cache.state().bytes
