import math

import pytest

from penstock.http.request_context import read_admission_context
from penstock.kernel.context import Criticality


def test_a_head_that_says_nothing_asks_for_nothing():
    head = read_admission_context({}, "me", 5.0)
    assert (head.client, head.criticality, head.deadline.at_s) == ("me", None, math.inf)


@pytest.mark.parametrize(
    ("said", "criticality"), [(b"bulk", Criticality.BULK), (b" Interactive ", Criticality.INTERACTIVE)]
)
def test_the_class_is_read(said, criticality):
    assert read_admission_context({b"x-criticality": said}, "me", 0.0).criticality is criticality


@pytest.mark.parametrize(("said", "at_s"), [(b"250", 5.25), (b" 1 ", 5.001), (b"0", 5.0)])
def test_the_deadline_counts_from_the_arrival(said, at_s):
    assert read_admission_context({b"x-request-timeout-ms": said}, "me", 5.0).deadline.at_s == at_s


@pytest.mark.parametrize("said", [b"", b"soon", b"-1", b"1.5", b"9" * 5000, "²".encode()])
def test_what_cannot_be_understood_is_left_for_the_route_to_refuse(said):
    head = read_admission_context({b"x-request-timeout-ms": said, b"x-criticality": said}, "me", 5.0)
    assert (head.criticality, head.deadline.at_s) == (None, math.inf)
