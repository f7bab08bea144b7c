"""Ignore rules agree with git where libraries usually do not."""

import logging
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from penstock.indexing.ignore import RULE_BYTES_MAX, RULE_FILE_BYTES_MAX, RULES_MAX, IgnoreChain, parse_rules


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


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 200 + "b",
        "*a*a*a*a*b",
        "**/" * 500 + "x",
        "**/*" * 200 + "x/y",
        "a**" * 300 + "b",
        "?*" * 200 + "b",
        "[a]*" * 100,
    ],
)
@pytest.mark.parametrize("path", ["a" * 255, "a/" * 2000 + "a", ("a" * 255 + "/") * 15 + "c"])
def test_a_match_takes_time_that_grows_with_pattern_and_path_alone(pattern: str, path: str) -> None:
    rules = parse_rules("/r", [pattern, f"{pattern}/", f"/x/{pattern}"])
    started = time.thread_time()
    rules.verdict(f"/r/{path}", is_directory=True)
    assert time.thread_time() - started < 0.5


def test_names_without_wild_cards_cost_nothing_however_many() -> None:
    rules = parse_rules("/r", [f"name{number}" for number in range(RULES_MAX)])
    assert rules.rules == []
    assert rules.verdict("/r/deep/name77", is_directory=False) is True


@pytest.mark.parametrize("lines", ["name\n!name", "*\n!name", "!na*\nname\n!name"])
def test_the_last_rule_wins_whatever_its_kind(lines: str) -> None:
    assert parse_rules("/r", lines.split("\n")).verdict("/r/name", is_directory=False) is False


def test_a_directorys_rule_counts_among_others_of_its_name() -> None:
    rules = parse_rules("/r", ["build/", "!build"])
    assert rules.verdict("/r/build", is_directory=True) is False
    rules = parse_rules("/r", ["!build", "build/"])
    assert (rules.verdict("/r/build", is_directory=True), rules.verdict("/r/build", is_directory=False)) == (
        True,
        False,
    )


def test_a_huge_rule_file_is_read_to_a_bound_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (tmp_path / ".gitignore").open("wb") as file:
        file.write(b"*.log\n" + b"x" * RULE_FILE_BYTES_MAX + b"\n*.txt\n")
        file.truncate(100_000_000)
    with caplog.at_level(logging.WARNING):
        chain = IgnoreChain().descend(str(tmp_path), [".gitignore"])
    assert chain.ignores(f"{tmp_path}/a.log", is_directory=False)
    assert not chain.ignores(f"{tmp_path}/a.txt", is_directory=False)
    assert "more than 1000000 bytes" in caplog.text


def test_a_file_of_a_million_rules_is_used_to_a_bound_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rules = parse_rules("/r", ["*a"] * 1_000_000)
    assert len(rules.rules) == RULES_MAX
    assert f"more than {RULES_MAX} rules" in caplog.text


@pytest.mark.parametrize("token", ["[^a]", "[!b-y]", "?", "*a", "a", "**/"])
def test_a_rule_longer_than_any_path_is_not_used_and_told(token: str, caplog: pytest.LogCaptureFixture) -> None:
    longest = token * (RULE_BYTES_MAX // len(token))
    tracemalloc.start()
    with caplog.at_level(logging.WARNING):
        parse_rules("/r", [longest, token * (RULE_FILE_BYTES_MAX // len(token)), "*.log"])
    grown_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grown_bytes < 40 * RULE_FILE_BYTES_MAX
    assert f"1 rules in '/r' are longer than {RULE_BYTES_MAX} bytes" in caplog.text


def test_a_rule_behind_an_overlong_one_is_used() -> None:
    rules = parse_rules("/r", ["*.log", "!" + "?" * RULE_BYTES_MAX, "*.txt"])
    assert rules.verdict("/r/a.txt", is_directory=False)
    assert rules.verdict("/r/a.log", is_directory=False)


def test_a_rule_file_that_cannot_be_read_is_told_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n")

    def refuse(*_args: object, **_keys: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with caplog.at_level(logging.WARNING):
        chain = IgnoreChain().descend(str(tmp_path), [".gitignore"])
    assert chain.files == ()
    assert "cannot be read and are not used: Permission denied" in caplog.text


def test_a_link_is_no_rule_file(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("*.log\n")
    (tmp_path / ".gitignore").symlink_to("rules")
    assert IgnoreChain().descend(str(tmp_path), [".gitignore"]).files == ()


def test_a_name_that_is_no_text_is_compared_by_its_bytes() -> None:
    rules = parse_rules("/r", [os.fsdecode(b"bad\xff*")])
    assert rules.verdict("/r/" + os.fsdecode(b"bad\xff.py"), is_directory=False) is True
    assert rules.verdict("/r/bad.py", is_directory=False) is None
