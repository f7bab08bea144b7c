"""A released archive mutated, its digest right or wrong: it is read whole or refused, and nothing else happens."""

import random
import tracemalloc

import pytest

from penstock.kernel.errors import Invalid
from penstock.stores.backends.edge.archive import FRAME_BYTES_MAX, open_file, read_header, unpack, verify
from tests.fakes.archives import mutated, packed, records, released, rotten, scratched

SEEDS = 8
EACH = 40


def tried(data, place):
    """Restore an archive as far as its file goes; return whether that was done, having looked where it wrote."""
    (place / "s").write_bytes(data)
    before = sorted(place.iterdir())
    target = place / "target"
    try:
        with open_file(place / "s") as reader:
            opening = read_header(reader)
            verified = verify(reader)
            assert verified.header == opening
            assert sorted(place.iterdir()) == before, "nothing is written before all is checked"
            unpack(reader, target, verified)
    except Invalid as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.code == "snapshot_damaged"
        assert len(refused.detail) < 3000
        assert sorted(place.iterdir()) == before
        return False
    assert sorted(place.iterdir()) == sorted([*before, target])
    assert {path.name for path in target.iterdir()} == set(verified.parts)
    assert not [path for path in target.rglob("*") if path.is_symlink() or not (path.is_dir() or path.is_file())]
    return True


@pytest.fixture
def places(tmp_path):
    """Return a function that gives an empty directory each time, two levels below the one that is looked at."""
    made = iter(range(10_000))

    def place():
        directory = tmp_path / "below" / str(next(made))
        directory.mkdir(parents=True)
        return directory

    yield place
    assert [path.name for path in tmp_path.iterdir()] == ["below"]


def test_what_is_not_mutated_is_read(places):
    for shards in (1, 2):
        assert tried(released(shards), places())
        assert tried(packed(records(released(shards))), places())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_an_archive_with_a_right_digest_is_read_whole_or_refused(places, seed):
    luck, whole = random.Random(seed), records(released(1 + seed % 2))
    done = [tried(mutated(whole, luck), places()) for _ in range(EACH)]
    assert done.count(False) > EACH / 4


@pytest.mark.parametrize("seed", range(SEEDS))
def test_an_archive_with_other_bytes_is_refused(places, seed):
    luck, whole = random.Random(seed), released()
    for _ in range(EACH):
        data = scratched(whole, luck)
        assert tried(data, places()) == (data == whole)


def test_rotten_files_in_a_right_form_are_unpacked(places):
    # What they are to the engine is found out by the proof.
    assert tried(rotten(records(released()), random.Random(1)), places())


def test_a_mutation_costs_no_more_memory_than_a_frame(places):
    luck, whole = random.Random(0), records(released())
    made = [mutated(whole, luck) for _ in range(20)]
    tracemalloc.start()
    try:
        for data in made:
            tried(data, places())
        # Three copies of the longest frame, and what is remembered of the archive.
        assert tracemalloc.get_traced_memory()[1] < 4 * FRAME_BYTES_MAX
    finally:
        tracemalloc.stop()
