"""Priors: what a hit's place tells before its words are read.

Somebody who asks how a thing is done wants where it is done, not where it is tested; tests speak of their subject more
often and more plainly than the subject itself.
"""

from __future__ import annotations

import re
from typing import Final

_TEST_PATH: Final = re.compile(
    r"""
    (^|/)(tests?|testing|__tests__|specs?)/     # a directory of tests
    | (^|/)(test_|conftest\.)[^/]*$             # test_http.py
    | _(test|spec)\.[a-z]+$                     # http_test.go
    | \.(test|spec)\.[a-z]+$                    # http.spec.ts
    | (^|/)[A-Z]\w*Tests?\.(java|kt|cs|scala)$  # HttpTest.java
    """,
    re.VERBOSE,
)
_ABOUT_TESTS: Final = re.compile(r"(?<![a-z])(unit)?tests?(ed|ing)?(?![a-z])|\bspecs?\b|assert|fixture", re.IGNORECASE)


def about_tests(query: str) -> bool:
    """Return whether the query itself asks for tests."""
    return _ABOUT_TESTS.search(query) is not None


def is_test(path: str) -> bool:
    """Return whether a path names a test."""
    return _TEST_PATH.search(path) is not None
