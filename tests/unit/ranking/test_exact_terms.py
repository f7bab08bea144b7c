import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ranking.exact_terms import TERMS_MAX, exact_shares, parse_exact_terms


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("what does ORA-01017 mean", ["ora-01017"]),
        ("changes in version 2.31.0", ["2.31.0"]),
        ("10.0.0.1 or fe80::1", ["10.0.0.1", "fe80::1"]),
        ("status 0x80070005", ["0x80070005"]),
        ("part B12-345/X", ["b12-345/x"]),
        ('the message "no such  table" of 404', ["no such table", "404"]),
        ("“connection refused” twice", ["connection refused"]),
        ("a stray “ mark, “connection refused” twice", ["connection refused"]),
        ("the top 10 of them", []),
        ("s3fs in python3", []),
        ("错误码E40917是什么", ["e40917"]),
        ("E0308 and sha256", ["e0308", "sha256"]),
        ("parseHTTPResponse and snake_case", []),
        ('"', []),
        ("", []),
    ],
)
def test_codes_and_quoted_phrases_are_exact_terms(query, terms):
    assert list(parse_exact_terms(query)) == terms


@pytest.mark.parametrize(
    ("term", "text", "held"),
    [
        ("1.2.3", "## 1.2.3\n", True),
        ("1.2.3", "released as v 1.2.3.", True),
        ("1.2.3", "penstock-1.2.3.tar.gz", True),
        ("1.2.3", "1.2.30", False),
        ("1.2.3", "11.2.3", False),
        ("1.2.3", "1.2.3.4", False),
        ("1.2.3", "0.1.2.3", False),
        ("1.2.3", "1.2.30 and then 1.2.3", True),
        ("ORA-01017", "ora-01017: invalid", True),
        ("10.0.0.1", "http://10.0.0.1:8080/", True),
        ("E40917", "错误码E40917表示库存不足。", True),
        ("ABC1234", "型番 ＡＢＣ１２３４ の部品", True),
        ("ａｂｃ１２３４", "part ABC1234", True),
        ("E40917", "错误码E409170表示", False),
        ('"no such table"', "No such\n    table here", True),
        ('"no such table"', "no such tables", False),
    ],
)
def test_a_term_is_held_where_it_stands_alone(term, text, held):
    assert bool(exact_shares(term, {"a": text, "b": ""})) is held


def test_a_term_that_every_text_holds_tells_nothing():
    assert exact_shares("404", {"a": "404", "b": "404"}) == {"a": 0.0, "b": 0.0}
    assert exact_shares("404", {"a": "404", "b": "404", "c": "x"}) == {"a": 0.5, "b": 0.5}


def test_half_of_the_terms_is_half_the_share():
    assert exact_shares("E0308 E0309", {"a": "E0308 E0309", "b": "E0309", "c": ""}) == {"a": 0.75, "b": 0.25}


def test_a_term_among_many_words_counts_less():
    texts = {"a": "the threshold", "b": ""}
    assert exact_shares('"threshold" of the weights', texts) == {"a": 1.0}
    assert exact_shares('a "threshold" ' + "word " * 30, texts) == {"a": 0.25}


def test_a_pasted_log_gives_few_terms():
    assert len(parse_exact_terms(" ".join(f"E{n:04}" for n in range(1000)))) == TERMS_MAX


@given(st.text(), st.text())
def test_any_query_meets_any_text(query, text):
    assert all(0 <= share <= 1 for share in exact_shares(query, {1: text, 2: query}).values())
