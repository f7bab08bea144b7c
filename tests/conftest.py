"""What holds in every test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import penstock  # noqa: F401 - before anything loads a library that reports: penstock.NO_REPORTS

# How fast a shared machine makes up and tries inputs is no property of what is tested.
settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")


@pytest.fixture(autouse=True)
def _logging_is_left_as_it_was() -> Iterator[None]:
    """Take away handlers that a test has set: the stream they write to is closed with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("penstock").setLevel(logging.NOTSET)
