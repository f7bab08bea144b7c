"""Errors travel whole; ids are what they say."""

from __future__ import annotations

import copy
import pickle
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kernel.errors import Broken, Expired, Invalid, PenstockError, Rejected, Unavailable
from penstock.kernel.ids import new_id, point_id

ERRORS = [
    Rejected("the queue is full", code="queue_full", retry_after_s=2.5, by_client=True),
    Expired("search"),
    Expired("embed", "the model took too long"),
    Unavailable("the store is down", dependency="store", code="store_down"),
    Invalid("limit must be positive", field="limit"),
    Broken("the handler failed"),
    PenstockError("something"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("travel", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy], ids=["pickle", "copy"])
def test_errors_travel_whole_between_processes(error: PenstockError, travel) -> None:
    arrived = travel(error)
    assert type(arrived) is type(error)
    assert (str(arrived), arrived.args, vars(arrived)) == (str(error), error.args, vars(error))
    assert (arrived.code, arrived.retryable) == (error.code, error.retryable)


def test_a_code_belongs_to_one_error_not_to_its_family() -> None:
    assert Rejected("a", code="queue_full").code == "queue_full"
    assert Rejected("b").code == "overloaded"
    assert "code" not in vars(Rejected("b"))


def test_every_family_has_a_code_of_its_own() -> None:
    families = [PenstockError, *PenstockError.__subclasses__()]
    assert len({family.code for family in families}) == len(families)


def test_ids_are_fresh_and_hexadecimal() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


PLACES = st.tuples(st.text(), st.integers(0, 10**6))


@given(PLACES, PLACES)
def test_a_point_id_is_its_place(one: tuple[str, int], other: tuple[str, int]) -> None:
    assert point_id(*one) == point_id(*one)
    assert (point_id(*one) == point_id(*other)) == (one == other)
    assert uuid.UUID(point_id(*one)).version == 5


def test_point_ids_stay_what_they_were() -> None:
    # Indexed data is addressed by them: a change here orphans what people have indexed.
    assert point_id("src/a.py", 0) == "96f5665d-a657-5750-9ee8-0d3a17e12c95"


def test_any_unicode_can_be_a_document_id() -> None:
    assert point_id("\udcff/\x00", 1) != point_id("\udcfe/\x00", 1)
