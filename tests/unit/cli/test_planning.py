from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.planning import Root, Target, batches, listed_roots, plan, target
from penstock.cli.records import Listed

ROOT = Path("/p")


def one(name, size=1):
    return Target(f"/p/{name}", name, ROOT / name, size)


def listing(*entries):
    return {entry.id: entry for entry in entries}


def test_new_changed_and_incomplete_files_are_sent_and_unchanged_ones_are_not():
    known = listing(Listed("/p/same", "h1"), Listed("/p/changed", "h2"), Listed("/p/partial", ""))
    targets = [one("new"), one("same"), one("changed"), one("partial")]
    hashes = {"/p/same": "h1", "/p/changed": "other", "/p/partial": ""}
    what = plan(known, targets, hashes, [ROOT])
    assert [each.path for each in what.send] == ["new", "changed", "partial"]
    assert [each.path for each in what.unchanged] == ["same"]
    assert what.remove == []


def test_vanished_files_are_removed_only_below_the_named_paths():
    known = listing(Listed("/p/a/gone"), Listed("/p/b/gone"), Listed("/p/ab"), Listed("note-1"), Listed("/p/a"))
    what = plan(known, [], {}, [Path("/p/a")])
    assert what.remove == ["/p/a/gone", "/p/a"]


def test_what_cannot_be_read_now_has_not_vanished():
    known = listing(Listed("/p/locked/file"), Listed("/p/gone"))
    assert plan(known, [], {}, [ROOT], unseen=[Path("/p/locked")]).remove == ["/p/gone"]


def test_a_named_root_of_the_file_system_covers_everything():
    assert plan(listing(Listed("/x")), [], {}, [Path("/")]).remove == ["/x"]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["", "1", "2"])),
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2"])),
)
def test_afterwards_the_collection_is_what_was_found(before, found):
    known = listing(*(Listed(f"/p/{name}", digest) for name, digest in before.items()))
    hashes = {f"/p/{name}": digest for name, digest in found.items()}
    what = plan(known, [one(name) for name in found], hashes, [ROOT])
    after = {id_: entry.hash for id_, entry in known.items() if id_ not in what.remove}
    after |= {each.id: hashes[each.id] for each in what.send}
    assert after == hashes
    assert {each.id for each in what.send} == {id_ for id_ in hashes if known.get(id_, Listed(id_)).hash != hashes[id_]}


def test_shown_paths_are_relative_to_the_innermost_named_roots_project():
    roots = [Root(Path("/p"), Path("/p")), Root(Path("/p/sub/deep"), Path("/p/sub"))]
    assert target(Path("/p/a.py"), 1, roots).path == "a.py"
    assert target(Path("/p/sub/deep/b.py"), 1, roots).path == "deep/b.py"
    assert target(Path("/p/sub/deep/b.py"), 1, roots).id == "/p/sub/deep/b.py"


def test_a_named_file_is_shown_relative_to_its_project():
    assert target(Path("/p/src/a.py"), 1, [Root(Path("/p/src/a.py"), Path("/p"))]).path == "src/a.py"


def test_a_name_that_is_no_text_has_no_document():
    assert target(Path("/p/b\udcff"), 1, [Root(ROOT, ROOT)]) is None


def test_roots_are_read_off_the_listing():
    entries = [Listed("/p/src/a.py", path="src/a.py"), Listed("/p/b.py", path="b.py"), Listed("note", path="x")]
    assert listed_roots(entries) == [Path("/p")]
    assert listed_roots([Listed("/a.py", path="a.py")]) == [Path("/")]


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 5), st.integers(1, 40))
def test_batches_keep_the_order_and_their_bounds(sizes, count_max, bytes_max):
    items = [(one(str(n)), b"x" * size) for n, size in enumerate(sizes)]
    made = list(batches(items, count_max, bytes_max))
    assert [item for batch in made for item in batch] == items
    for batch in made:
        assert 1 <= len(batch) <= count_max
        assert len(batch) == 1 or sum(len(data) for _, data in batch) <= bytes_max
