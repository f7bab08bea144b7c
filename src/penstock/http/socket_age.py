"""Age of what waits to be read on a connection, as the kernel knows it."""

from __future__ import annotations

import socket
import sys
from typing import Any, Final

#: ``TCP_INFO`` and where ``tcpi_last_data_recv`` stands in it, in milliseconds (Linux, include/uapi/linux/tcp.h).
_TCP_INFO: Final = getattr(socket, "TCP_INFO", 11)
_LAST_DATA: Final = slice(52, 56)


def unread_s(connection: Any) -> float:
    """Return the seconds since the last bytes of a connection reached this machine; 0 where that is not known.

    Args:
        connection: A transport's socket, or ``None``.
    """
    if connection is None or sys.platform != "linux":
        return 0.0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAST_DATA.stop)
    except OSError:  # it has been closed, or is no TCP
        return 0.0
    return int.from_bytes(info[_LAST_DATA], sys.byteorder) / 1000
