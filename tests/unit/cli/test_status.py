from penstock.cli.status import collection_row, damage_lines, warning_lines, with_plain_text, without_late_interaction
from penstock.cli.status_rates import parse_status


def with_collections(*collections):
    return parse_status({"collections": list(collections)})


def test_a_collection_tells_how_much_of_it_is_indexed_or_what_is_being_made():
    status = with_collections(
        {"name": "a", "documents": 10, "chunks": 40, "disk_bytes": 2_000_000, "indexed": 30},
        {"name": "b", "documents": 1, "chunks": 4, "indexed": 0, "upkeep": "optimising"},
        {"name": "c", "documents": 0, "chunks": 0},
    )
    assert collection_row(status.collections[0]) == ["a", "10", "40", "2.0 MB", "75%"]
    assert [collection_row(one)[-1] for one in status.collections[1:]] == ["optimising", ""]


def test_collections_without_token_vectors_are_named():
    old, new, older = {"name": "old"}, {"name": "new", "late": 64}, {"name": "older", "late": 0}
    told = without_late_interaction(with_collections(old, new, older))
    assert told.endswith("until deleted and indexed again: old, older")
    assert without_late_interaction(with_collections(new)) == ""


def test_collections_of_plain_text_are_named():
    told = with_plain_text(with_collections({"name": "old"}, {"name": "new", "text": 2}))
    assert told.startswith("text: 1, ")
    assert told.endswith(": old")
    assert with_plain_text(with_collections({"name": "new", "text": 2})) == ""


def test_a_damaged_collection_is_named_with_its_reason_and_once():
    bad = {"name": "bad", "state": "damaged", "reason": "its page is \x1b[31mgone", "late": 0}
    status = with_collections(bad, {"name": "good", "state": "closed", "late": 64})
    assert [collection_row(one)[-1] for one in status.collections] == ["damaged", ""]
    (line,) = damage_lines(status)
    assert line.startswith("bad is damaged: its page is")
    assert "\x1b" not in line
    assert without_late_interaction(status) == ""
    status = parse_status({"warnings": ["collection 'bad' is damaged: why", "the disk is full"]})
    assert warning_lines(status) == ["the disk is full"]
