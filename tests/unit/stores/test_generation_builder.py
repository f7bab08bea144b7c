"""A new generation with the real engine: what goes wrong is given up, and the one that serves goes on."""

import select
from types import SimpleNamespace

import numpy as np
import pytest

from penstock.kernel.errors import Broken, Invalid
from penstock.stores.backends.edge import disk, generation_builder, manifest
from penstock.stores.backends.edge import open_collection as module
from penstock.stores.backends.edge.collection_registry import CollectionRegistry
from penstock.stores.backends.edge.optimize_policy import OptimizePolicy
from penstock.stores.commands import UpsertPoints
from penstock.stores.data_model import ArmQuery, ChunkPayload, CollectionInfo, Point
from tests.fakes.memory_store import sparse, unit

INFO = CollectionInfo("c", 2, "m")


def upsert(*ids):
    points = [Point(ChunkPayload(id=id, chunk=0, text=id), unit(1, 0), sparse(t1=1)) for id in ids]
    return UpsertPoints("c", points)


@pytest.fixture
def shelf(tmp_path):
    shelf = CollectionRegistry(tmp_path)
    shelf.create(INFO)
    shelf.update(upsert("a"))
    yield shelf
    shelf.close()


def step(shelf):
    """Wait for the generation in the making, and do its next piece of work."""
    [(collection, renewal)] = shelf.builds()
    if not renewal.ready:
        poll = select.poll()
        poll.register(renewal, select.POLLIN)
        assert poll.poll(60_000)
    collection.advance_build()
    return collection.build_status


def found(shelf):
    query = ArmQuery(np.asarray([1, 0], "f4"), 10)
    return len(shelf.shard("c").search_batch([query])[0])


def names(tmp_path):
    return {path.name for path in (tmp_path / "c").iterdir() if not path.name.startswith(".gone")}


def test_writes_wait_only_while_the_files_are_copied_and_are_in_the_new_generation(tmp_path, shelf):
    collection = shelf.collection("c")
    collection.start_build()
    assert shelf.holds_writes("c")
    assert not shelf.holds_writes("d")
    assert found(shelf) == 1
    assert step(shelf).stage == "optimising"
    assert not shelf.holds_writes("c")
    shelf.update(upsert("b", "c"))
    assert step(shelf).stage == "replaying"
    shelf.update(upsert("d"))
    assert collection.describe().upkeep == "replaying"
    while collection.build is not None:
        step(shelf)
    assert (collection.build_status.made, collection.build_status.stage) == (1, "")
    assert found(shelf) == 4
    assert names(tmp_path) == {"collection.json", "g2"}
    shelf.close()
    again = CollectionRegistry(tmp_path)
    assert found(again) == 4
    again.close()


def test_a_generation_is_begun_when_enough_has_been_written_and_not_again(tmp_path):
    rule = OptimizePolicy(points=10, quiet_s=0.0)
    shelf = CollectionRegistry(tmp_path, rule)
    shelf.create(INFO)
    shelf.update(upsert(*(f"a{n}" for n in range(9))))
    shelf.run_maintenance(10.0)
    assert list(shelf.builds()) == []
    shelf.update(upsert("a9"))
    shelf.run_maintenance(10.5)
    assert list(shelf.builds()) == [], "it looks once a second"
    shelf.run_maintenance(11.0)
    while list(shelf.builds()):
        step(shelf)
    assert shelf.describe("c").indexed == 10
    shelf.run_maintenance(12.0)
    assert list(shelf.builds()) == []
    shelf.close()
    again = CollectionRegistry(tmp_path, rule)
    again.run_maintenance(10.0)
    assert list(again.builds()) == []
    again.update(upsert(*(f"b{n}" for n in range(10))))
    again.run_maintenance(11.0)
    assert len(list(again.builds())) == 1
    again.close()


def test_without_room_it_is_not_begun(tmp_path, shelf, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=disk.WRITE_FREE_BYTES_MIN + 1))
    collection = shelf.collection("c")
    collection.start_build()
    assert collection.build is None
    assert "MiB free" in collection.build_status.reason
    assert names(tmp_path) == {"collection.json", "shard"}


