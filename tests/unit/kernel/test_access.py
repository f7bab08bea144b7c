import hashlib
from dataclasses import replace
from fnmatch import fnmatchcase

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kernel.access import (
    ANYONE,
    PLAIN_ID,
    SCOPES,
    UNAUTHENTICATED,
    AccessDenied,
    ActiveKeys,
    ApiKey,
    KeyRing,
    Principal,
    Scope,
    check_key_name,
    check_pattern,
    digest_of,
    format_key,
    key_errors,
    make_key,
    new_key_id,
    new_secret,
    parse_key,
)
from penstock.kernel.errors import Invalid

NOW_S = 1_800_000_000.0
ID, SECRET = "0a1B2c3D4e5F", "S" * 43
OTHER_ID, OTHER_SECRET = "f5E4d3C2b1A0", "T" * 43
KEY = ApiKey(ID, "ci", digest_of(SECRET), "write", ("team-*",), rate=20)


def ring(**changes):
    return KeyRing([msgspec.structs.replace(KEY, **changes)])


def test_a_key_is_read_as_it_is_written():
    assert parse_key(format_key(ID, SECRET)) == (ID, SECRET)


def test_new_keys_are_keys_and_differ():
    made = {format_key(new_key_id(), new_secret()) for _ in range(100)}
    assert len(made) == 100
    assert all(parse_key(one) for one in made)


def test_a_key_gives_its_principal():
    assert ring().authenticate(format_key(ID, SECRET), NOW_S) == Principal(ID, "ci", Scope.WRITE, ("team-*",), 20)


def test_a_kept_key_does_not_have_its_secret():
    kept = msgspec.json.encode(KEY)
    assert SECRET.encode() not in kept
    assert hashlib.sha256(SECRET.encode()).hexdigest().encode() in kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "psk",
        "psk__",
        format_key(ID, SECRET)[:-1],
        format_key(ID, SECRET) + "x",
        format_key(ID, SECRET) + "\n",
        " " + format_key(ID, SECRET),
        format_key(ID, OTHER_SECRET),
        format_key(OTHER_ID, SECRET),
        format_key(ID, SECRET.lower()),
        format_key(PLAIN_ID, SECRET),
        "x" * 100_000,
        "\x00",
        "é" * 60,
    ],
)
def test_any_other_text_is_unknown(text):
    assert ring().authenticate(text, NOW_S) == "key_unknown"


def test_a_key_of_another_server_is_unknown():
    assert KeyRing().authenticate(format_key(ID, SECRET), NOW_S) == "key_unknown"


def test_a_key_ends_at_its_second():
    text = format_key(ID, SECRET)
    assert isinstance(ring(expires_at=int(NOW_S) + 1).authenticate(text, NOW_S), Principal)
    assert ring(expires_at=int(NOW_S)).authenticate(text, NOW_S) == "key_expired"


def test_a_wrong_secret_of_an_expired_key_is_unknown():
    assert ring(expires_at=1).authenticate(format_key(ID, OTHER_SECRET), NOW_S) == "key_unknown"


def test_a_key_that_a_person_chose_is_known_as_a_whole():
    chosen = KeyRing([ApiKey(PLAIN_ID, "environment", digest_of("correct horse battery staple, twice"), "admin")])
    assert chosen.authenticate("correct horse battery staple, twice", NOW_S) == Principal(PLAIN_ID, "environment")
    assert chosen.authenticate("correct horse", NOW_S) == "key_unknown"


def test_a_scope_includes_those_before_it():
    assert [[one.allows(other) for other in Scope] for one in (Principal(scope=scope) for scope in Scope)] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert [SCOPES[scope.label] for scope in Scope] == list(Scope)


def test_a_refusal_names_the_scope_that_lacks():
    with pytest.raises(AccessDenied, match="scope write, and this key has search") as caught:
        Principal(scope=Scope.SEARCH).require(Scope.WRITE)
    assert (caught.value.code, caught.value.scope) == ("scope_missing", Scope.WRITE)


def test_a_key_without_patterns_may_use_every_collection():
    assert ANYONE.may_see("anything")
    ANYONE.require_collections(["a", "b"])
    ANYONE.require_every_collection()


def test_a_key_with_patterns_may_use_no_other_collection():
    some = replace(ANYONE, collections=("team-*", "docs"))
    assert [some.may_see(name) for name in ("team-a", "team-", "docs", "docs2", "Team-a", "a-team-")] == [
        *[True] * 3,
        *[False] * 3,
    ]
    with pytest.raises(AccessDenied, match="'other'"):
        some.require_collections(["docs", "other"])
    with pytest.raises(AccessDenied, match="every collection"):
        some.require_every_collection()


@given(st.text("ab-*", max_size=8), st.text("ab-", max_size=8))
def test_a_star_is_any_text(pattern, name):
    assert replace(ANYONE, collections=(pattern,)).may_see(name) == fnmatchcase(name, pattern)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "a" * 65, "é", "a\n"])
def test_a_name_that_a_log_line_cannot_show_is_refused(name):
    with pytest.raises(Invalid) as caught:
        check_key_name(name)
    assert caught.value.code == "invalid_name"


@pytest.mark.parametrize("pattern", ["", "a b", "[ab]", "?", "a\n", "a" * 65])
def test_a_pattern_that_matches_no_collection_is_refused(pattern):
    with pytest.raises(Invalid):
        check_pattern(pattern)


def test_each_error_has_the_code_it_stands_under():
    assert {code: error.code for code, error in key_errors().items()} == {code: code for code in key_errors()}


def test_a_made_key_is_like_its_template_with_a_secret_of_its_own():
    template = ApiKey("", "ci", "", "write", ("team-*",), rate=20)
    one, two = (make_key(template, int(NOW_S)) for _ in range(2))
    assert one.text != two.text
    assert KeyRing([one.key]).authenticate(one.text, NOW_S).collections == ("team-*",)
    assert (one.key.created_at, one.key.rate) == (int(NOW_S), 20)
    with pytest.raises(Invalid):
        make_key(msgspec.structs.replace(template, name="a b"), 0)
    with pytest.raises(Invalid):
        make_key(msgspec.structs.replace(template, collections=("a b",)), 0)


def test_keys_are_shown_by_their_number_alone():
    assert SECRET not in repr(ActiveKeys(ring()))
    assert repr(ActiveKeys(ring())) == "<ActiveKeys <KeyRing of 1 keys>>"
    assert (len(ring()), ID in ring(), OTHER_ID in ring()) == (1, True, False)


def test_a_change_of_keys_is_told():
    accepted, told = ActiveKeys(), []
    accepted.replace(ring())
    accepted.on_change = lambda: told.append(accepted.ring)
    accepted.replace(other := KeyRing())
    assert told == [other]


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [("a*b*c", "a1b2c", True), ("a*b*c", "a1c2b", False), ("a*a", "a", False), ("*", "", True), ("**", "x", True)],
)
def test_pieces_of_a_pattern_come_in_their_order(pattern, name, matches):
    assert replace(ANYONE, collections=(pattern,)).may_see(name) is matches


def test_a_request_without_a_key_may_see_nothing():
    assert not any(UNAUTHENTICATED.may_see(name) for name in ("a", "default", "*"))
    assert not UNAUTHENTICATED.allows(Scope.WRITE)
