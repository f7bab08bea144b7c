"""What the rigs of real servers share: free ports, and one server for the whole of this process.

Only of the standard library: a rig also runs where the tests' libraries are not installed yet.
"""

import atexit
import contextlib
import random
import socket
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: Below the range from which outgoing connections get theirs (32768 on Linux): one of them could take a port between
#: its being found free and the server's binding it, seconds later.
PORTS = range(15_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return so many loopback ports on which nobody listens.

    Raises:
        OSError: There are not so many.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.SystemRandom().sample(PORTS, 50 * count):
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError("no free ports")


def of_this_process(name: str, run: Callable[[Path], AbstractContextManager[T]]) -> T:
    """Return a server that runs, in a directory of its own, until this process ends.

    Args:
        name: What it is, for the directory's name.
        run: Runs it in the directory that it is given.
    """
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    prefix = f"penstock-{name}-"
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True))
    return stack.enter_context(run(Path(directory)))


def skip_without(why: str | None) -> None:
    """Skip the test where there is a reason why there can be no server."""
    if why is not None:
        import pytest

        pytest.skip(why)
