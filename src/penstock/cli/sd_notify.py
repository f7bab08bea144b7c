"""``sd_notify``: reports READY and STOPPING to systemd."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

#: Where the service manager listens; unset where there is none.
SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def sd_notify(state: str) -> None:
    """Report a state to the service manager. Without one it does nothing.

    Args:
        state: ``READY`` or ``STOPPING``.

    Bounds: Never waits. A manager that does not read misses it, which at worst makes it give up a start.
    """
    address = os.environ.get(SOCKET_VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    # A name in the abstract namespace begins with a zero byte, which no variable can hold.
    name = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(state.encode(), name)
