from hypothesis import given
from hypothesis import strategies as st

from penstock.indexing.sources.indexed_documents import IndexedDocuments


def known(listing):
    made = IndexedDocuments()
    for id_, hash_ in listing.items():
        made.add(id_, hash_)
    made.freeze()
    return made


def unread():
    raise AssertionError("the file need not be read")


def test_an_empty_collection_knows_nothing():
    nothing = known({})
    assert not nothing.is_unchanged("a", unread)
    assert not nothing.was_unchanged("a")
    assert not nothing.has_vanished("a")
    assert nothing.unseen == 0


def test_what_was_written_incompletely_is_there_but_not_worth_comparing():
    made = known({"a": ""})
    assert not made.is_unchanged("a", unread)
    assert not made.was_unchanged("a")
    assert not made.has_vanished("a")


def test_names_that_are_no_text_do_no_harm():
    made = known({"a\udcff": "h"})
    assert made.is_unchanged("a\udcff", lambda: "h")


@given(
    st.dictionaries(st.text(max_size=3), st.sampled_from(["", "1", "2"])),
    st.dictionaries(st.text(max_size=3), st.sampled_from(["1", "2"])),
)
def test_afterwards_the_collection_would_be_what_was_found(before, found):
    made = known(before)
    unchanged = {id_ for id_, hash_ in found.items() if made.is_unchanged(id_, lambda hash_=hash_: hash_)}
    assert unchanged == {id_ for id_ in found if made.was_unchanged(id_)}
    assert set(found) - unchanged == {id_ for id_, hash_ in found.items() if before.get(id_) != hash_}
    assert {id_ for id_ in before if made.has_vanished(id_)} == set(before) - set(found)
    assert made.unseen == len(set(before) - set(found))
