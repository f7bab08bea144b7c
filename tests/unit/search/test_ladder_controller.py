"""One ladder for each class of searches, fed by what waits."""

import logging

import pytest

from penstock.kernel.context import Criticality
from penstock.kernel.settings import RUNGS, DegradationSettings
from penstock.policies.ladder import Rung
from penstock.search.degradation import LadderController


class Time:
    def __init__(self):
        self.now_s = 50.0

    def now(self):
        return self.now_s


def rungs(waiting, *, pressed=True, refused_at_s=None, **settings):
    time = Time()
    it = LadderController(
        DegradationSettings(**settings),
        lambda criticality: 100.0 if criticality in waiting else 0.0,
        lambda: 1.0 if pressed else 0.0,
        time,
        refused_at_s,
    )
    return it, time


def wait(it, time, seconds):
    for _ in range(round(seconds * 10)):
        time.now_s += 0.1
        it.observe_all()


def test_a_class_under_pressure_climbs_alone():
    it, time = rungs({Criticality.BULK})
    it.observe_all()
    wait(it, time, 0.6)
    assert it.state() == {
        Criticality.INTERACTIVE: Rung.FULL,
        Criticality.STANDARD: Rung.FULL,
        Criticality.BULK: Rung.NO_RERANK,
    }
    assert it.rung(Criticality.INTERACTIVE) is Rung.FULL


def test_it_comes_down_when_it_is_clear_and_every_move_is_counted_and_logged(caplog):
    caplog.set_level(logging.INFO)
    waiting = {Criticality.INTERACTIVE}
    it, time = rungs(waiting)
    it.observe_all()
    wait(it, time, 0.4)
    waiting.clear()
    wait(it, time, 4.5)
    urgent = Criticality.INTERACTIVE
    assert it.transitions == {(urgent, Rung.FEWER_CANDIDATES): 1, (urgent, Rung.FULL): 1}
    told = [(record.levelname, record.message, record.criticality, record.rung) for record in caplog.records]
    assert told == [
        ("WARNING", "searches of a class degrade", "interactive", "fewer_candidates"),
        ("INFO", "searches of a class recover", "interactive", "full"),
    ]
    assert "interactive full" in repr(it)


@pytest.mark.parametrize("highest", RUNGS)
def test_it_climbs_to_the_last_rung_that_is_set_and_no_further(highest):
    it, time = rungs(set(Criticality), highest=highest, up=0.1)
    it.observe_all()
    wait(it, time, 5)
    assert {rung.name.lower() for rung in it.state().values()} == {highest}


def test_the_names_in_the_settings_are_the_ladders():
    assert list(RUNGS) == [rung.name.lower() for rung in Rung]


def test_while_the_queue_has_room_work_goes_on():
    it, time = rungs(set(Criticality), pressed=False, up=0.1)
    it.observe_all()
    wait(it, time, 5)
    assert set(it.state().values()) == {Rung.ONE_ARM}


def test_a_class_whose_searches_are_refused_climbs_at_once_and_alone():
    refused_at_s = {Criticality.STANDARD: 50.0}
    it, time = rungs(set(), refused_at_s=refused_at_s)
    for _ in range(3):
        time.now_s += 0.1
        refused_at_s[Criticality.STANDARD] = time.now_s
        it.observe_all()
    assert it.state()[Criticality.STANDARD] is Rung.NO_RERANK
    assert it.state()[Criticality.INTERACTIVE] is Rung.FULL
