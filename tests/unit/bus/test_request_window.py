from penstock.bus.service_registry import RequestWindow, WorkerCapacity
from penstock.kernel.context import Criticality


def test_there_is_always_one_slot():
    window = RequestWindow()
    window.resize(WorkerCapacity(0, 0))
    assert window.try_acquire()
    assert not window.try_acquire()


def test_what_is_taken_ahead_is_for_the_urgent():
    window = RequestWindow()
    window.resize(WorkerCapacity(2, 1))
    assert [window.try_acquire(Criticality.BULK) for _ in range(3)] == [True, True, False]
    assert [window.try_acquire(Criticality.STANDARD) for _ in range(2)] == [True, False]
    assert repr(window) == "<RequestWindow 3/2+1>"


def test_those_who_wait_are_told_of_room():
    window, told = RequestWindow(), []
    window.on_free(lambda: told.append(window.active))
    window.try_acquire()
    window.release()
    window.resize(WorkerCapacity(3, 0))
    window.resize(WorkerCapacity(3, 0))
    assert told == [0, 0]
