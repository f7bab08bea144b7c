"""The numbers of documents and chunks are those that counting gives, and counting is done once."""

import random
from contextlib import suppress

import pytest

from penstock.kernel.errors import Broken, Unavailable
from penstock.stores.backends.edge import engine
from penstock.stores.backends.edge.checkpoint import CHECKPOINT_FILE
from penstock.stores.backends.edge.collection_registry import CollectionRegistry
from penstock.stores.backends.edge.engine import Shard
from penstock.stores.backends.edge.shard_counts import IS_FIRST_CHUNK
from penstock.stores.commands import DeleteDocuments, SealDocument, TrimDocument, UpsertPoints
from penstock.stores.data_model import ChunkPayload, CollectionInfo, DocumentInfo, Match, Point
from tests.fakes.memory_store import sparse, unit
from tests.unit.stores.test_generation_builder import INFO, step


@pytest.fixture
def shelf(tmp_path):
    shelf = CollectionRegistry(tmp_path)
    shelf.create(INFO)
    yield shelf
    shelf.close()


def point(document, chunk):
    return Point(ChunkPayload(id=document, chunk=chunk, text="x"), unit(1, 0), sparse(t1=1))


def some_command(chance):
    document = f"d{chance.randrange(8)}"
    kind = chance.randrange(5)
    if kind <= 1:
        places = [(f"d{chance.randrange(8)}", chance.randrange(4)) for _ in range(chance.randrange(1, 9))]
        return UpsertPoints("c", [point(*place) for place in places])
    if kind == 2:
        return TrimDocument("c", document, chance.randrange(4))
    if kind == 3:
        return SealDocument("c", DocumentInfo(document, "h", 1))
    return DeleteDocuments("c", [Match("id", [document, "d7"])] if chance.random() < 0.9 else [])


def told(shelf):
    info = shelf.describe("c")
    return info.documents, info.chunks


def counted(shelf):
    return shelf.shard("c").count([IS_FIRST_CHUNK]), shelf.shard("c").count()


@pytest.mark.parametrize("seed", range(2))
def test_they_are_those_that_counting_gives_whatever_is_done(shelf, seed):
    chance = random.Random(seed)
    collection = shelf.collection("c")
    for number in range(80):
        with suppress(Unavailable):  # a document that is not there cannot be sealed
            shelf.update(some_command(chance))
        if number % 40 == 10:
            collection.start_build()
        if collection.build is not None and chance.random() < 0.2:
            step(shelf)
        if chance.random() < 0.5:
            assert told(shelf) == counted(shelf)
    assert told(shelf) == counted(shelf)


def test_they_are_counted_once(shelf, monkeypatch):
    shelf.update(UpsertPoints("c", [point("a", 0), point("a", 1)]))
    assert told(shelf) == (1, 2)
    asked = []
    monkeypatch.setattr(Shard, "count", lambda _, conditions=(): asked.append(conditions))
    shelf.update(UpsertPoints("c", [point("a", 1), point("b", 0)]))
    assert told(shelf) == (2, 3)
    assert asked == []


def test_nothing_is_counted_before_somebody_asks(tmp_path, shelf, monkeypatch):
    shelf.close()
    (tmp_path / "c" / CHECKPOINT_FILE).unlink()
    again, asked = CollectionRegistry(tmp_path), []
    monkeypatch.setattr(Shard, "existing", lambda _, points: asked.append(points))
    again.update(UpsertPoints("c", [point("a", 0)]))
    assert asked == []
    assert told(again) == (1, 1)
    again.close()


def test_they_are_counted_anew_after_an_update_that_failed(shelf, monkeypatch):
    assert told(shelf) == (0, 0)
    apply = engine.apply_update

    def half(shard, command):
        apply(shard, command)
        raise Broken("a bug")

    monkeypatch.setattr(engine, "apply_update", half)
    with pytest.raises(Broken):
        shelf.update(UpsertPoints("c", [point("a", 0)]))
    assert told(shelf) == (1, 1)


def test_they_are_those_of_a_restored_copy(tmp_path, shelf):
    other = CollectionRegistry(tmp_path / "other")
    other.create(CollectionInfo("c", 2, "m"))
    other.update(UpsertPoints("c", [point("a", 0), point("b", 0)]))
    assert told(shelf) == (0, 0)
    other.close()
    shelf.install("c", tmp_path / "other" / "c", force=True)
    assert told(shelf) == (2, 2)
