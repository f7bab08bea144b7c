"""A tiny model, written once a session."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny_bert

if TYPE_CHECKING:
    from penstock.models.model_source import ModelSource


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """Files of the tiny model; read only."""
    return tiny_bert.write(tmp_path_factory.mktemp("tiny"))
