"""Stores of keys: a file, and a real Redis."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.kernel.access import ApiKey, NewKey, make_key
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.settings import RedisSettings
from penstock.stores import key_store
from penstock.stores.backends.redis.keys import SharedKeys
from penstock.stores.key_store import KEYS_FILE, KeyFile, KeyRotation, KeyStore, find_keys, with_key, without_keys
from tests.rigs import redis

NOW_S = 1_800_000_000


@pytest.fixture(params=["file", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], KeyStore]]:
    """Return a function that opens the store: each time as another process would."""
    if request.param == "file":
        yield lambda: KeyFile(tmp_path / "data" / KEYS_FILE)
        return
    redis.needed()
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    with redis.redis(tmp_path / "redis", persistent=False) as one:
        yield lambda: SharedKeys(RedisSettings(url=one.url), prefix)


def new(name: str = "ci", **more: object) -> NewKey:
    return make_key(ApiKey("", name, "", **more), NOW_S)


def test_where_there_never_were_keys_there_are_none(opened):
    async def scenario():
        store = opened()
        assert await store.read() is None
        await store.change(lambda keys: keys)
        assert await store.read() == []
        await store.close()

    asyncio.run(scenario())


def test_what_one_process_writes_another_reads(opened):
    async def scenario():
        ours, theirs = opened(), opened()
        made = [new("ci", scope="write", collections=("team-*",), expires_at=NOW_S + 9, rate=20.0), new("other")]
        for one in made:
            await ours.change(with_key(one.key))
        assert await theirs.read() == [one.key for one in made]
        await theirs.change(without_keys("ci"))
        assert await ours.read() == [made[1].key]
        await ours.close()
        await theirs.close()

    asyncio.run(scenario())


def test_of_changes_at_once_none_is_lost(opened):
    async def scenario():
        stores = [opened() for _ in range(4)]
        await asyncio.gather(*(store.change(with_key(new(f"k{n}").key)) for n, store in enumerate(stores * 3)))
        assert {key.name for key in await stores[0].read() or ()} == {f"k{n}" for n in range(12)}
        for store in stores:
            await store.close()

    asyncio.run(scenario())


def test_a_change_that_is_refused_changes_nothing(opened):
    async def scenario():
        store = opened()
        await store.change(with_key(new("ci").key))
        before = await store.read()
        for edit, code in ((with_key(new("ci").key), "key_exists"), (without_keys("nobody"), "key_not_found")):
            with pytest.raises(Invalid) as caught:
                await store.change(edit)
            assert caught.value.code == code
        assert await store.read() == before
        await store.close()

    asyncio.run(scenario())


def test_a_rotation_ends_the_former_keys_in_time():
    forever, ending = (new("ci", expires_at=at).key for at in (0, NOW_S + 5))
    other = new("other").key
    rotation = KeyRotation(forever.id, NOW_S + 1, 60)
    after = rotation([forever, other, ending])
    assert [(key.name, key.expires_at) for key in after[:3]] == [("ci", NOW_S + 61), ("other", 0), ("ci", NOW_S + 5)]
    assert after[3] == rotation.new.key
    assert (after[3].name, after[3].expires_at, after[3].created_at) == ("ci", 0, NOW_S + 1)
    assert rotation.former == [forever, ending]
    assert find_keys(after, forever.id) == after[:1]
    again = KeyRotation("ci", NOW_S + 2, 60)(after)
    assert [key.expires_at for key in again] == [NOW_S + 61, 0, NOW_S + 5, NOW_S + 62, 0]


def test_a_key_that_was_revoked_meanwhile_is_not_rotated():
    with pytest.raises(Invalid) as caught:
        KeyRotation("ci", NOW_S, 60)([])
    assert caught.value.code == "key_not_found"


def test_a_name_and_another_keys_id_are_not_the_same():
    prod = new("prod").key
    with pytest.raises(Invalid) as caught:
        with_key(new(prod.id).key)([prod])
    assert caught.value.code == "key_exists"


def test_a_change_waits_for_another_and_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(key_store, "LOCK_ATTEMPTS_MAX", 3)
    file = KeyFile(tmp_path / KEYS_FILE)
    with (tmp_path / "keys.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable) as caught:
            asyncio.run(file.change(with_key(new().key)))
        assert caught.value.code == "keys_locked"
    asyncio.run(file.change(with_key(new().key)))
    assert len(file.read_now() or ()) == 1


def test_a_change_that_is_given_up_while_it_waits_changes_nothing(tmp_path):
    async def scenario() -> None:
        file = KeyFile(tmp_path / KEYS_FILE)
        with (tmp_path / "keys.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            waiting = asyncio.create_task(file.change(with_key(new().key)))
            await asyncio.sleep(0.1)  # let it wait for the lock, which no clock of ours decides
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert await file.read() is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b'{"keys": 1}',
        b'{"keys": [], "version": 2}',
        b'{"keys": [{"id": "x"}]}',
        b'{"keys": [{"id": "AAAAAAAAAAAA", "name": "a b", "digest": "00"}]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_keys_that_cannot_be_read_are_told_and_left_alone(data, tmp_path):
    file = tmp_path / KEYS_FILE
    file.write_bytes(data)
    store = KeyFile(file)
    for attempt in (store.read(), store.change(with_key(new().key))):
        with pytest.raises(Invalid) as caught:
            asyncio.run(attempt)
        assert caught.value.code == "keys_unreadable"
        assert str(file) in caught.value.detail
    assert file.read_bytes() == data


def test_a_pipe_in_the_place_of_the_file_holds_nobody(tmp_path):
    os.mkfifo(tmp_path / KEYS_FILE)
    with pytest.raises(Invalid):
        asyncio.run(KeyFile(tmp_path / KEYS_FILE).read())


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(Unavailable) as caught:
        asyncio.run(KeyFile(tmp_path / "data" / KEYS_FILE).change(with_key(new().key)))
    assert caught.value.code == "keys_not_written"


def test_the_file_is_for_its_owner_and_has_no_secret(tmp_path):
    before = os.umask(0)
    try:
        made = new()
        asyncio.run(KeyFile(tmp_path / "data" / KEYS_FILE).change(with_key(made.key)))
    finally:
        os.umask(before)
    file = tmp_path / "data" / KEYS_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert made.text.rpartition("_")[2] not in file.read_text()
    assert json.loads(file.read_text())["keys"][0]["name"] == "ci"
    assert {path.name for path in file.parent.iterdir()} == {KEYS_FILE, "keys.lock"}
