"""Memory of the version of each collection's text."""

import asyncio

import pytest

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.pools.text_versions import SHARED_LIFETIME_S, TextVersions
from penstock.stores.commands import CreateCollection, DescribeCollection, DropCollection
from penstock.stores.data_model import TEXT_FOLDED, TEXT_PLAIN, CollectionInfo
from tests.clock import virtual
from tests.fakes.loop_clock import LoopClock
from tests.fakes.memory_store import MemoryStore

WORK = Context.background()


async def remembering(*, shared=False, **versions):
    store = MemoryStore()
    for name, version in versions.items():
        await store.run(CreateCollection(CollectionInfo(name, 2, "m", text=version)), WORK)
    return store, TextVersions(store, LoopClock(), shared=shared)


@virtual
async def test_each_version_is_asked_for_once():
    store, texts = await remembering(old=TEXT_PLAIN, new=TEXT_FOLDED)
    for _ in range(3):
        assert await texts.version("old", WORK) == TEXT_PLAIN
        assert await texts.version("new", WORK) == TEXT_FOLDED
    assert store.count(DescribeCollection) == 2


@virtual
async def test_a_collection_that_is_not_there_has_none():
    _, texts = await remembering()
    with pytest.raises(Invalid):
        await texts.version("none", WORK)


@virtual
async def test_a_collection_made_in_anothers_place_is_asked_about_again():
    store, texts = await remembering(one=TEXT_PLAIN)
    assert await texts.version("one", WORK) == TEXT_PLAIN
    await store.run(DropCollection("one"), WORK)
    await store.run(CreateCollection(CollectionInfo("one", 2, "m", text=TEXT_FOLDED)), WORK)
    texts.forget("one")
    assert await texts.version("one", WORK) == TEXT_FOLDED


@virtual
async def test_a_version_asked_for_before_a_change_is_not_remembered_after_it():
    store, texts = await remembering(one=TEXT_FOLDED)

    async def changes(_command):
        texts.forget("one")

    store.hook = changes
    await texts.version("one", WORK)
    await texts.version("one", WORK)
    assert store.count(DescribeCollection) == 2


@virtual
async def test_where_others_write_a_version_is_asked_for_again_after_a_while():
    store, texts = await remembering(shared=True, one=TEXT_FOLDED)
    await texts.version("one", WORK)
    await asyncio.sleep(SHARED_LIFETIME_S)
    await texts.version("one", WORK)
    assert store.count(DescribeCollection) == 2
