from penstock.bus.directory import GONE_S, INSTANCES_MAX, Directory, Room
from penstock.bus.wire import Hello


def test_nobody_is_known_at_first():
    assert Directory().room("t", 0.0) == Room(0, 0)
    assert Directory().rooms(0.0) == Directory().serving(0.0) == {}


def test_the_room_is_what_all_take_together():
    directory = Directory()
    assert directory.hear(Hello("a", {"t": 4, "u": 1}, 2), 0.0)
    assert directory.hear(Hello("b", {"t": 8}, 1), 0.0)
    assert not directory.hear(Hello("b", {"t": 8}, 1), 1.0)
    assert directory.rooms(1.0) == {"t": Room(12, 3), "u": Room(1, 2)}
    assert directory.serving(1.0) == {"t": 2, "u": 1}


def test_who_is_not_heard_of_is_forgotten():
    directory = Directory()
    directory.hear(Hello("a", {"t": 4}, 2), 0.0)
    assert directory.room("t", GONE_S) == Room(4, 2)
    assert directory.room("t", GONE_S + 0.1) == Room(0, 0)
    directory.hear(Hello("b", {}, 0), GONE_S + 0.1)
    assert repr(directory) == "<Directory of 1>"


def test_who_leaves_serves_no_more_but_its_work_is_waited_for():
    directory = Directory()
    directory.hear(Hello("a", {"t": 4}, 2, leaves=True), 0.0)
    assert directory.serving(0.0) == {}
    assert directory.room("t", 1.0) == Room(4, 2)


def test_no_more_instances_are_remembered_than_allowed():
    directory = Directory()
    for n in range(INSTANCES_MAX + 5):
        directory.hear(Hello(str(n), {"t": 1}, 0), 0.0)
    assert directory.room("t", 0.0).at_once == INSTANCES_MAX
