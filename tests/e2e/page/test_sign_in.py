"""The page of a server with keys: a sign-in that stays in the tab, and a key that ends while it is used."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Server, penstock, penstock_json, start
from tests.e2e.page.conftest import FILES, accessibility_violations, index


@pytest.fixture
def closed(data_dir: Path, tmp_path: Path) -> Iterator[Server]:
    """Return a server with a key, `reader`, and a small index."""
    secret = penstock_json("keys", "create", "reader", "--scope", "search", "--data-dir", data_dir)["secret"]
    (tmp_path / "secret").write_text(str(secret))
    server = start(data_dir)
    try:
        index(server, tmp_path / "odd", {"docs/gate.md": FILES["docs/gate.md"]})
        yield server
    finally:
        server.kill()
        server.process.communicate()
        shutil.rmtree(tmp_path / "odd", ignore_errors=True)


def sign_in(page: Page, secret: str) -> None:
    page.get_by_label("Key").fill(secret)
    page.get_by_role("button", name="Sign in").click()


def signed_in(page: Page, secret: str) -> None:
    sign_in(page, secret)
    # What lies behind a modal dialog takes no input.
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_key_opens_the_page_for_this_tab_and_no_other(closed: Server, tmp_path: Path, page: Page) -> None:
    secret = (tmp_path / "secret").read_text()
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(f"{closed.url}/?q=gate")
    expect(page.get_by_role("dialog", name="Sign in")).to_be_visible()
    expect(page.get_by_text("This server asks for a key.")).to_be_visible()
    assert accessibility_violations(page) == []
    for _ in range(5):
        page.keyboard.press("Escape")
    assert page.url.endswith("/?q=gate")
    expect(page.get_by_role("dialog", name="Sign in")).to_be_visible()
    sign_in(page, f"{secret[:-1]}{'a' if secret[-1] != 'a' else 'b'}")
    expect(page.get_by_role("alert")).to_contain_text("key")
    signed_in(page, secret)
    expect(page.get_by_role("listbox", name="Hits").get_by_role("option")).to_have_count(1)
    page.reload()
    expect(page.get_by_role("listbox", name="Hits").get_by_role("option")).to_have_count(1)
    assert not [one for one in addresses if secret in one]
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""
    other = page.context.new_page()
    other.goto(closed.url)
    expect(other.get_by_role("dialog", name="Sign in")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("You have signed out.")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_key_that_is_revoked_while_it_is_used_asks_for_another(closed: Server, tmp_path: Path, page: Page) -> None:
    page.goto(closed.url)
    signed_in(page, (tmp_path / "secret").read_text())
    box = page.get_by_role("combobox", name="Search")
    box.fill("gate")
    expect(page.get_by_role("listbox", name="Hits").get_by_role("option")).to_have_count(1)
    another = penstock_json("keys", "create", "another", "--scope", "search", "--data-dir", closed.data_dir)["secret"]
    assert penstock("keys", "revoke", "reader", "--yes", "--data-dir", closed.data_dir).returncode == 0
    box.fill("the gate")
    for word in ("refuses", "early", "says", "when", "come", "back"):
        if page.get_by_role("dialog", name="Sign in").is_visible():
            break
        # Other servers hear of it within seconds, this one at its next look.
        box.fill(f"the gate {word}")
        page.wait_for_load_state("networkidle")
    expect(page.get_by_role("dialog", name="Sign in")).to_be_visible()
    signed_in(page, str(another))
    expect(page.get_by_role("listbox", name="Hits").get_by_role("option")).to_have_count(1)
