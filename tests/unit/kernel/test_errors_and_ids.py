"""Errors travel whole; ids are what they say."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import re
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock
from penstock.bus.record_codec import HandlerFailure
from penstock.kernel.context import new_id, point_id
from penstock.kernel.errors import (
    FAMILIES,
    TRANSFERRED_ATTRIBUTES,
    Broken,
    ErrorRecord,
    Expired,
    Invalid,
    PenstockError,
    Rejected,
    Unavailable,
    from_record,
)
from penstock.stores.backends.edge import ipc

ERRORS = [
    Rejected("the queue is full", code="topic_full", retry_after_s=2.5, by_client=True),
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


def whole_house() -> list[type[PenstockError]]:
    """Return every class of errors that there is, in all modules."""
    for module in pkgutil.walk_packages(penstock.__path__, "penstock."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, rest = [], [PenstockError]
    while rest:
        found.append(kind := rest.pop())
        rest.extend(kind.__subclasses__())
    return [kind for kind in found if kind.__module__.startswith("penstock.")]


def sample(kind: type[PenstockError]) -> PenstockError:
    """Return an error of a class, whatever its constructor asks for, with every fact that its family has."""
    error = kind.__new__(kind)
    PenstockError.__init__(error, "it went wrong", code="some_code")
    facts = {"retry_after_s": 2.5, "by_client": True, "operation": "search", "dependency": "store", "field": "limit"}
    for name in inspect.get_annotations(kind) | dict.fromkeys(_said_by(kind)):
        if name in facts:
            setattr(error, name, facts[name])
    return error


def _said_by(kind: type[PenstockError]) -> set[str]:
    """Return the attributes that the constructors of a class and of those above it set."""
    makers = [base.__init__.__code__ for base in kind.__mro__ if inspect.isfunction(base.__dict__.get("__init__"))]
    return {name for code in makers for name in code.co_names}


CODECS = {
    "the store's pipe": lambda error: ipc.decoder(PenstockError).decode(ipc.encode(error)),
    "the bus": lambda error: msgspec.msgpack.decode(
        msgspec.msgpack.encode(HandlerFailure.from_error(1, "topic", error)), type=HandlerFailure
    ).to_error(),
}


@pytest.mark.parametrize("travel", CODECS.values(), ids=CODECS)
def test_every_error_there_is_keeps_its_family_and_facts_on_its_way(travel) -> None:
    kinds = whole_house()
    assert len(kinds) > len(FAMILIES), "the modules have been read"
    for kind in kinds:
        error = sample(kind)
        arrived = travel(error)
        assert type(arrived) in kind.__mro__
        assert type(arrived) is PenstockError or type(arrived) in PenstockError.__subclasses__()
        assert (arrived.code, arrived.detail, str(arrived)) == ("some_code", "it went wrong", "it went wrong")
        facts = {name: getattr(error, name) for name in TRANSFERRED_ATTRIBUTES if hasattr(error, name)}
        assert {name: getattr(arrived, name, None) for name in facts} == facts, kind


def test_an_error_of_a_family_not_known_here_is_broken() -> None:
    arrived = from_record(ErrorRecord("of tomorrow", "new", "something new", {"colour": "red"}))
    assert (type(arrived), arrived.code, hasattr(arrived, "colour")) == (Broken, "new", False)


def test_a_code_belongs_to_one_error_not_to_its_family() -> None:
    assert Rejected("a", code="topic_full").code == "topic_full"
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
