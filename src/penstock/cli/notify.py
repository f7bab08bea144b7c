"""Telling a service manager how it stands, by systemd's protocol: one datagram to the socket that it names."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

#: Where the service manager listens; unset where there is none.
SOCKET: Final = "NOTIFY_SOCKET"

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def notify(state: str) -> None:
    """Tell the service manager a state; nothing where nobody asked for it.

    Args:
        state: ``READY`` or ``STOPPING``.

    Bounds: Never waits: a manager that does not read misses it, which costs a start that it gives up, no more.
    """
    address = os.environ.get(SOCKET, "")
    if not address.startswith(("/", "@")):
        return
    # A name in the abstract namespace begins with a zero byte, which no variable can hold.
    name = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(state.encode(), name)
