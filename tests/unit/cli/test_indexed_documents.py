from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.indexed_documents import IndexedDocuments


def known(listing):
    made = IndexedDocuments()
    for id_, hash_ in listing.items():
        made.add(id_, hash_)
    made.freeze()
    return made


def test_an_empty_collection_knows_nothing():
    nothing = known({})
    assert not nothing.mark_seen("a")
    assert not nothing.mark_if_unchanged("a", "h")
    assert not nothing.has_vanished("a")
    assert nothing.unseen == len(nothing) == 0


def test_what_was_written_incompletely_is_there_but_not_worth_comparing():
    made = known({"a": ""})
    assert not made.mark_seen("a")
    assert not made.is_unchanged("a")
    assert not made.has_vanished("a")


def test_names_that_are_no_text_do_no_harm():
    made = known({"a\udcff": "h"})
    assert made.mark_seen("a\udcff")
    assert made.mark_if_unchanged("a\udcff", "h")


@given(
    st.dictionaries(st.text(max_size=3), st.sampled_from(["", "1", "2"])),
    st.dictionaries(st.text(max_size=3), st.sampled_from(["1", "2"])),
)
def test_afterwards_the_collection_would_be_what_was_found(before, found):
    made = known(before)
    for id_, hash_ in found.items():
        if made.mark_seen(id_):
            made.mark_if_unchanged(id_, hash_)
    sent = {id_ for id_ in found if not made.is_unchanged(id_)}
    assert sent == {id_ for id_, hash_ in found.items() if before.get(id_) != hash_}
    assert {id_ for id_ in before if made.has_vanished(id_)} == set(before) - set(found)
    assert made.unseen == len(set(before) - set(found))
