"""A link that can be slow and lose frames: two network devices, and a process that carries frames between them.

It does what the kernel's ``netem`` does, which not every kernel has. ``python -m bench.faults.wire INNER OUTER``: makes
both devices, says ``ready``, then reads lines ``DELAY_S LOSS`` from standard input and ends with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque
from typing import Final

_TUNSETIFF: Final = 0x400454CA
_TAP, _NO_INFO = 0x0002, 0x1000
FRAME_BYTES_MAX: Final = 65_536
#: Frames on their way in one direction; those beyond are lost.
FRAMES_MAX: Final = 10_000


def tap(name: str) -> int:
    """Make a network device whose frames this process carries; return its file."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP | _NO_INFO))
    return file


class Wire:
    """Carries frames between two devices, each direction alike.

    Args:
        ends: The devices' files.

    Attributes:
        delay_s: How long each frame is on its way.
        loss: Share of the frames that never arrive, 0 to 1.

    Bounds: ``FRAMES_MAX`` in each direction.
    """

    def __init__(self, ends: tuple[int, int]) -> None:
        self.delay_s = 0.0
        self.loss = 0.0
        self._other = {ends[0]: ends[1], ends[1]: ends[0]}
        self._under_way: dict[int, deque[tuple[float, bytes]]] = {end: deque(maxlen=FRAMES_MAX) for end in ends}

    def take(self, end: int, now_s: float) -> None:
        """Take what has come in at one end."""
        with contextlib.suppress(OSError):  # nothing more, or the device is down
            while True:
                frame = os.read(end, FRAME_BYTES_MAX)
                if random.random() >= self.loss:
                    self._under_way[self._other[end]].append((now_s + self.delay_s, frame))

    def deliver(self, now_s: float) -> float:
        """Put out what has been on its way long enough; return how long until the next is."""
        for end, frames in self._under_way.items():
            while frames and frames[0][0] <= now_s:
                with contextlib.suppress(OSError):  # a device that is down takes nothing
                    os.write(end, frames.popleft()[1])
        return min((frames[0][0] - now_s for frames in self._under_way.values() if frames), default=1.0)


def main() -> None:
    """Carry frames until standard input ends."""
    ends = (tap(sys.argv[1]), tap(sys.argv[2]))
    wire = Wire(ends)
    print("ready", flush=True)
    wait_s = 1.0
    while True:
        ready, _, _ = select.select([*ends, 0], (), (), max(0.0, wait_s))
        now_s = time.monotonic()
        if 0 in ready:
            line = os.read(0, 1000).decode().split()
            if not line:
                return
            wire.delay_s, wire.loss = float(line[-2]), float(line[-1])
        for end in ends:
            if end in ready:
                wire.take(end, now_s)
        wait_s = wire.deliver(time.monotonic())


if __name__ == "__main__":
    main()
