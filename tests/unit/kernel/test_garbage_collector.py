"""What lives as long as the process is left aside by the collector, and nothing else is."""

import gc
import weakref

from penstock.kernel.allocator import freeze_startup_objects


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_is_looked_through_no_more_and_garbage_is_not_kept():
    before, gone = gc.get_freeze_count(), weakref.ref(Ring())
    try:
        freeze_startup_objects()
        assert gone() is None
        assert gc.get_freeze_count() > before
        later = weakref.ref(Ring())
        gc.collect()
        assert later() is None
    finally:
        gc.unfreeze()
