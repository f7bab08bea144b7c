"""Names decide the language, then extensions, then the first line."""

from pathlib import PurePath

import pytest

from penstock.indexing.language import language_of


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("src/a.py", "python"),
        ("a.PY", "python"),
        ("a.ts", "typescript"),
        ("a.tsx", "tsx"),
        ("a.mjs", "javascript"),
        ("a.cs", "csharp"),
        ("a.h", "c"),
        ("a.hpp", "cpp"),
        ("a.sh", "shell"),
        ("README.md", "markdown"),
        ("README", "markdown"),
        ("docs/a.rst", "rst"),
        ("Makefile", "make"),
        ("Dockerfile", "dockerfile"),
        ("Dockerfile.dev", "dockerfile"),
        ("CMakeLists.txt", "cmake"),
        (".gitignore", "ignore"),
        (".bashrc", "shell"),
        ("a.unknown", "text"),
        ("noextension", "text"),
        (".py", "text"),
        ("", "text"),
    ],
)
def test_name_tells_the_language(path: str, language: str) -> None:
    assert language_of(PurePath(path)) == language


@pytest.mark.parametrize(
    ("line", "language"),
    [
        ("#!/usr/bin/env python3", "python"),
        ("#!/usr/bin/python3.11 -u", "python"),
        ("#!/bin/sh", "shell"),
        ("#! /usr/bin/env -S node --x", "javascript"),
        ("#!/usr/bin/env PYTHONPATH=. python", "python"),
        ("#!/opt/strange", "text"),
        ("#!/usr/bin/env", "text"),
        ("#!" + "/" * 200, "text"),
        ("#!", "text"),
        ("# no shebang", "text"),
    ],
)
def test_first_line_tells_the_language_of_a_bare_name(line: str, language: str) -> None:
    assert language_of("tool", line) == language


def test_extension_wins_over_first_line() -> None:
    assert language_of("a.rb", "#!/bin/sh") == "ruby"
