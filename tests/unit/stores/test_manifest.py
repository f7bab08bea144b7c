import pytest

from penstock.kernel.errors import Unavailable
from penstock.stores.backends.edge import manifest
from penstock.stores.backends.edge.manifest import FIRST, MANIFEST, Manifest

STATED = Manifest("c", 2, "m")


def test_a_manifest_of_a_release_without_generations_names_the_first(tmp_path):
    (tmp_path / MANIFEST).write_text('{"name": "c", "dim": 2, "model": "m"}')
    assert manifest.read(tmp_path) == STATED
    assert STATED.generation == FIRST
    assert STATED.shards == 1


def test_generations_are_numbered():
    assert STATED.following == "g2"
    assert Manifest("c", 2, "m", generation="g9").following == "g10"


def test_what_is_written_is_read(tmp_path):
    stated = Manifest("c", 2, "m", generation="g3", shards=2)
    manifest.write(tmp_path, stated)
    assert manifest.read(tmp_path) == stated
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


@pytest.mark.parametrize("generation", ["", "..", "g", "g2/../x", "shards", "G2"])
def test_a_generation_that_is_none_is_refused(tmp_path, generation):
    manifest.write(tmp_path, Manifest("c", 2, "m", generation=generation))
    with pytest.raises(Unavailable, match=MANIFEST) as caught:
        manifest.read(tmp_path)
    assert caught.value.code == "store_damaged"


def test_sweeping_leaves_what_the_manifest_names_and_what_is_not_ours(tmp_path):
    for name in ("shard", "g2", "g3", ".g4-17", "notes"):
        (tmp_path / name).mkdir()
    for name in (".g4-17.journal", f".{MANIFEST}", MANIFEST):
        (tmp_path / name).write_text("{}")
    manifest.sweep(tmp_path, Manifest("c", 2, "m", generation="g2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, "g2", "notes"]
