from penstock.indexing.digest import document_hash


def test_the_order_of_metadata_does_not_matter():
    assert document_hash("t", "p", "l", {"a": 1, "b": 2}) == document_hash("t", "p", "l", {"b": 2, "a": 1})


def test_everything_that_shapes_the_points_counts():
    hashes = {
        document_hash("t", "p", "l", {}),
        document_hash("u", "p", "l", {}),
        document_hash("t", "q", "l", {}),
        document_hash("t", "p", "m", {}),
        document_hash("t", "p", "l", {"a": 1}),
    }
    assert len(hashes) == 5


def test_fields_cannot_run_into_each_other():
    assert document_hash("ab", "c", "", {}) != document_hash("a", "bc", "", {})
