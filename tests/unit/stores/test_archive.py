"""Snapshots as files: what goes in comes out, and what is not whole is refused before anything is touched."""

import os
import threading
import tracemalloc

import pytest

from penstock.kernel.errors import Invalid
from penstock.stores.backends.edge import archive, disk, manifest, snapshot_format
from penstock.stores.backends.edge.archive import open_file, pack, read_file_header, unpack, verify
from penstock.stores.backends.edge.manifest import MANIFEST_FILE, Manifest
from penstock.stores.backends.edge.snapshot_format import SnapshotHeader

STATED = Manifest("c", 2, "m")
OPENING = SnapshotHeader("0.1", "2026-01-01T00:00:00+00:00", [STATED])
HOLE = 16 << 20


def restore(file, target):
    with open_file(file) as reader:
        unpack(reader, target, verify(reader))


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "source"
    shard = directory / "c" / "shard"
    (shard / "empty").mkdir(parents=True)
    manifest.write_manifest(directory / "c", STATED)
    (shard / "plain").write_bytes(b"plain" * 1000)
    (shard / "nothing").write_bytes(b"")
    with (shard / "sparse").open("wb") as file:
        file.seek(HOLE)
        file.write(b"after")
        file.truncate(2 * HOLE)
    return directory


@pytest.fixture
def packed(tmp_path, source):
    pack(source, tmp_path / "s", OPENING)
    return tmp_path / "s"


def test_what_goes_in_comes_out_and_holes_take_no_room(tmp_path, source, packed):
    assert packed.stat().st_size < HOLE
    assert read_file_header(packed) == OPENING
    restore(packed, tmp_path / "target")
    names = {path.relative_to(source) for path in source.rglob("*")}
    assert {path.relative_to(tmp_path / "target") for path in (tmp_path / "target").rglob("*")} == names
    for name in names:
        there = tmp_path / "target" / name
        assert there.is_dir() if (source / name).is_dir() else there.read_bytes() == (source / name).read_bytes()


def test_what_it_holds_is_told_by_reading_it_once(packed):
    with open_file(packed) as reader:
        found = verify(reader)
    assert found.parts == {"c": STATED}
    assert found.entries == 7
    assert 5005 < found.data_bytes < HOLE


def test_packing_leaves_no_draft(tmp_path, packed):
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "source"]


def test_what_could_not_be_restored_is_not_packed(tmp_path, source):
    (source / "c" / "shard" / "odd\nname").write_bytes(b"")
    with pytest.raises(Invalid, match="no plain path"):
        pack(source, tmp_path / "s", OPENING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_packing_that_is_stopped_or_finds_no_room_leaves_nothing(tmp_path, source, monkeypatch):
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(OSError, match="canceled"):
        pack(source, tmp_path / "s", OPENING, stopped)
    monkeypatch.setattr(disk, "COPY_FREE_BYTES_MIN", 1 << 62)
    with pytest.raises(OSError, match="No space left"):
        pack(source, tmp_path / "s", OPENING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_packing_and_reading_hold_a_piece_in_memory_and_not_the_whole(tmp_path, source):
    (source / "c" / "shard" / "large").write_bytes(os.urandom(40 << 20))
    tracemalloc.start()
    try:
        pack(source, tmp_path / "s", OPENING)
        restore(tmp_path / "s", tmp_path / "target")
        assert tracemalloc.get_traced_memory()[1] < 8 * archive.EXTENT_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("place", [0, 25, 200, -60, -1])
def test_a_changed_byte_is_found(tmp_path, packed, place):
    data = bytearray(packed.read_bytes())
    data[place] ^= 1
    packed.write_bytes(data)
    with pytest.raises(Invalid) as caught:
        restore(packed, tmp_path / "target")
    assert caught.value.code == "snapshot_damaged"
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("length", [0, 10, 22, 300, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path, packed, length):
    packed.write_bytes(packed.read_bytes()[:length])
    with pytest.raises(Invalid) as caught:
        restore(packed, tmp_path / "target")
    assert caught.value.code == "snapshot_damaged"
    assert not (tmp_path / "target").exists()


def test_something_after_the_end_is_refused(tmp_path, packed):
    packed.write_bytes(packed.read_bytes() + b"more")
    with pytest.raises(Invalid, match="checksum"):
        restore(packed, tmp_path / "target")


def test_another_file_is_no_snapshot(tmp_path):
    (tmp_path / "other").write_bytes(b"PK" * 100)
    for read in (read_file_header, lambda file: restore(file, tmp_path / "target")):
        with pytest.raises(Invalid, match="no snapshot"):
            read(tmp_path / "other")


def test_a_link_a_pipe_and_a_directory_are_no_snapshots(tmp_path, packed):
    (tmp_path / "link").symlink_to(packed)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("link", "pipe", "directory"):
        with pytest.raises(Invalid) as caught:
            read_file_header(tmp_path / name)
        assert caught.value.code == "snapshot_damaged"


def test_a_file_that_changes_after_it_was_checked_is_noticed(tmp_path, source, packed):
    (source / "c" / "shard" / "plain").write_bytes(b"other" * 1000)
    pack(source, tmp_path / "other", OPENING)
    with open_file(packed) as reader:
        verified = verify(reader)
        packed.write_bytes((tmp_path / "other").read_bytes())
        with pytest.raises(Invalid, match="changed while it was read"):
            unpack(reader, tmp_path / "target", verified)


def test_a_restore_that_is_stopped_ends(tmp_path, packed):
    stopped = threading.Event()
    stopped.set()
    with open_file(packed) as reader, pytest.raises(OSError, match="canceled"):
        unpack(reader, tmp_path / "target", snapshot_format.SnapshotContents(), stopped)


def test_a_manifest_is_the_only_file_beside_the_points(source):
    assert sorted(path.name for path in (source / "c").iterdir()) == [MANIFEST_FILE, "shard"]
