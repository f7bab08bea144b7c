from penstock.bus.directory import Room
from penstock.bus.window import Window
from penstock.kernel.context import Criticality


def test_there_is_always_one_slot():
    window = Window()
    window.resize(Room(0, 0))
    assert window.try_acquire()
    assert not window.try_acquire()


def test_what_is_taken_ahead_is_for_the_urgent():
    window = Window()
    window.resize(Room(2, 1))
    assert [window.try_acquire(Criticality.BULK) for _ in range(3)] == [True, True, False]
    assert [window.try_acquire(Criticality.STANDARD) for _ in range(2)] == [True, False]
    assert repr(window) == "<Window 3/2+1>"


def test_those_who_wait_are_told_of_room():
    window, told = Window(), []
    window.on_free(lambda: told.append(window.active))
    window.try_acquire()
    window.release()
    window.resize(Room(3, 0))
    window.resize(Room(3, 0))
    assert told == [0, 0]
