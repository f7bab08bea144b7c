"""The garbage collector: what lives as long as the process is looked through no more."""

from __future__ import annotations

import gc


def keep_what_is_there() -> None:
    """Collect once, and leave aside for good all that is there now; call it when a process has started.

    A full collection looks through everything, modules and models included, while nobody is answered: 25 to 35 ms every
    few seconds under load. Afterwards it looks only through what has been made since.
    """
    gc.collect()
    gc.freeze()
