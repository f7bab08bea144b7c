"""Patterns take what they should; that git thinks so too is in `tests/congruence/test_git_ignore.py`."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.indexing.wildmatch import Glob, literal_prefix_length


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("", "", True),
        ("*", "", True),
        ("*", "a/b", False),
        ("**", "a/b", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a/", True),
        ("**/c", "c", True),
        ("**/c", "a/b/c", True),
        ("**/c", "bc", False),
        ("a/**/c", "a/c", True),
        ("a/**/**/c", "a/b/c", True),
        ("a**c", "abc", True),
        ("a**c", "ab/c", False),
        ("?", "/", False),
        ("[/]", "/", False),
        ("[!a]", "/", False),
        ("[]-]", "]", True),
        ("[a-c-e]", "d", False),
        ("[[:alpha:][:digit:]]", "7", True),
        ("[[:nosuch:]]", "a", False),
        ("[z-a]", "m", False),
        ("[a", "a", False),
        ("a\\", "a", False),
        ("\\*", "*", True),
        ("\\*", "a", False),
    ],
)
def test_a_pattern_takes_a_path(pattern: str, text: str, matches: bool) -> None:  # noqa: FBT001
    assert Glob(pattern, is_path=True).matches(text) is matches


def test_a_star_in_a_pattern_for_names_takes_slashes_too() -> None:
    assert Glob("a*c", is_path=False).matches("a/b/c")


@pytest.mark.parametrize(("pattern", "length"), [("abc", 3), ("a*", 1), ("a\\b", 1), ("[a]", 0), ("", 0)])
def test_the_plain_beginning_ends_at_the_first_sign(pattern: str, length: int) -> None:
    assert literal_prefix_length(pattern) == length


@cache
def _takes(pattern: str, text: str) -> bool:
    """Try every way, as a matcher that goes back does."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return _takes(pattern[1:], text) or (bool(text) and _takes(pattern, text[1:]))
    return bool(text) and pattern[0] in ("?", text[0]) and _takes(pattern[1:], text[1:])


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_it_agrees_with_a_matcher_that_tries_every_way(pattern: str, text: str) -> None:
    assert Glob(pattern, is_path=False).matches(text) is _takes(pattern, text)
