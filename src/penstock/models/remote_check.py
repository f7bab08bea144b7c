"""The first question to an endpoint, at the start: is it there, and is it what the settings say?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from penstock.kernel.context import Context
from penstock.kernel.deadline import limit
from penstock.kernel.errors import Broken, Expired, Invalid, Rejected, Unavailable

#: An endpoint that has not answered its first question after so long is down.
CHECK_S: Final = 4.0
#: What it is asked.
QUESTION: Final = "penstock"


async def down(ask: Callable[[], Awaitable[Any]], ctx: Context, section: str, url: str) -> str:
    """Ask an endpoint something; return why it is down, empty if it is not.

    One that is at its limit is there, and nothing is held against it.

    Args:
        ask: Asks it.
        ctx: Until when.
        section: Where it is set, ``models.dense`` for instance.
        url: Its address, for people.

    Raises:
        Invalid: It is there, and it is wrong: its key, its address, its answers.
    """
    try:
        async with limit(ctx.deadline):
            await ask()
    except Rejected:
        return ""
    except Expired:
        return f"{section}: {url} has not answered within {CHECK_S:g} s"
    except Unavailable as error:
        return f"{section}: {url}: {error.detail}"
    except (Broken, Invalid) as error:
        detail = f"{section}: {url} cannot be used: {error.detail}"
        raise Invalid(detail, field=section, code=error.code) from error
    return ""
