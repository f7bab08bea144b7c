"""The search page in a real browser, on a real server."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.e2e.conftest import Server, start
from tests.e2e.page.conftest import accessibility_violations, fits, index
from tests.e2e.test_server import child_of

QUERY: Final = "seconds before the next attempt"


def hits(page: Page) -> Any:
    return page.get_by_role("listbox", name="Hits").get_by_role("option")


def ask(page: Page, server: Server, query: str = QUERY) -> None:
    """Open the page, type a query, and wait for hits with facets."""
    page.goto(server.url)
    page.get_by_role("combobox", name="Search").fill(query)
    expect(page.get_by_role("group", name="Language")).to_be_visible()


def test_somebody_who_types_finds_and_the_address_can_be_shared(server: Server, page: Page) -> None:
    page.goto(server.url)
    expect(page.get_by_text("documents in")).to_be_visible()
    box = page.get_by_role("combobox", name="Search")
    expect(box).to_be_focused()
    page.keyboard.type(QUERY, delay=15)
    expect(hits(page).first).to_contain_text("retry.py")
    expect(page.locator("mark").first).to_be_visible()
    expect(page.locator(".preview h2")).to_have_text("src/retry.py")
    assert parse_qs(urlsplit(page.url).query) == {"q": [QUERY]}
    shared = page.context.new_page()
    shared.goto(page.url)
    expect(shared.get_by_role("combobox", name="Search")).to_have_value(QUERY)
    expect(hits(shared).first).to_contain_text("retry.py")


def test_a_search_needs_no_mouse(server: Server, page: Page) -> None:
    ask(page, server)
    box = page.get_by_role("combobox", name="Search")
    page.keyboard.press("ArrowDown")
    expect(hits(page).nth(1)).to_have_attribute("aria-selected", "true")
    expect(box).to_have_attribute("aria-activedescendant", "hit-1")
    page.keyboard.press("Enter")
    expect(page.locator(".preview")).to_be_focused()
    page.keyboard.press("Escape")
    expect(box).to_be_focused()
    page.keyboard.press("Escape")
    expect(box).to_have_value("")
    page.locator("main").focus()
    page.keyboard.press("/")
    expect(box).to_be_focused()


def test_a_letter_cancels_the_search_before_it_and_waits_no_longer_than_it_is_worth(server: Server, page: Page) -> None:
    bodies: list[dict[str, Any]] = []
    cancelled: list[str] = []
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        bodies.append(route.request.post_data_json)
        held.append(route) if len(held) == 0 else route.continue_()

    page.route("**/search", hold_the_first)
    page.on("requestfailed", lambda request: cancelled.append(request.failure or ""))
    page.goto(server.url)
    box = page.get_by_role("combobox", name="Search")
    with page.expect_request("**/search"):
        box.press_sequentially("gate")
    box.press_sequentially(" attempt")
    expect(hits(page).first).to_be_visible()
    assert cancelled == ["net::ERR_ABORTED"]
    assert bodies[0]["timeout_ms"] <= 1000
    assert "facets" not in bodies[0]
    expect(page.get_by_role("group", name="Folder")).to_be_visible()
    assert "timeout_ms" not in bodies[-1]


def test_filters_narrow_the_search_and_can_be_taken_back(server: Server, page: Page) -> None:
    ask(page, server, "the gate")
    page.get_by_label("markdown").check()
    expect(hits(page)).to_have_count(1)
    expect(hits(page).first).to_contain_text("gate.md")
    assert parse_qs(urlsplit(page.url).query)["language"] == ["markdown"]
    page.go_back()
    expect(page.get_by_label("markdown")).not_to_be_checked()
    page.locator(".folder", has_text="docs/").click()
    expect(hits(page)).to_have_count(1)
    page.get_by_role("button", name="Leave docs/").click()
    expect(hits(page).nth(1)).to_be_visible()


def test_a_hit_tells_how_it_was_ranked(server: Server, page: Page) -> None:
    ask(page, server)
    page.get_by_role("button", name="Why this?").click()
    table = page.get_by_role("table", name="Rank and score")
    expect(table.get_by_role("row", name=re.compile("^Dense 1 "))).to_be_visible()
    expect(table.get_by_role("rowheader")).to_have_text(["Dense", "Sparse", "Fused", "Exact", "Tokens", "Signals"])
    expect(page.locator(".explain path.own")).to_have_count(5)


def test_more_like_a_hit_and_the_whole_document(server: Server, page: Page) -> None:
    ask(page, server)
    page.get_by_role("button", name="Whole document").click()
    expect(page.locator(".code .line")).to_have_count(6)
    page.get_by_role("button", name="More like this").click()
    expect(page.get_by_role("button", name="Similar to a hit")).to_be_visible()
    expect(hits(page).first).not_to_contain_text("retry.py")
    assert parse_qs(urlsplit(page.url).query)["like"] == ["odd:src/retry.py"]


def test_lines_open_in_the_editor_that_the_reader_has_chosen(server: Server, page: Page) -> None:
    ask(page, server)
    expect(page.get_by_role("link", name="Open in editor")).to_have_count(0)
    page.get_by_text("Editor", exact=True).click()
    page.get_by_label("Open lines in").select_option("Visual Studio Code")
    link = page.get_by_role("link", name="Open in editor")
    expect(link).to_have_attribute("href", re.compile(r"^vscode://file/.*/odd/src/retry\.py:\d+$"))
    page.get_by_label("Folder of the files here").fill("/home/me/my project")
    expect(link).to_have_attribute("href", re.compile(r"^vscode://file/home/me/my%20project/src/retry\.py:\d+$"))
    page.reload()
    expect(link).to_be_visible()
    page.get_by_text("Editor", exact=True).click()
    page.get_by_label("Open lines in").select_option("Another one")
    page.get_by_label("Address, with").fill("javascript:alert('{path}')")
    expect(link).to_have_count(0)


@pytest.mark.parametrize("name", ["script.html", "bidi.py", "long.txt", "odd"])
def test_what_a_document_holds_is_shown_and_does_nothing(server: Server, page: Page, name: str) -> None:
    ask(page, server, "attempt at the gate")
    hits(page).filter(has_text=name).click()
    expect(page.locator(".preview h2")).to_contain_text(name)
    assert page.evaluate("window.hacked") is None
    shown = page.locator(".search").inner_text()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x07]", shown)
    if name == "bidi.py":
        expect(page.locator(".preview .code")).to_contain_text("\\u202e")
    assert fits(page)


def test_a_query_of_ten_thousand_characters_is_answered(server: Server, page: Page) -> None:
    ask(page, server, "gate " * 2_000)
    expect(hits(page).first).to_be_visible()
    expect(page.locator(".degraded")).to_contain_text("only the beginning of this query was read")


def test_nothing_found_says_what_to_change(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/?q=gate&language=rust")
    expect(page.get_by_text("Nothing fits the filters. Take one away.")).to_be_visible()


def test_a_refusal_counts_down_and_tries_again(server: Server, page: Page) -> None:
    refused = [True]

    def refuse(route: Route) -> None:
        if not refused:
            return route.continue_()
        refused.clear()
        problem = {"title": "Too busy", "status": 503, "detail": "too much work is waiting", "code": "queue_full"}
        return route.fulfill(
            status=503, headers={"retry-after": "2"}, content_type="application/problem+json", body=json.dumps(problem)
        )

    page.route("**/search", refuse)
    page.goto(f"{server.url}/?q=gate")
    expect(page.get_by_text("The server has too much to do just now")).to_be_visible()
    expect(page.get_by_role("timer")).to_have_text("2 s")
    expect(hits(page).first).to_be_visible()
    expect(page.get_by_text("The server has too much to do just now")).to_have_count(0)


def test_degraded_answers_say_what_is_missing(server: Server, page: Page) -> None:
    def degrade(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"degraded": ["no_rerank", "new_word"]})

    page.route("**/search", degrade)
    page.goto(f"{server.url}/?q=gate")
    expect(page.locator(".degraded")).to_contain_text("the order is rougher than usual")
    expect(page.locator(".degraded")).to_contain_text("new word")


def test_a_server_that_restarts_is_waited_for(data_dir: Path, tmp_path: Path, page: Page) -> None:
    server = start(data_dir)
    try:
        index(server, tmp_path / "tree", {"gate.md": "# The gate\n\nIt refuses early.\n"})
        ask_url = f"{server.url}/?q=gate"
        page.goto(ask_url)
        expect(hits(page)).to_have_count(1)
        server.terminate()
        page.get_by_role("combobox", name="Search").fill("refuses")
        expect(page.get_by_text("No connection to the server")).to_be_visible()
        server = start(data_dir, "--port", str(urlsplit(ask_url).port))
        expect(page.get_by_text("No connection to the server")).to_have_count(0, timeout=40_000)
        expect(hits(page)).to_have_count(1)
    finally:
        if server.process.poll() is None:
            server.kill()
            server.process.communicate()


def test_a_store_that_dies_is_a_pause_and_no_error_page(server: Server, page: Page) -> None:
    ask(page, server, "gate")
    os.kill(child_of(server.process.pid, "edge.process"), signal.SIGKILL)
    page.get_by_role("combobox", name="Search").fill("attempt")
    expect(hits(page).first).to_contain_text("attempt", timeout=40_000)
    expect(page.locator(".notice")).to_have_count(0)


def test_a_collection_that_is_deleted_while_it_is_shown_is_told(server: Server, tmp_path: Path, page: Page) -> None:
    index(server, tmp_path / "short", {"a.md": "# Lived\n\nA short life.\n"}, "--collection", "short-lived")
    page.goto(f"{server.url}/?q=life&in=short-lived")
    expect(hits(page)).to_have_count(1)
    with server.client() as client:
        assert client.delete("/v1/collections/short-lived").status_code == 200
    page.get_by_role("combobox", name="Search").fill("short life")
    expect(page.get_by_text("There is no collection short-lived any more")).to_be_visible()
    page.get_by_role("button", name="Search what there is").click()
    expect(hits(page).first).to_be_visible()


def test_a_clock_that_is_a_day_wrong_says_nothing_wrong(
    server: Server, contexts: Callable[..., BrowserContext]
) -> None:
    page = contexts().new_page()
    page.add_init_script("const now = Date.now; Date.now = () => now() - 86400e3;")
    page.goto(server.url)
    expect(page.locator(".stock time").first).to_have_text(re.compile(r"^\d+(\.\d+)? (ms|s|min) ago$"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_everybody_can_use_it(server: Server, contexts: Callable[..., BrowserContext], width: int, scheme: Any) -> None:
    page = contexts(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce").new_page()
    page.goto(server.url)
    expect(page.get_by_text("documents in")).to_be_visible()
    assert accessibility_violations(page) == []
    page.goto(f"{server.url}/?q={QUERY}&why=1")
    expect(hits(page).first).to_be_visible()
    if width < 800:
        hits(page).first.click()
    expect(page.get_by_role("table", name="Rank and score")).to_be_visible()
    assert accessibility_violations(page) == []
    assert fits(page)
