import msgspec
import pytest

from penstock.kernel.errors import Invalid, Unavailable
from penstock.stores.backends.edge import manifest
from penstock.stores.backends.edge.manifest import FIRST_GENERATION, MANIFEST_FILE, Manifest
from penstock.stores.sources import ROOT_CHARACTERS_MAX, SOURCES_MAX, SourceRecord, SourceRoot

STATED = Manifest("c", 2, "m")


def test_a_manifest_of_a_release_without_generations_names_the_first(tmp_path):
    (tmp_path / MANIFEST_FILE).write_text('{"name": "c", "dim": 2, "model": "m"}')
    assert manifest.read_manifest(tmp_path, "c") == STATED
    assert STATED.generation == FIRST_GENERATION
    assert STATED.shards == 1


def test_generations_are_numbered():
    assert STATED.next_generation == "g2"
    assert Manifest("c", 2, "m", generation="g9").next_generation == "g10"


def test_what_is_written_is_read(tmp_path):
    stated = Manifest("c", 2, "m", generation="g3", shards=2)
    manifest.write_manifest(tmp_path, stated)
    assert manifest.read_manifest(tmp_path, "c") == stated
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_FILE]


@pytest.mark.parametrize("generation", ["", "..", "g", "g2/../x", "shards", "G2"])
def test_a_generation_that_is_none_is_refused(tmp_path, generation):
    manifest.write_manifest(tmp_path, Manifest("c", 2, "m", generation=generation))
    with pytest.raises(Unavailable, match=MANIFEST_FILE) as caught:
        manifest.read_manifest(tmp_path, "c")
    assert caught.value.code == "store_damaged"


@pytest.mark.parametrize("name", ["d", "..", "../c", "/tmp/c", "c\0", "", ".c", "C"])
def test_a_manifest_that_names_another_place_than_its_own_is_refused(tmp_path, name):
    (tmp_path / "c").mkdir()
    manifest.write_manifest(tmp_path / "c", Manifest(name, 2, "m"))
    with pytest.raises(Unavailable, match=MANIFEST_FILE) as caught:
        manifest.read_manifest(tmp_path / "c")
    assert caught.value.code == "store_damaged"


@pytest.mark.parametrize(
    "changed", [{"dim": 0}, {"shards": 0}, {"token_dim": -1}, {"indexed": -1}, {"model": "m" * 1000}], ids=str
)
def test_a_manifest_out_of_bounds_is_refused(tmp_path, changed):
    manifest.write_manifest(tmp_path, msgspec.structs.replace(STATED, **changed))
    with pytest.raises(Unavailable, match=MANIFEST_FILE):
        manifest.read_manifest(tmp_path, "c")


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"\xff", b" " * (manifest.MANIFEST_BYTES_MAX + 1)])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path, data):
    (tmp_path / MANIFEST_FILE).write_bytes(data)
    with pytest.raises(Unavailable, match=MANIFEST_FILE):
        manifest.read_manifest(tmp_path, "c")


def test_a_manifest_that_is_no_file_is_refused(tmp_path):
    (tmp_path / MANIFEST_FILE).mkdir()
    with pytest.raises(Unavailable, match=MANIFEST_FILE):
        manifest.read_manifest(tmp_path, "c")


def test_sweeping_leaves_what_the_manifest_names_and_what_is_not_ours(tmp_path):
    for name in ("shard", "g2", "g3", ".g4-17", "notes"):
        (tmp_path / name).mkdir()
    for name in (".g4-17.journal", f".{MANIFEST_FILE}", MANIFEST_FILE):
        (tmp_path / name).write_text("{}")
    manifest.remove_stale_generations(tmp_path, Manifest("c", 2, "m", generation="g2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST_FILE, "g2", "notes"]


def test_sources_are_written_and_read(tmp_path):
    stated = manifest.with_source(STATED, SourceRecord("s", [SourceRoot("h", "/p")]))
    manifest.write_manifest(tmp_path, stated)
    assert manifest.read_manifest(tmp_path, "c").sources["s"].root_on("h") == "/p"
    assert manifest.without_source(stated, "s") == manifest.without_source(STATED, "absent") == STATED


@pytest.mark.parametrize(
    "sources",
    [
        {"a/b": SourceRecord("a/b")},
        {"": SourceRecord("s")},
        {"a": SourceRecord("b")},
        {f"s{number}": SourceRecord(f"s{number}") for number in range(SOURCES_MAX + 1)},
        {"s": SourceRecord("s", [SourceRoot("h", "/" * (ROOT_CHARACTERS_MAX + 1))])},
        {"s": SourceRecord("s", [SourceRoot("h", "/p")] * 100)},
    ],
    ids=range(6),
)
def test_sources_that_no_collection_can_have_are_refused(tmp_path, sources):
    manifest.write_manifest(tmp_path, msgspec.structs.replace(STATED, sources=sources))
    with pytest.raises(Unavailable, match=MANIFEST_FILE):
        manifest.read_manifest(tmp_path, "c")


def test_one_source_too_many_is_refused_by_number_and_by_size():
    full = STATED
    for number in range(SOURCES_MAX):
        full = manifest.with_source(full, SourceRecord(f"s{number}"))
    assert manifest.with_source(full, SourceRecord("s0", commit="new")).sources["s0"].commit == "new"
    with pytest.raises(Invalid) as caught:
        manifest.with_source(full, SourceRecord("more"))
    assert caught.value.code == "too_many_sources"
    roots = [SourceRoot(f"h{number}", "/" * ROOT_CHARACTERS_MAX) for number in range(4)]
    large = {f"s{number}": SourceRecord(f"s{number}", roots) for number in range(15)}
    with pytest.raises(Invalid, match="no room"):
        manifest.with_source(msgspec.structs.replace(STATED, sources=large), SourceRecord("more", roots))
