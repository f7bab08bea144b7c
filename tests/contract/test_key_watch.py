"""The keys that a server accepts, as their stores change."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.app import key_watch
from penstock.app.key_watch import KeyWatch, requires_keys
from penstock.kernel.access import PLAIN_ID, ApiKey, Principal, make_key
from penstock.kernel.errors import Invalid
from penstock.kernel.settings import Settings
from penstock.stores.key_store import KEYS_FILE, KeyFile, with_key, without_keys

NOW_S = 1_800_000_000
MADE = make_key(ApiKey("", "ci", ""), NOW_S)


def settings(**server: Any) -> Settings:
    plain = Settings()
    return replace(plain, server=replace(plain.server, **server))


def who(watch: KeyWatch, text: str) -> Any:
    assert watch.active.ring is not None
    found = watch.active.ring.authenticate(text, NOW_S)
    return found.name if isinstance(found, Principal) else found


async def stored(directory: Path, edit: Any) -> None:
    await KeyFile(directory / KEYS_FILE).change(edit)


def running(directory: Path, scenario: Any, **server: Any) -> None:
    async def run() -> None:
        watch = KeyWatch(settings(**server), directory)
        await watch.start()
        try:
            await scenario(watch)
        finally:
            await watch.close()

    asyncio.run(run())


def test_without_keys_the_server_is_open_and_the_first_closes_it_for_good(tmp_path):
    async def scenario(watch):
        assert watch.active.ring is None
        await stored(tmp_path, with_key(MADE.key))
        await watch.reload()
        assert [who(watch, MADE.text), who(watch, watch.local.text)] == ["ci", "local"]
        await stored(tmp_path, without_keys("ci"))
        await watch.reload()
        assert [who(watch, MADE.text), who(watch, watch.local.text)] == ["key_unknown", "local"]

    running(tmp_path, scenario)
    assert requires_keys(settings(), tmp_path)


def test_changes_are_seen_without_being_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(key_watch, "POLL_S", 0.01)

    async def scenario(watch):
        await stored(tmp_path, with_key(MADE.key))
        for _ in range(1000):
            if watch.active.ring is not None:
                break
            await asyncio.sleep(0.01)
        assert who(watch, MADE.text) == "ci"

    running(tmp_path, scenario)


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: file.write_text("{")])
def test_keys_that_vanish_or_break_stay_as_they_were_and_that_is_said_once(tmp_path, caplog, harm):
    async def scenario(watch):
        harm(tmp_path / KEYS_FILE)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                await watch.reload()
        assert who(watch, MADE.text) == "ci"
        assert len(caplog.records) == 1

    asyncio.run(stored(tmp_path, with_key(MADE.key)))
    running(tmp_path, scenario)


@pytest.mark.parametrize("harm", [lambda file: file.write_text("{"), Path.mkdir, os.mkfifo])
def test_an_open_server_closes_when_keys_appear_that_it_cannot_read(tmp_path, harm):
    async def scenario(watch):
        assert watch.active.ring is None
        harm(tmp_path / KEYS_FILE)
        await watch.reload()
        assert who(watch, watch.local.text) == "local"

    running(tmp_path, scenario)


def test_a_link_to_nowhere_in_the_place_of_keys_opens_nothing(tmp_path):
    (tmp_path / KEYS_FILE).symlink_to(tmp_path / "nowhere")

    async def scenario(watch):
        assert who(watch, watch.local.text) == "local"

    running(tmp_path, scenario)


def test_a_server_does_not_start_on_keys_that_it_cannot_read(tmp_path):
    (tmp_path / KEYS_FILE).write_text("{")
    with pytest.raises(Invalid):
        running(tmp_path, None)
    (tmp_path / KEYS_FILE).unlink()
    with pytest.raises(Invalid, match="PENSTOCK_KEYS_FILE"):
        running(tmp_path, None, keys_file=str(tmp_path / "nowhere"))


def test_keys_of_a_file_and_of_the_environment_count_too(tmp_path):
    chosen = "correct horse battery staple twice over"

    async def scenario(watch):
        assert [who(watch, text) for text in (MADE.text, chosen)] == ["ci", PLAIN_ID]

    asyncio.run(KeyFile(tmp_path / "mounted.json").change(with_key(MADE.key)))
    running(tmp_path, scenario, keys_file=str(tmp_path / "mounted.json"), api_key=chosen)


def test_the_environments_key_may_have_the_form_of_others(tmp_path):
    async def scenario(watch):
        assert who(watch, MADE.text) == PLAIN_ID

    running(tmp_path, scenario, api_key=MADE.text)


def test_a_chosen_key_that_can_be_guessed_is_refused(tmp_path):
    with pytest.raises(Invalid, match="32 characters"):
        KeyWatch(settings(api_key="secret"), tmp_path)


@pytest.mark.parametrize("text", ["ü" * 40, "tab\t" * 10])
def test_a_chosen_key_that_headers_cannot_carry_is_refused(tmp_path, text):
    with pytest.raises(Invalid, match="printable"):
        KeyWatch(settings(api_key=text), tmp_path)


def test_each_run_has_another_local_key(tmp_path):
    assert KeyWatch(Settings(), tmp_path).local.text != KeyWatch(Settings(), tmp_path).local.text
