"""A clock that a virtual event loop moves."""

import asyncio


class LoopClock:
    """The running event loop's clock, so that a virtual loop moves our deadlines too."""

    def now(self) -> float:
        """Return the running loop's ``time()``.

        Raises:
            RuntimeError: Outside a running event loop.
        """
        return asyncio.get_running_loop().time()
