import pytest

from penstock.search.priors import TEST_FACTOR, about_tests, is_test, prior, reweighed
from penstock.stores.contract import Scored


@pytest.mark.parametrize(
    "path",
    [
        "test/test_csv.py",
        "tests/unit/x.py",
        "pkg/test_http.py",
        "conftest.py",
        "net/http_test.go",
        "src/app.spec.ts",
        "src/__tests__/a.js",
        "src/main/HttpTest.java",
    ],
)
def test_a_test_is_known_by_its_path(path):
    assert is_test(path)
    assert prior(path) == TEST_FACTOR


@pytest.mark.parametrize("path", ["", "csv.py", "latest.py", "contest/entry.py", "unittest/case.py", "attestation.go"])
def test_other_paths_are_left_alone(path):
    assert prior(path) == 1.0


@pytest.mark.parametrize("query", ["tests of the csv reader", "how is this tested", "test_csv", "pytest fixture"])
def test_a_query_about_tests_is_recognised(query):
    assert about_tests(query)


@pytest.mark.parametrize("query", ["read a csv file", "the latest version", "contest rules", "attest a claim"])
def test_other_queries_are_not_about_tests(query):
    assert not about_tests(query)


def test_a_test_falls_below_what_it_tests_when_both_score_alike():
    candidates = [Scored("a", 0.60), Scored("b", 0.58), Scored("c", 0.40)]
    order = reweighed(candidates, {"a": "tests/test_csv.py", "b": "csv.py", "c": "x.py"})
    assert [c.point for c in order] == ["b", "a", "c"]


def test_a_negative_score_is_lowered_too():
    order = reweighed([Scored("a", -0.1), Scored("b", -0.1)], {"a": "tests/a.py", "b": "b.py"})
    assert [c.point for c in order] == ["b", "a"]
