"""What holds in every test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import penstock  # noqa: F401 - before anything loads a library that reports: penstock.NO_REPORTS


@pytest.fixture(autouse=True)
def _logging_is_left_as_it_was() -> Iterator[None]:
    """Take away handlers that a test has set: the stream they write to is closed with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("penstock").setLevel(logging.NOTSET)
