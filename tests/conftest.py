"""What holds in every test."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import penstock  # noqa: F401 - before anything loads a library that reports: penstock.NO_REPORTS

# How fast a shared machine makes up and tries inputs is no property of what is tested.
settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")


# Each virtual loop collects garbage when it ends, to find errors left in cycles.
# That takes longer the more objects there are: half a second a test, once the package has been parsed into trees.
# So what stays is exempted.
def pytest_collection_finish() -> None:
    """Exempt what collecting the tests has made from garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _what_a_module_leaves_is_exempt_from_garbage_collection() -> Iterator[None]:
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _logging_is_left_as_it_was() -> Iterator[None]:
    """Take away handlers that a test has set: the stream they write to is closed with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("penstock").setLevel(logging.NOTSET)