def test_a_disk_that_gets_full_meanwhile_ends_it(tmp_path, shelf, monkeypatch):
    collection = shelf.collection("c")
    collection.start_build()
    step(shelf)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=disk.WRITE_FREE_BYTES_MIN - 1))
    shelf.run_maintenance(10.0)
    assert (collection.build, collection.build_status.reason) == (None, "the disk got full")
    assert names(tmp_path) == {"collection.json", "shard"}
    assert found(shelf) == 1


def test_a_manifest_that_cannot_be_written_leaves_the_old_generation(tmp_path, shelf, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    collection = shelf.collection("c")
    collection.start_build()
    step(shelf)
    step(shelf)
    monkeypatch.setattr(module.manifest, "write_manifest", full)
    step(shelf)
    monkeypatch.undo()
    assert "No space left" in collection.build_status.reason
    assert names(tmp_path) == {"collection.json", "shard"}
    shelf.update(upsert("b"))
    assert found(shelf) == 2


def test_a_journal_without_room_costs_the_generation_and_not_the_write(shelf, monkeypatch):
    monkeypatch.setattr(generation_builder, "JOURNAL_BYTES_MAX", 10)
    collection = shelf.collection("c")
    collection.start_build()
    step(shelf)
    shelf.update(upsert("b"))
    assert collection.build is None
    assert "too long" in collection.build_status.reason
    assert found(shelf) == 2


def test_a_write_that_fails_half_way_costs_the_generation(shelf):
    collection = shelf.collection("c")
    collection.start_build()
    step(shelf)
    bad = UpsertPoints("c", [Point(ChunkPayload("b", 0, "b"), np.empty(0, "f4"), sparse())])
    with pytest.raises(Broken):
        shelf.update(bad)
    assert (collection.build, collection.build_status.reason) == (None, "an update failed half-way")


def test_a_collection_that_is_dropped_takes_its_next_generation_with_it(tmp_path, shelf):
    shelf.collection("c").start_build()
    step(shelf)
    shelf.drop("c")
    assert list(shelf.builds()) == []
    assert not (tmp_path / "c").exists()


def test_a_copy_is_a_collection_that_can_be_taken_in(tmp_path, shelf):
    copying = shelf.copy("c", tmp_path / ".copy")
    assert shelf.holds_writes("c")
    poll = select.poll()
    poll.register(copying, select.POLLIN)
    assert poll.poll(60_000)
    shelf.collection("c").finish_copy(copying)
    assert not shelf.holds_writes("c")
    shelf.update(upsert("b"))
    assert found(shelf) == 2
    with pytest.raises(Invalid, match="already"):
        shelf.install("c", tmp_path / ".copy", force=False)
    assert shelf.install("c", tmp_path / ".copy", force=True).chunks == 1
    assert found(shelf) == 1
    assert names(tmp_path) == {"collection.json", "shard"}
    # A start may have done it meanwhile.
    assert shelf.install("c", tmp_path / ".copy", force=True).chunks == 1


def test_a_copy_tells_how_much_it_holds(tmp_path, shelf):
    shelf.update(upsert("b"))
    copying = shelf.copy("c", tmp_path / ".copy")
    stated = manifest.read_manifest(tmp_path / ".copy", "c")
    shelf.collection("c").finish_copy(copying)
    assert (stated.documents, stated.chunks) == (2, 2)


def test_a_copy_that_cannot_be_opened_leaves_what_was_there(tmp_path, shelf):
    bad = tmp_path / ".copy"
    bad.mkdir()
    manifest.write_manifest(bad, manifest.Manifest("c", 2, "m"))
    with pytest.raises(Broken):
        shelf.install("c", bad, force=True)
    assert found(shelf) == 1
    shelf.update(upsert("b"))
    shelf.close()
    again = CollectionRegistry(tmp_path)
    assert found(again) == 2
    again.close()
