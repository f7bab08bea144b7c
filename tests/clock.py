"""Virtual time for tests: an event loop whose selector never sleeps.

A test that waits thirty seconds takes none: whenever nothing is ready to run, the loop's ``time()``
jumps to the next timer. A test that waits for something that cannot come raises :class:`Deadlock`
instead of hanging, and says who waits where.

    @virtual
    async def test_reply_expires():
        with pytest.raises(Expired):
            await bus.request("t", "m", work)      # 30 s of virtual time

``virtual`` makes an ordinary test of an ``async def``; ``run`` does the same for one coroutine;
``quiet`` waits until everything that could happen now has happened. State machines that cancel at
every await hold a :class:`VirtualLoop` of their own and move it with :func:`tick`.

Three things beside the clock fail such a test: a blocking call of Penstock's on the loop
(blockbuster), an error nobody retrieved ("Future exception was never retrieved"), and an error in a
callback. Real sockets, threads and processes do not work here: nothing ever arrives from outside.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import selectors
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, TypeVar

from blockbuster import blockbuster_ctx

T = TypeVar("T")

#: Where virtual time begins: not 0, so that code which takes 0 for "no time yet" is found out.
BEGIN_S: Final = 1000.0

#: A timer later than this is one that never fires (``call_at(inf)``): waiting for it is a deadlock.
HORIZON_S: Final = 10 * 365 * 86_400.0

#: A moment shorter than any time that means something in a test.
MOMENT_S: Final = 1e-6


class Deadlock(Exception):
    """Nothing can ever run again, and the coroutine in question is not done."""


class Complaint(Exception):
    """The loop's exception handler was called: an error that nobody looked at."""


class _LeapingSelector(selectors.BaseSelector):
    """Never waits: where a real selector would sleep, it moves the clock."""

    def __init__(self) -> None:
        self.now_s = BEGIN_S
        self.on_step: Callable[[], None] = lambda: None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.on_step()
        if timeout is None or self.now_s > HORIZON_S:
            raise Deadlock
        self.now_s += max(0.0, timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time.

    Attributes:
        complaints: What its exception handler was told, in words.
    """

    def __init__(self) -> None:
        self._leaping = _LeapingSelector()
        self.complaints: list[str] = []
        super().__init__(self._leaping)
        self.set_exception_handler(_complain)

    def watch(self, check: Callable[[], None]) -> None:
        """Call ``check`` between all steps of the loop from now on; what it raises ends the run."""
        self._leaping.on_step = check

    def spend(self, seconds: float) -> None:
        """Let time pass while the code that calls this runs, as if it had computed that long."""
        self._leaping.now_s += seconds

    def time(self) -> float:
        """Return the virtual time in seconds, from ``BEGIN_S``."""
        return self._leaping.now_s

    def run_until_complete(self, future: Any) -> Any:
        """Run until the future is done.

        Raises:
            Deadlock: It waits for something that cannot come.
        """
        try:
            return super().run_until_complete(future)
        except Deadlock as deadlock:
            if deadlock.args:
                raise
            raise Deadlock(f"nothing can happen any more; waiting:\n{who_waits(asyncio.all_tasks(self))}") from None

    def check(self) -> None:
        """Fail if anything was complained of; errors left in reference cycles are found too.

        Raises:
            Complaint: With everything that was said.
        """
        gc.collect()
        if self.complaints:
            said, self.complaints = "\n".join(self.complaints), []
            raise Complaint(said)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on virtual time and return its result.

    Raises:
        Deadlock: Everything waits and nothing can happen any more.
        Complaint: An error was left that nobody looked at.
    """
    loop = VirtualLoop()
    with blockbuster_ctx("penstock"), asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main)
    loop.check()
    return result


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an ordinary test of an ``async def``; fixtures and ``given`` go on as usual."""

    @functools.wraps(test)
    def ordinary(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return ordinary


async def quiet() -> None:
    """Return when every other task waits for time to pass or for this one.

    Virtual time moves on by a millionth of a second; timers due by then fire.
    """
    await asyncio.sleep(MOMENT_S)


def tick(loop: VirtualLoop) -> None:
    """Run what is ready now, once; what becomes ready by it runs in the next tick."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    error = context.get("exception")
    loop.complaints.append(f"{context['message']}: {error!r}" if error is not None else str(context["message"]))


def who_waits(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Return one line for each task: its name and the innermost line it waits at."""
    return "\n".join(sorted(map(_position, tasks)) or ["  no task, only a bare future"])


def _position(task: asyncio.Task[Any]) -> str:
    """Follow the chain of awaits to its end (``Task.get_stack`` shows its first link only)."""
    where, waits = "not begun", task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None) or getattr(waits, "ag_frame", None)
        if frame is None:
            break
        where = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return f"  {task.get_name()} at {where}"
