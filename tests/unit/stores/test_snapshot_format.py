"""The rules of what a snapshot may hold: every record that could lead elsewhere or grow without bound is refused."""

import msgspec
import pytest

from penstock.kernel.errors import Invalid
from penstock.stores.backends.edge import snapshot_format
from penstock.stores.backends.edge.manifest import DIM_MAX, MANIFEST_BYTES_MAX, SHARDS_MAX, Manifest
from penstock.stores.backends.edge.snapshot_format import (
    DirectoryEntry,
    FileEntry,
    FileExtent,
    SnapshotContents,
    SnapshotHeader,
    SnapshotTrailer,
    shard_directory_name,
)

STATED = Manifest("c", 2, "m")
DIGEST = b"d" * 32


#: Names of one directory or file that are not plain.
ODD = (
    "..",
    ".",
    "a\0b",
    "a\nb",
    "a\\b",
    "é",
    "\ud7ff",
    "a b",
    "x" * 256,
    "d/" * snapshot_format.DEPTH_MAX + "d",
    "y/" * 600,
)
ODD_PATHS = [f"c/shard/{name}" for name in ODD]

STRANGERS = [
    *map(DirectoryEntry, ("d", "c~1", "c~2", "c~x", "c~99", "c~02", "c/z", "c/shard2")),
    *(FileEntry(path, 1) for path in ("d", "c~2", "c/other", "c/shard2", "c/zz/f")),
]


def opening(*stated, **changed):
    return msgspec.structs.replace(
        SnapshotHeader("0.1", "2026-01-01T00:00:00+00:00", list(stated or (STATED,))), **changed
    )


def part(stated=STATED, number=0, **own):
    """Return the records of a collection's directory; ``own`` changes what its own manifest says."""
    name, data = shard_directory_name(stated.name, number), msgspec.json.encode(msgspec.structs.replace(stated, **own))
    return [
        DirectoryEntry(name),
        FileEntry(f"{name}/collection.json", len(data)),
        FileExtent(0, data),
        DirectoryEntry(f"{name}/{own.get('generation', stated.generation)}"),
    ]


def take(*records):
    found = SnapshotContents()
    for record in records:
        found.add(record)
    return found


def refused(*records):
    with pytest.raises(Invalid) as caught:
        take(*records, SnapshotTrailer(DIGEST))
    assert caught.value.code == "snapshot_damaged"
    return caught.value.detail


WHOLE = [opening(), *part(), FileEntry("c/shard/points", 10), FileExtent(2, b"abc"), FileExtent(5, b"d")]


def test_a_whole_snapshot_is_taken():
    found = take(*WHOLE, SnapshotTrailer(DIGEST))
    assert found.parts == {"c": STATED}
    assert found.digest == DIGEST


def test_no_collection_at_all_is_a_snapshot_too():
    assert take(opening(collections=[]), SnapshotTrailer(DIGEST)).parts == {}


def test_a_collection_of_two_shards_has_two_directories():
    two = msgspec.structs.replace(STATED, shards=2)
    assert list(take(opening(two), *part(two), *part(two, 1), SnapshotTrailer(DIGEST)).parts) == ["c", "c~2"]
    assert "missing" in refused(opening(two), *part(two))


@pytest.mark.parametrize("path", ["", ".", "..", "/", "/etc/passwd", "../x", "c/../../x", "c//x", "c/", *ODD_PATHS])
def test_a_path_that_is_not_plain_is_refused(path):
    assert "leads out" in refused(*WHOLE, FileEntry(path, 1))
    assert "leads out" in refused(*WHOLE, DirectoryEntry(path))


@pytest.mark.parametrize("record", STRANGERS, ids=repr)
def test_what_belongs_to_no_collection_is_refused(record):
    refused(*WHOLE, record)


@pytest.mark.parametrize(
    "again",
    [
        DirectoryEntry("c"),
        FileEntry("c/collection.json", 3),
        DirectoryEntry("c/shard"),
        FileEntry("c/shard/points", 3),
        FileEntry("c/shard/a", 3),
    ],
)
def test_what_comes_twice_or_out_of_order_is_refused(again):
    assert "twice or out of order" in refused(*WHOLE, again)


def test_a_file_lies_in_a_directory_that_is_there():
    assert "no directory" in refused(*WHOLE, FileEntry("c/shard/z/f", 1))
    assert "no directory" in refused(opening(), DirectoryEntry("c"), FileEntry("c/shard/f", 1))
    take(*WHOLE, DirectoryEntry("c/shard/z"), FileEntry("c/shard/z/f", 1))


