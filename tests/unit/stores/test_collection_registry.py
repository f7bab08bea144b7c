import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import qdrant_edge

from penstock.kernel.errors import Invalid, Unavailable
from penstock.stores.backends.edge import disk
from penstock.stores.backends.edge.checkpoint import CHECKPOINT_FILE
from penstock.stores.backends.edge.collection_lru import CollectionLru
from penstock.stores.backends.edge.collection_registry import CollectionRegistry
from penstock.stores.backends.edge.manifest import MANIFEST_FILE
from penstock.stores.commands import ListSources, UpsertPoints
from penstock.stores.contract import CollectionDamaged
from penstock.stores.data_model import STATE_CLOSED, STATE_DAMAGED, STATE_OPEN, CollectionInfo, DocumentInfo, Match
from penstock.stores.sources import SourceRecord
from tests.contract.shop import point

INFO = CollectionInfo("c", 2, "m")


def removed():
    """Wait until what was dismissed is gone."""
    for thread in threading.enumerate():
        if thread.name == "removal":
            thread.join()


@pytest.fixture
def shelf(tmp_path):
    shelf = CollectionRegistry(tmp_path)
    yield shelf
    shelf.close()


def test_what_is_half_made_or_half_deleted_is_cleaned_at_the_start(tmp_path):
    first = CollectionRegistry(tmp_path)
    first.create(INFO)
    first.close()
    for name in (".new-x", ".gone-7-1", ".restore-z", ".snapshot-z"):
        (tmp_path / name / "shard").mkdir(parents=True)
        (tmp_path / name / "shard" / "file").write_text("half")
    for name in ("stray", "lost+found", ".Trash"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("not ours")
    (tmp_path / "stray.txt").write_text("not ours")
    second = CollectionRegistry(tmp_path)
    assert [info.name for info in second.describe_all()] == ["c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".Trash", "c", "lost+found", "stray", "stray.txt"]
    for taken in ("stray", "stray.txt"):
        with pytest.raises(Invalid, match="move it away") as caught:
            second.create(CollectionInfo(taken, 2, "m"))
        assert caught.value.code == "collection_conflict"
    second.close()


def test_a_crash_before_the_rename_leaves_no_collection(tmp_path, monkeypatch, shelf):
    def crash(*_):
        raise OSError("crash")

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError, match="crash"):
        shelf.create(INFO)
    monkeypatch.undo()
    assert len(shelf) == 0
    shelf.close()
    again = CollectionRegistry(tmp_path)
    assert len(again) == 0
    assert again.create(INFO).name == "c"
    again.close()


def test_a_damaged_manifest_is_named(tmp_path, shelf):
    shelf.create(INFO)
    shelf.close()
    for damage in (b"", b"{", b"\xff", b"[]", b'{"name": "c", "dim": 2, "model": "m", "format": 2}'):
        (tmp_path / "c" / MANIFEST_FILE).write_bytes(damage)
        again = CollectionRegistry(tmp_path)
        (info,) = again.describe_all()
        assert (info.name, info.state) == ("c", STATE_DAMAGED)
        assert MANIFEST_FILE in info.reason
        with pytest.raises(CollectionDamaged, match=MANIFEST_FILE):
            again.collection("c")
        assert (tmp_path / "c" / MANIFEST_FILE).read_bytes() == damage
        again.close()


def test_a_dropped_collection_leaves_no_file(tmp_path, shelf):
    shelf.create(INFO)
    shelf.drop("c")
    removed()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Invalid):
        shelf.describe("c")


def test_nothing_is_written_on_a_disk_all_but_full_and_reading_goes_on(monkeypatch, shelf):
    shelf.create(INFO)
    full = SimpleNamespace(free=disk.WRITE_FREE_BYTES_MIN - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    for write in (lambda: shelf.update(UpsertPoints("c", [])), lambda: shelf.create(CollectionInfo("d", 2, "m"))):
        with pytest.raises(Unavailable, match="less than 96 MiB") as caught:
            write()
        assert caught.value.code == "disk_full"
    assert shelf.describe("c").chunks == 0
    assert shelf.create(INFO).name == "c"
    shelf.drop("c")
    full.free += 1
    assert shelf.create(INFO).name == "c"


def test_nothing_is_opened_on_a_full_disk_where_that_ended_the_process_and_again_once_there_is_room(
    tmp_path, monkeypatch, shelf
):
    shelf.create(INFO)
    shelf.close()
    full = SimpleNamespace(free=disk.WRITE_FREE_BYTES_MIN - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    again = CollectionRegistry(tmp_path)
    again.disk_starved = True
    with pytest.raises(Unavailable) as caught:
        again.reader("c")
    assert caught.value.code == "disk_full"
    assert again.describe("c").state == STATE_CLOSED
    full.free += 1
    assert again.reader("c") is not None
    again.close()


def test_what_is_opened_to_be_proven_takes_no_place_from_what_is_used(tmp_path, monkeypatch, shelf):
    for name in "abcd":
        shelf.create(CollectionInfo(name, 2, "m"))
    shelf.close()
    for name in "bcd":
        (tmp_path / name / CHECKPOINT_FILE).unlink()
    monkeypatch.setattr(
        "penstock.stores.backends.edge.collection_registry.CollectionLru",
        lambda: CollectionLru(open_max=2, keep_open=1),
    )
    again = CollectionRegistry(tmp_path)
    again.reader("a")
    again.check_unverified(60.0)
    assert [(one.name, one.state) for one in again.describe_all()] == [
        ("a", STATE_OPEN),
        ("b", STATE_CLOSED),
        ("c", STATE_CLOSED),
        ("d", STATE_CLOSED),
    ]
    assert all((tmp_path / name / CHECKPOINT_FILE).exists() for name in "bcd")
    again.close()


def test_two_shelves_on_one_directory_are_told_apart(tmp_path, shelf):
    shelf.create(INFO)
    with pytest.raises(Unavailable, match="another process") as caught:
        CollectionRegistry(tmp_path)
    assert caught.value.code == "store_locked"


def test_the_size_on_disk_is_told(shelf):
    assert shelf.create(INFO).disk_bytes > 0


def test_a_head_that_is_gone_cannot_be_sealed(shelf):
    shelf.create(INFO)
    with pytest.raises(Unavailable) as caught:
        shelf.shard("c").seal_document(DocumentInfo("a", "h", 1))
    assert caught.value.code == "write_conflict"


def test_sources_are_listed_without_opening_their_collection_and_outlive_a_restart(tmp_path, shelf):
    shelf.create(INFO)
    shelf.put_source("c", SourceRecord("s"))
    shelf.put_source("c", SourceRecord("gone"))
    shelf.drop_source("c", "gone")
    shelf.close()
    again = CollectionRegistry(tmp_path)
    try:
        assert again.list_sources("c") == [SourceRecord("s")]
        assert not again.needs_opening(ListSources("c"))
        assert again.describe_all()[0].state == STATE_CLOSED
        with pytest.raises(Invalid):
            again.list_sources("absent")
    finally:
        again.close()


def test_a_collection_made_before_there_were_sources_is_filtered_by_them(shelf):
    shelf.create(INFO)
    shard = shelf.shard("c")
    shard._update(qdrant_edge.UpdateOperation.delete_field_index("source"))
    shard.upsert([point("s:a", source="s"), point("b")])
    assert shard.count_documents([Match("source", ["s"])]) == 1
    assert [head.id for head in shard.list_documents([Match("source", ["s"])], None, 9).documents] == ["s:a"]
    assert shard.delete([Match("source", ["s"])]) == 1
    assert shard.count() == 1
