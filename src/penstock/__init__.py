"""Penstock: a self-hosted hybrid search server that stays fast and honest under any load.

Start with ``ARCHITECTURE.md``; the composition root is :mod:`penstock.app`.
"""

import os
from typing import Final

__version__ = "0.1.0"

#: Ends the reports that libraries make about themselves. Libraries read these when they are loaded, so that they are
#: set here, before any module of the package can load one; processes that are started inherit them. ``onnxruntime``
#: looks up a host of its maker ten seconds after it was loaded, and keeps a device id and a queue in the user's cache.
NO_REPORTS: Final = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    # Another host for the same files, and logs of its own in the cache.
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
}

os.environ.update(NO_REPORTS)