@pytest.mark.parametrize("size", [-1, snapshot_format.FILE_BYTES_MAX + 1, 1 << 62, (1 << 63) - 1])
def test_a_file_that_no_disk_holds_is_refused(size):
    assert "bytes" in refused(*WHOLE, FileEntry("c/shard/z", size))


def test_a_file_of_nothing_but_holes_is_refused():
    assert "holes" in refused(*WHOLE, FileEntry("c/shard/z", snapshot_format.HOLE_BYTES_MAX + 1))
    take(*WHOLE, FileEntry("c/shard/z", snapshot_format.HOLE_BYTES_MAX))


@pytest.mark.parametrize("offset", [-1, 5, 8, 1 << 40, 1 << 62, (1 << 63) - 1])
def test_bytes_outside_of_their_file_or_over_others_are_refused(offset):
    assert "outside" in refused(*WHOLE, FileExtent(offset, b"abc"))


def test_bytes_of_no_file_are_refused():
    assert "no file" in refused(opening(), FileExtent(0, b"x"))
    assert "no file" in refused(*WHOLE, DirectoryEntry("c/shard/z"), FileExtent(0, b"x"))


def test_it_begins_with_its_opening_and_has_one():
    assert "begin" in refused(DirectoryEntry("c"))
    assert "twice" in refused(*WHOLE, opening())


@pytest.mark.parametrize(
    "changed",
    [
        {"name": name}
        for name in ("", "..", ".hid", "a/b", "/tmp/x", "../x", "x" * 65, "a\0b", "c\x1b[31m\nX", "a~2", "é")
    ]
    + [{"dim": 0}, {"dim": -1}, {"dim": DIM_MAX + 1}, {"shards": 0}, {"shards": -1}, {"shards": SHARDS_MAX + 1}]
    + [{"token_dim": -1}, {"token_dim": 1 << 40}, {"indexed": -1}, {"chunks": -1}, {"documents": 1 << 62}]
    + [{"generation": name} for name in ("", "..", "g2/../x", "collection.json", "g" + "9" * 100)]
    + [{"model": "m" * 1000}, {"model": "m\n"}, {"sparse": "\x1b"}, {"created_at": "x" * 1000}],
)
def test_what_is_no_collection_is_refused_in_the_opening_and_inside(changed):
    stated = msgspec.structs.replace(STATED, **changed)
    refused(opening(stated))
    refused(opening(), *part(**changed))


@pytest.mark.parametrize(
    "own",
    [{"name": "d"}, {"model": "other"}, {"dim": 3}, {"shards": 2}, {"token_dim": 64}, {"sparse": "other"}],
    ids=str,
)
def test_the_opening_and_a_collections_own_manifest_agree(own):
    refused(opening(), *part(**own))


def test_a_collections_own_generation_counts():
    assert take(opening(), *part(generation="g7"), SnapshotTrailer(DIGEST)).parts["c"].generation == "g7"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"x":' * 20_000, b'{"name":"c","dim":2,"model":"\xff"}'])
def test_a_manifest_that_cannot_be_read_is_refused(data):
    records = [
        DirectoryEntry("c"),
        FileEntry("c/collection.json", len(data)),
        FileExtent(0, data),
        DirectoryEntry("c/shard"),
    ]
    refused(opening(), *records)


def test_a_manifest_without_end_is_refused():
    assert "longer" in refused(opening(), DirectoryEntry("c"), FileEntry("c/collection.json", MANIFEST_BYTES_MAX + 1))


def test_a_collection_without_manifest_or_points_is_refused():
    refused(opening(), DirectoryEntry("c"))
    refused(opening(), *part()[:-1])
    refused(opening(), DirectoryEntry("c"), DirectoryEntry("c/shard"))
    refused(opening())


def test_a_collection_is_there_once_and_there_are_not_too_many():
    assert "twice" in refused(opening(STATED, STATED))
    many = [Manifest(f"c{n}", 2, "m") for n in range(snapshot_format.SNAPSHOT_COLLECTIONS_MAX + 1)]
    assert "more than" in refused(opening(*many))


def test_files_are_counted(monkeypatch):
    monkeypatch.setattr(snapshot_format, "SNAPSHOT_ENTRIES_MAX", 4)
    assert "more than" in refused(*WHOLE, FileEntry("c/shard/z", 1))


@pytest.mark.parametrize("changed", [{"version": "v" * 1000}, {"version": "\x1b[31m"}, {"made_at": "\n"}])
def test_an_opening_of_strange_texts_is_refused(changed):
    assert "no version" in refused(opening(**changed))
