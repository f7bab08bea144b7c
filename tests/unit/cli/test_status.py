from penstock.cli.status import collection_rows, damage_lines, warning_lines, without_late_interaction


def test_a_collection_tells_how_much_of_it_is_indexed_or_what_is_being_made():
    collections = [
        {"name": "a", "documents": 10, "chunks": 40, "disk_bytes": 2_000_000, "indexed": 30},
        {"name": "b", "documents": 1, "chunks": 4, "indexed": 0, "upkeep": "optimising"},
        {"name": "c", "documents": 0, "chunks": 0},
    ]
    table = collection_rows(collections)
    assert [row[0] for row in table.rows] == ["a", "b", "c"]
    assert [row[-1] for row in table.rows] == ["75%", "optimising", ""]


def test_collections_without_token_vectors_are_named():
    assert without_late_interaction(
        [{"name": "old"}, {"name": "new", "late": 64}, {"name": "older", "late": 0}]
    ).endswith("until deleted and indexed again: old, older")
    assert without_late_interaction([{"name": "new", "late": 64}]) == ""


def test_a_damaged_collection_is_named_with_its_reason_and_once():
    bad = {"name": "bad", "state": "damaged", "reason": "its page is \x1b[31mgone", "late": 0}
    collections = [bad, {"name": "good", "state": "closed", "late": 64}]
    assert [row[-1] for row in collection_rows(collections).rows] == ["damaged", ""]
    (line,) = damage_lines(collections)
    assert line.startswith("bad is damaged: its page is")
    assert "\x1b" not in line
    assert without_late_interaction(collections) == ""
    warnings = ["collection 'bad' is damaged: why", "the disk is full"]
    assert warning_lines({"warnings": warnings}) == ["the disk is full"]
