from penstock.bus.record_codec import Hello
from penstock.bus.service_registry import INSTANCE_TTL_S, INSTANCES_MAX, ServiceRegistry, WorkerCapacity


def test_nobody_is_known_at_first():
    assert ServiceRegistry().capacities(0.0) == ServiceRegistry().instance_counts(0.0) == {}


def test_the_room_is_what_all_take_together():
    directory = ServiceRegistry()
    directory.update(Hello("a", {"t": 4, "u": 1}, 2), 0.0)
    directory.update(Hello("b", {"t": 8}, 1), 0.0)
    directory.update(Hello("b", {"t": 8}, 1), 1.0)
    assert directory.capacities(1.0) == {"t": WorkerCapacity(12, 3), "u": WorkerCapacity(1, 2)}
    assert directory.instance_counts(1.0) == {"t": 2, "u": 1}


def test_who_is_not_heard_of_is_forgotten():
    directory = ServiceRegistry()
    directory.update(Hello("a", {"t": 4}, 2), 0.0)
    assert directory.capacities(INSTANCE_TTL_S) == {"t": WorkerCapacity(4, 2)}
    assert directory.capacities(INSTANCE_TTL_S + 0.1) == {}
    directory.update(Hello("b", {}, 0), INSTANCE_TTL_S + 0.1)
    assert repr(directory) == "<ServiceRegistry of 1>"


def test_who_leaves_serves_no_more_but_its_work_is_waited_for():
    directory = ServiceRegistry()
    directory.update(Hello("a", {"t": 4}, 2, leaving=True), 0.0)
    assert directory.instance_counts(0.0) == {}
    assert directory.capacities(1.0) == {"t": WorkerCapacity(4, 2)}


def test_no_more_instances_are_remembered_than_allowed():
    directory = ServiceRegistry()
    for n in range(INSTANCES_MAX + 5):
        directory.update(Hello(str(n), {"t": 1}, 0), 0.0)
    assert directory.capacities(0.0)["t"].concurrency == INSTANCES_MAX
