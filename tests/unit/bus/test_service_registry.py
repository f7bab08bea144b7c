from penstock.bus.record_codec import Hello
from penstock.bus.service_registry import (
    FREQUENT_INSTANCES_MAX,
    INSTANCE_TTL_S,
    INSTANCES_MAX,
    PRESENCE_S,
    ServiceRegistry,
    WorkerCapacity,
)


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


def serving(address, *, leaving=False, takes_requests=True):
    return Hello(address, {"t": 4}, 0, leaving=leaving, takes_requests=takes_requests)


def beat(directory, *addresses, since_s=0.0, until_s):
    """Let hellos of some and our own come until a moment."""
    for number in range(round(since_s / PRESENCE_S), round(until_s / PRESENCE_S) + 1):
        for one in addresses:
            directory.update(serving(one), number * PRESENCE_S)
        directory.echo(number * PRESENCE_S)


def test_who_is_silent_while_our_own_hello_comes_back_is_missed_and_counts_no_more():
    directory = ServiceRegistry()
    beat(directory, "a", "b", until_s=10)
    assert not directory.is_missed("t", 10.0)
    beat(directory, "b", since_s=10.4, until_s=10.8)
    assert not directory.is_missed("t", 10.8)
    beat(directory, "b", since_s=11.2, until_s=12.0)
    assert directory.is_missed("t", 12.0)
    assert directory.is_missed("t", 12.0, "a")
    assert not directory.is_missed("t", 12.0, "b")
    assert not directory.is_missed("u", 12.0)
    assert {directory.substitute("t") for _ in range(4)} == {"b"}
    assert directory.capacities(12.0)["t"].concurrency == 4
    directory.update(serving("a"), 12.1)
    assert not directory.is_missed("t", 12.1)


def test_a_broker_or_an_instance_of_our_own_that_stood_still_makes_nobody_missed():
    directory = ServiceRegistry()
    beat(directory, "a", until_s=10)
    assert not directory.is_missed("t", 14.0), "our own hello has not come back either"
    directory.echo(14.0)
    assert not directory.is_missed("t", 14.0), "the others' were late too"
    beat(directory, since_s=14.4, until_s=15.6)
    assert directory.is_missed("t", 15.6)


def test_one_that_was_forgotten_is_missed_for_nothing_but_what_it_was_given():
    directory = ServiceRegistry()
    beat(directory, "a", "b", until_s=4)
    beat(directory, "b", since_s=4.4, until_s=4.4 + INSTANCE_TTL_S)
    assert not directory.is_missed("t", 4.4 + INSTANCE_TTL_S)
    assert directory.is_missed("t", 4.4 + INSTANCE_TTL_S, "a")


def test_no_request_is_handed_to_who_leaves_or_knows_nothing_of_it():
    directory = ServiceRegistry()
    directory.update(serving("a", leaving=True), 0.0)
    directory.update(serving("b", takes_requests=False), 0.0)
    assert directory.substitute("t") == ""
    directory.update(serving("c"), 0.0)
    directory.update(serving("d"), 0.0)
    assert [directory.substitute("t") for _ in range(4)] in (["c", "d"] * 2, ["d", "c"] * 2)


def test_the_last_worker_counts_though_it_is_missed():
    directory = ServiceRegistry()
    beat(directory, "a", until_s=4)
    beat(directory, since_s=4.4, until_s=8)
    assert directory.is_missed("t", 8.0)
    assert directory.capacities(8.0)["t"].concurrency == 4


def test_many_instances_say_hello_less_often():
    directory = ServiceRegistry()
    assert directory.presence_s == PRESENCE_S
    for number in range(5 * FREQUENT_INSTANCES_MAX):
        directory.update(serving(str(number)), 0.0)
    assert directory.presence_s == 5 * PRESENCE_S
