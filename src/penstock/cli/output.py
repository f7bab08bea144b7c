"""Plain output: one JSON object."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_json(value: Any) -> None:
    """Print one JSON object, indented, in UTF-8 whatever the locale."""
    stream = sys.stdout.buffer
    text = json.dumps(value, ensure_ascii=False, indent=2)
    stream.write(text.encode(errors="backslashreplace") + b"\n")
    stream.flush()
