import pytest

from penstock.ranking.signals import is_about_tests, is_test_path


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
    assert is_test_path(path)


@pytest.mark.parametrize("path", ["", "csv.py", "latest.py", "contest/entry.py", "unittest/case.py", "attestation.go"])
def test_other_paths_are_left_alone(path):
    assert not is_test_path(path)


@pytest.mark.parametrize("query", ["tests of the csv reader", "how is this tested", "test_csv", "pytest fixture"])
def test_a_query_about_tests_is_recognised(query):
    assert is_about_tests(query)


@pytest.mark.parametrize("query", ["read a csv file", "the latest version", "contest rules", "attest a claim"])
def test_other_queries_are_not_about_tests(query):
    assert not is_about_tests(query)
