import msgspec
import pytest

from penstock.http import problem
from penstock.http.problem import PROBLEM_DETAILS, MethodNotAllowed, problem_of, status_of
from penstock.kernel.errors import Broken, Expired, Invalid, PenstockError, Rejected, Unavailable


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Rejected("x"), 503),
        (Rejected("x", by_client=True), 429),
        (Expired("search"), 504),
        (Unavailable("x", dependency="store"), 503),
        (Invalid("x"), 422),
        (Broken("x"), 500),
        (PenstockError("x"), 500),
    ],
)
def test_a_family_has_its_status(error, status):
    assert status_of(error) == status


@pytest.mark.parametrize(("code", "status"), problem._STATUS_BY_CODE.items())
def test_a_code_goes_before_its_family(code, status):
    told = problem_of(Invalid("x", code=code), "r")
    assert (told.status, told.code, told.type) == (status, code, f"urn:penstock:problem:{code}")
    assert told.title == problem.TITLES[status]


def test_a_problem_says_only_what_there_is_to_say():
    told = msgspec.to_builtins(problem_of(Invalid("wrong", field="limit"), "r"))
    assert told == {
        "type": "urn:penstock:problem:invalid",
        "title": "Invalid request",
        "status": 422,
        "detail": "wrong",
        "code": "invalid",
        "request_id": "r",
        "retryable": False,
        "field": "limit",
    }
    assert msgspec.to_builtins(problem_of(Unavailable("x", dependency="store"), "r"))["dependency"] == "store"


def test_only_what_may_be_tried_again_says_when():
    later = Rejected("x", retry_after_s=0.1)
    assert (b"retry-after", b"1") in PROBLEM_DETAILS.headers_of(later, problem_of(later, "r"))
    never = Invalid("x")
    assert [name for name, _ in PROBLEM_DETAILS.headers_of(never, problem_of(never, "r"))] == [b"content-type"]


def test_a_renamed_code_is_told_with_its_former_name():
    told = problem_of(Broken("x", code="store_unauthorized"), "r")
    assert (told.code, told.former_code) == ("store_unauthorized", "store_key")
    assert problem_of(Broken("x", code="store_failed"), "r").former_code == ""
    assert set(problem.FORMER_CODES).isdisjoint(problem.FORMER_CODES.values())


def test_a_wrong_method_names_the_right_ones():
    error = MethodNotAllowed("x", "GET, HEAD")
    assert (b"allow", b"GET, HEAD") in PROBLEM_DETAILS.headers_of(error, problem_of(error, "r"))
    assert status_of(error) == 405
