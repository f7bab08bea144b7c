"""Ignore rules agree with git where libraries usually do not."""

import pytest

from penstock.indexing.ignore import parse_rules


@pytest.mark.parametrize(
    ("lines", "path", "is_directory", "verdict"),
    [
        ("*.log", "a.log", False, True),
        ("*.log", "deep/a.log", False, True),
        ("/a", "deep/a", False, None),
        ("build/", "build", True, True),
        ("build/", "build", False, None),
        ("*.log\n!keep.log", "keep.log", False, False),
        ("*\n!*/\n!*.py", "a", True, False),
        ("*\n!*/\n!*.py", "a/x.txt", False, True),
        ("*\n!*/\n!*.py", "a/x.py", False, False),
        ("*\n!a/", "a/b", True, True),
        ("foo/*\n!foo/bar/", "foo/bar", True, False),
        ("foo/*\n!foo/bar/", "foo/baz", False, True),
        ("a/**", "a", True, None),
        ("a/**", "a/b", False, True),
        ("**/c", "a/b/c", False, True),
        ("# comment\n\n", "comment", False, None),
        ("!\n\\\n*.o", "x.o", False, True),
    ],
)
def test_last_matching_rule_decides(lines: str, path: str, is_directory: bool, verdict: bool | None) -> None:  # noqa: FBT001
    rules = parse_rules("/r", lines.split("\n"))
    assert rules.verdict(f"/r/{path}", is_directory=is_directory) is verdict
