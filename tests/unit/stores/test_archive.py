"""Snapshots as files: what goes in comes out, and what is not whole is refused before anything is touched."""

import pytest

from penstock.kernel.errors import Invalid
from penstock.stores.backends.edge import archive
from penstock.stores.backends.edge.archive import Directory, File, Opening, opening_of, pack, unpack
from penstock.stores.backends.edge.manifest import Manifest

OPENING = Opening("0.1", "2026-01-01T00:00:00+00:00", [Manifest("c", 2, "m")])
HOLE = 16 << 20


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "source"
    (directory / "c" / "empty").mkdir(parents=True)
    (directory / "c" / "plain").write_bytes(b"plain" * 1000)
    (directory / "c" / "nothing").write_bytes(b"")
    with (directory / "c" / "sparse").open("wb") as file:
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
    assert opening_of(packed) == OPENING
    unpack(packed, tmp_path / "target")
    names = {path.relative_to(source) for path in source.rglob("*")}
    assert {path.relative_to(tmp_path / "target") for path in (tmp_path / "target").rglob("*")} == names
    for name in names:
        there = tmp_path / "target" / name
        assert there.is_dir() if (source / name).is_dir() else there.read_bytes() == (source / name).read_bytes()


def test_packing_leaves_no_draft(tmp_path, packed):
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "source"]


@pytest.mark.parametrize("place", [0, 25, 200, -60, -1])
def test_a_changed_byte_is_found(tmp_path, packed, place):
    data = bytearray(packed.read_bytes())
    data[place] ^= 1
    packed.write_bytes(data)
    with pytest.raises(Invalid) as caught:
        unpack(packed, tmp_path / "target")
    assert caught.value.code == "snapshot_damaged"


@pytest.mark.parametrize("length", [0, 10, 22, 300, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path, packed, length):
    packed.write_bytes(packed.read_bytes()[:length])
    with pytest.raises(Invalid) as caught:
        unpack(packed, tmp_path / "target")
    assert caught.value.code == "snapshot_damaged"


def test_something_after_the_end_is_refused(tmp_path, packed):
    packed.write_bytes(packed.read_bytes() + b"more")
    with pytest.raises(Invalid, match="checksum"):
        unpack(packed, tmp_path / "target")


def test_another_file_is_no_snapshot(tmp_path):
    (tmp_path / "other").write_bytes(b"PK" * 100)
    for read in (opening_of, lambda file: unpack(file, tmp_path / "target")):
        with pytest.raises(Invalid, match="no snapshot"):
            read(tmp_path / "other")


@pytest.mark.parametrize("record", [File("../x", 1), File("/tmp/x", 1), Directory("a/../.."), Directory("")])
def test_nothing_is_written_outside(tmp_path, source, monkeypatch, record):
    monkeypatch.setattr(archive, "_records", lambda _: [record])
    pack(source, tmp_path / "s", OPENING)
    with pytest.raises(Invalid, match="leads out"):
        unpack(tmp_path / "s", tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "source", "target"]
