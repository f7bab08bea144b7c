"""Where things lie that several benchmarks share."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
#: Prepared models, where a server that was started here keeps them too.
MODELS: Final = ROOT / ".penstock" / "models"
