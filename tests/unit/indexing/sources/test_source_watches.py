"""What a server says of the sources that it watches, and how it lets go of one."""

import asyncio

from penstock.indexing.sources.source_watches import PAUSE_S, SourceWatch, SourceWatches, WatchedSource, WatchState
from tests.clock import virtual

TREE, OTHER = WatchedSource("default", "tree", "/srv/tree"), WatchedSource("notes", "other", "/srv/other")
WATCHING = SourceWatch(WatchState.WATCHING)


def test_a_source_starts_and_is_as_it_was_noted_while_it_is_watched():
    watches = SourceWatches()
    assert watches.find("default", "tree") is None
    watches.begin("default", "tree")
    assert watches.changed.is_set()
    assert watches.find("default", "tree") == SourceWatch(WatchState.STARTING)
    watches.note("default", "tree", WATCHING)
    watches.apply([TREE, OTHER])
    assert watches.find("default", "tree") == WATCHING
    assert watches.find("notes", "other") == SourceWatch(WatchState.STARTING)
    watches.apply([OTHER])
    watches.note("default", "tree", WATCHING)
    assert watches.find("default", "tree") is None


@virtual
async def test_what_is_deleted_is_let_go_first_and_watched_again_if_it_stays():
    watches = SourceWatches()
    watches.apply([TREE, OTHER])
    order = []

    async def let_go():
        await watches.changed.wait()
        order.append([watches.is_paused("default", "tree"), watches.is_paused("notes", "other")])
        watches.changed.clear()
        await asyncio.sleep(1)
        watches.apply([OTHER])

    task = asyncio.create_task(let_go())
    async with watches.paused("default", "tree"):
        order.append("deleting")
    await task
    assert order == [[True, False], "deleting"]
    assert watches.changed.is_set()
    assert not watches.is_paused("default", "tree")


@virtual
async def test_a_whole_collection_is_let_go():
    watches = SourceWatches()
    watches.apply([OTHER])
    async with watches.paused("default"):
        assert watches.is_paused("default", "any")
        assert not watches.is_paused("notes", "other")


@virtual
async def test_nothing_waits_for_long_where_nobody_lets_go():
    watches, loop = SourceWatches(), asyncio.get_running_loop()
    watches.apply([TREE])
    began_s = loop.time()
    async with watches.paused("default"):
        assert loop.time() - began_s == PAUSE_S
    began_s = loop.time()
    async with watches.paused("notes"):
        assert loop.time() == began_s
