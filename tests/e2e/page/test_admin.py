"""Administration in a real browser: what destroys asks for the name, a secret is shown once, everybody can use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e.conftest import Server, penstock_json, start
from tests.e2e.page.conftest import accessibility_violations, fits, index

SECTIONS: Final = ("collections", "sources", "tasks", "keys", "alerts", "snapshots")


def row(page: Page, name: str) -> Any:
    return page.locator("tbody tr").filter(has_text=name)


def confirm(page: Page, name: str, verb: str) -> None:
    """Type a name into the question, and see that nothing less will do."""
    dialog = page.get_by_role("dialog")
    button = dialog.get_by_role("button", name=verb)
    expect(button).to_be_disabled()
    dialog.get_by_role("textbox").fill(name[:-1])
    expect(button).to_be_disabled()
    dialog.get_by_role("textbox").fill(name)
    button.click()
    expect(dialog).to_have_count(0)


def test_a_collection_is_made_and_deleted_by_its_name(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/admin")
    page.get_by_label("New collection").fill("for a while")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("New collection").fill("for-a-while")
    page.get_by_role("button", name="Create").click()
    row(page, "for-a-while").get_by_role("button", name="Delete for-a-while").click()
    confirm(page, "for-a-while", "Delete")
    expect(row(page, "for-a-while")).to_have_count(0)
    expect(row(page, "default")).to_contain_text("ready")


def test_a_source_tells_its_run_and_is_deleted_by_its_name(server: Server, tmp_path: Path, page: Page) -> None:
    index(server, tmp_path / "leaving", {"a.md": "# A\n\nA.\n"}, "--collection", "left")
    page.goto(f"{server.url}/admin#sources")
    expect(row(page, "leaving")).to_contain_text("1 indexed")
    row(page, "leaving").get_by_role("button", name="Delete leaving").click()
    confirm(page, "leaving", "Delete")
    expect(row(page, "leaving")).to_have_count(0)


def test_a_snapshot_is_made_as_a_task_restored_and_deleted(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/admin#snapshots")
    page.get_by_role("button", name="Make a snapshot").click()
    expect(page.get_by_text("The snapshot is being made.")).to_be_visible()
    restore = page.get_by_role("button", name=re.compile("^Restore "))
    expect(restore).to_be_enabled()
    name = page.locator("tbody th").inner_text()
    restore.click()
    confirm(page, name, "Restore")
    expect(page.get_by_text("The snapshot is being restored.")).to_be_visible()
    page.get_by_role("link", name="Tasks").first.click()
    expect(row(page, "restore snapshot")).to_contain_text("succeeded")
    row(page, "make snapshot").get_by_role("button", name="Result").click()
    expect(page.get_by_role("dialog")).to_contain_text(name)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Snapshots").click()
    page.get_by_role("button", name=re.compile("^Delete ")).click()
    confirm(page, name, "Delete")
    expect(page.get_by_text("There is none yet.")).to_be_visible()


def test_the_first_key_closes_the_server_and_signs_in(data_dir: Path, page: Page) -> None:
    server = start(data_dir)
    try:
        page.goto(f"{server.url}/admin#keys")
        expect(page.get_by_text("This server is open")).to_be_visible()
        page.get_by_role("button", name="Make the first key").click()
        page.get_by_label("Name").fill("owner")
        expect(page.get_by_role("button", name="Make the key")).to_be_disabled()
        page.get_by_label("Close the server").check()
        page.get_by_role("button", name="Make the key").click()
        secret = page.locator(".secret code").inner_text()
        assert secret.startswith("psk_")
        page.get_by_role("button", name="I have kept it").click()
        expect(row(page, "owner")).to_contain_text("yours")
        assert secret not in page.content()
        with server.client() as client:
            assert client.get("/v1/status").status_code == 401
            assert client.get("/v1/status", headers={"x-api-key": secret}).status_code == 200

        page.get_by_role("button", name="Make a key").click()
        page.get_by_label("Name").fill("not a name")
        page.get_by_role("button", name="Make the key").click()
        expect(page.get_by_role("dialog")).to_contain_text("name")
        page.get_by_label("Name").fill("reader")
        page.get_by_label("Collections").fill("team-*, docs")
        page.get_by_role("button", name="Make the key").click()
        page.get_by_role("button", name="I have kept it").click()
        expect(row(page, "reader")).to_contain_text("team-*, docs")
        row(page, "reader").get_by_role("button", name="Revoke reader").click()
        confirm(page, "reader", "Revoke")
        expect(row(page, "reader")).to_have_count(0)
        row(page, "owner").get_by_role("button", name="Revoke owner").click()
        page.get_by_role("dialog").get_by_role("textbox").fill("owner")
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(page.get_by_role("dialog")).to_contain_text("last")
    finally:
        server.kill()
        server.process.communicate()


def test_a_key_that_may_only_search_is_told_so(data_dir: Path, page: Page) -> None:
    secret = str(penstock_json("keys", "create", "reader", "--scope", "search", "--data-dir", data_dir)["secret"])
    server = start(data_dir)
    try:
        page.goto(f"{server.url}/admin#keys")
        page.get_by_label("Key", exact=True).fill(secret)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("Your key may not do this")).to_be_visible()
        page.get_by_role("link", name="Collections").click()
        expect(page.get_by_text("There is none yet.")).to_be_visible()
    finally:
        server.kill()
        server.process.communicate()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 2560])
def test_everybody_can_administer(
    server: Server, contexts: Callable[..., BrowserContext], width: int, scheme: Any
) -> None:
    page = contexts(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce").new_page()
    for section in SECTIONS:
        page.goto(f"{server.url}/admin#{section}")
        expect(page.get_by_role("heading", level=1)).to_have_text(section.capitalize())
        expect(page.get_by_text("Asking the server")).to_have_count(0)
        assert accessibility_violations(page) == [], section
        assert fits(page), section
    page.get_by_role("link", name="Collections").click()
    page.get_by_role("button", name="Delete default").click()
    assert accessibility_violations(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete default")).to_be_focused()
