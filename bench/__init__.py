"""Named workloads. ``python -m bench`` lists them; each prints one JSON object last with ``--json``."""

from pathlib import Path
from typing import Final

import penstock  # noqa: F401 - before anything loads a library that reports: penstock.NO_REPORTS

#: The project's directory.
ROOT: Final = Path(__file__).parent.parent
