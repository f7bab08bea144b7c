"""SIGHUP: reads the log level again, and never ends a server or a process that it starts."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from penstock.cli.options import SERVER_LOOKUP_SETTINGS, load_setup
from penstock.kernel.errors import PenstockError
from penstock.telemetry.logs import configure

log = logging.getLogger(__name__)


def block_sighup() -> None:
    """Block SIGHUP, in this thread and in every thread and process started from now on.

    A handler would be gone in a child after its exec, and so would the child at the next SIGHUP to the whole group: a
    terminal that is closed sends one. What is blocked stays blocked.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def on_sighup(heard: Callable[[], None]) -> None:
    """Call ``heard`` in the running loop at each SIGHUP, once they are held.

    Bounds: one thread, until the process ends.
    """
    loop = asyncio.get_running_loop()

    def wait() -> None:
        while True:
            signal.sigwait({signal.SIGHUP})
            try:
                loop.call_soon_threadsafe(heard)
            except RuntimeError:
                # The loop is closed: the process is about to end.
                return

    threading.Thread(target=wait, name="hangup", daemon=True).start()


def log_level_reloader(config: Path | None, flags: Mapping[str, str | None]) -> Callable[[], None]:
    """Return the callback that reads the log level again at SIGHUP.

    Args:
        config: Its YAML file, if one was named.
        flags: Its flags; they still come before the file.
    """

    def read() -> None:
        try:
            server = load_setup(config, flags, SERVER_LOOKUP_SETTINGS).settings.server
        except PenstockError as error:
            log.warning("SIGHUP: the settings cannot be read, the log level stays", extra={"why": error.detail})
            return
        configure(server.log_level, server.log_format)
        log.info("SIGHUP: the log level was read again", extra={"level": server.log_level})

    return read
