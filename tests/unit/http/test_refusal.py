import json

import pytest

from penstock.http.problem import PreparedRefusal
from penstock.kernel.errors import Invalid, Rejected


@pytest.mark.parametrize("request_id", ["abc", 'a"b', "a\\b", "\\\\", "~!{}"])
def test_a_prepared_refusal_is_whole_json_with_its_request_id(request_id):
    status, body, headers = PreparedRefusal(Rejected("no", code="why")).render(request_id.encode(), 7)
    told = json.loads(body)
    assert (told["request_id"], told["code"], told["status"], told["retry_after_s"]) == (request_id, "why", status, 7.0)
    assert status == 503
    assert dict(headers) == {
        b"content-type": b"application/problem+json",
        b"retry-after": b"7",
        b"content-length": str(len(body)).encode(),
    }


def test_headers_of_one_answer_are_not_those_of_the_next():
    refusal = PreparedRefusal(Rejected("no"))
    *_, headers = refusal.render(b"a", 1)
    headers.append((b"connection", b"close"))
    assert len(refusal.render(b"a", 1)[2]) == 3


def test_what_has_no_retry_after_says_none():
    _, body, headers = PreparedRefusal(Invalid("no")).render(b"a", 0)
    assert "retry_after_s" not in json.loads(body)
    assert b"retry-after" not in dict(headers)


def test_it_shows_what_it_is():
    assert repr(PreparedRefusal(Rejected("no", code="why"))) == "<PreparedRefusal 503 why>"
