"""The flow in a real browser, on a real server: calm, in a storm, after a restart, by keyboard, with keys."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.e2e.conftest import Server, penstock, penstock_json, start
from tests.e2e.page.conftest import accessibility_violations, fits

LIVE = re.compile("^Live$")


def connection(page: Page) -> Any:
    return page.locator(".connection")


def watch(page: Page, server: Server) -> None:
    """Open the flow, and wait until it is live with rates."""
    page.goto(f"{server.url}/flow")
    expect(connection(page)).to_have_text(LIVE)
    expect(page.locator(".gate-rate b")).not_to_have_text("–")


def search(server: Server, times: int) -> list[int]:
    with server.client() as client:
        return [client.post("/v1/search", json={"query": f"gate {n}"}).status_code for n in range(times)]


@pytest.fixture
def tight(tmp_path: Path, models: Path) -> Iterator[Server]:
    """Return a server that takes two requests a second of each client."""
    shutil.copytree(models, tmp_path / "data" / "models")
    server = start(tmp_path / "data", environ={"PENSTOCK_RATE_LIMIT": "2", "PENSTOCK_RATE_BURST": "40"})
    yield server
    server.kill()
    server.process.communicate()


def test_it_shows_the_way_from_the_gate_to_the_store(server: Server, page: Page) -> None:
    watch(page, server)
    expect(page.get_by_role("heading", name="Flow", level=1)).to_be_visible()
    for name in ("Gate", "Topics", "Models and store", "Turned back"):
        expect(page.get_by_role("heading", name=re.compile(f"^{name}")).first).to_be_visible()
    expect(page.locator(".lane")).to_have_count(6)
    expect(page.locator(".vessel", has_text="search.request")).to_contain_text("0 waiting of 1,000")
    expect(page.locator(".end", has_text="Store")).to_contain_text("connected")
    expect(page.locator(".ladder li")).to_have_count(3)
    expect(page.locator(".ladder li").first).to_contain_text("Full quality: nothing is left out")
    expect(page.locator(".alerts")).to_contain_text("None is active")
    expect(page.locator(".chart canvas")).to_have_count(5)
    expect(page.locator("figcaption").first).to_contain_text(re.compile(r"now .*, most .*"))
    expect(page.locator(".flow-server")).to_contain_text(re.compile(r"^Penstock \d.*, up \d"))
    # A frame comes each second: the line of a chart moves on, though nothing happens.
    canvas = page.locator(".chart canvas").first
    before = canvas.screenshot()
    deadline = time.monotonic() + 20
    while canvas.screenshot() == before:
        assert time.monotonic() < deadline
        page.wait_for_timeout(250)


def test_requests_are_seen_as_they_come(server: Server, page: Page) -> None:
    watch(page, server)
    stop = threading.Event()

    def ask() -> None:
        with server.client() as client:
            while not stop.is_set():
                client.post("/v1/search", json={"query": "gate"})

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        expect(page.locator(".lane").first.locator(".pipe").first).to_have_class(re.compile("slow|quick|fast"))
        expect(page.locator(".clients tbody tr").first).to_contain_text("127.0.0.1")
    finally:
        stop.set()
        asking.join(10)
    expect(page.locator(".lane").first.locator(".pipe").first).not_to_have_class(re.compile("slow|quick|fast"))


def test_a_storm_is_seen_and_the_page_stays_live(tight: Server, page: Page) -> None:
    watch(page, tight)
    expect(page.locator(".back-box")).to_contain_text("Nothing since the server has started")
    stop = threading.Event()
    refused: list[int] = []

    def storm() -> None:
        with tight.client() as client:
            while not stop.wait(0.01):
                refused.append(client.get("/v1/collections").status_code)

    storming = [threading.Thread(target=storm) for _ in range(4)]
    for one in storming:
        one.start()
    try:
        expect(page.locator(".back-box.on li").first).to_contain_text("asked too often")
        expect(page.locator(".sentence")).to_contain_text("More comes than can be done")
        expect(page.get_by_role("status")).to_contain_text("Requests are turned back")
        expect(connection(page)).to_have_text(LIVE)
        assert accessibility_violations(page) == []
    finally:
        stop.set()
        for one in storming:
            one.join(10)
    assert refused.count(429) > 20
    # A while after the storm it is over on the page too.
    expect(page.locator(".back-box.on")).to_have_count(0)
    expect(page.locator(".back-box li").first).to_contain_text("in all")
    expect(page.get_by_role("status")).to_contain_text("All is well")


def test_a_restart_is_shown_and_the_page_comes_back(tmp_path: Path, models: Path, page: Page) -> None:
    shutil.copytree(models, tmp_path / "data" / "models")
    first = start(tmp_path / "data")
    watch(page, first)
    search(first, 3)
    first.terminate()
    expect(connection(page)).to_contain_text(re.compile("Shutting down|Reconnecting"))
    expect(page.locator(".flow-view")).to_have_class(re.compile("old"))
    expect(connection(page)).to_contain_text(re.compile("last seen .* ago"))
    again = start(tmp_path / "data", "--port", first.url.rpartition(":")[2])
    try:
        expect(connection(page)).to_have_text(LIVE)
        expect(page.locator(".gate-rate b")).to_have_text("0")
        assert "-" not in page.locator(".gate-box").inner_text()
        # What was seen before the restart stays in the charts.
        assert not page.locator("figcaption").first.inner_text().endswith("most 0/s")
    finally:
        again.kill()
        again.process.communicate()


def test_a_refusal_counts_down_and_is_asked_again(server: Server, page: Page) -> None:
    asked = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > 1:
            return route.continue_()
        body = '{"title": "Too much", "code": "overloaded", "detail": "too many streams are open"}'
        headers = {"retry-after": "2", "content-type": "application/problem+json"}
        return route.fulfill(status=503, headers=headers, body=body)

    page.route("**/v1/flow", refuse)
    page.goto(f"{server.url}/flow")
    expect(connection(page)).to_contain_text(re.compile(r"Refused, again in \d s"))
    expect(page.get_by_text("too many streams are open")).to_be_visible()
    expect(connection(page)).to_have_text(LIVE)


def test_a_key_is_asked_for_and_one_that_is_revoked_ends_the_view(tmp_path: Path, models: Path, page: Page) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(models, data_dir / "models")
    secret = str(penstock_json("keys", "create", "screen", "--data-dir", data_dir)["secret"])
    server = start(data_dir)
    try:
        page.goto(f"{server.url}/flow")
        page.get_by_label("Key").fill(secret)
        page.get_by_role("button", name="Sign in").click()
        expect(connection(page)).to_have_text(LIVE)
        expect(page.locator(".clients")).to_contain_text("screen")
        assert penstock("keys", "revoke", "screen", "--yes", "--data-dir", data_dir).returncode == 0
        expect(page.get_by_role("dialog", name="Sign in")).to_be_visible()
        expect(page.locator(".river")).to_have_count(0)
    finally:
        server.kill()
        server.process.communicate()


def test_nothing_is_asked_while_the_tab_is_hidden(server: Server, page: Page) -> None:
    watch(page, server)
    hide = """(hidden) => {
        Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(hide, True)
    expect(connection(page)).to_have_text("Paused")
    with server.client() as client, client.stream("GET", "/v1/flow") as stream:
        frame = next(line for line in stream.iter_lines() if line.startswith("data: "))
        assert '"viewers":1,' in frame
    page.evaluate(hide, False)
    expect(connection(page)).to_have_text(LIVE)


def test_the_history_outlives_a_look_at_another_view(server: Server, page: Page) -> None:
    watch(page, server)
    search(server, 5)
    caption = page.locator("figcaption").first
    expect(caption).not_to_contain_text("most 0/s")
    page.get_by_role("link", name="Search").first.click()
    expect(page.get_by_role("combobox", name="Search")).to_be_visible()
    page.get_by_role("link", name="Flow").click()
    expect(page.locator(".chart canvas")).to_have_count(5)
    expect(caption).not_to_contain_text("most 0/s")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_it_is_accessible_and_fits(
    server: Server, contexts: Callable[..., BrowserContext], scheme: Any, width: int
) -> None:
    page = contexts(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
    watch(page, server)
    expect(page.locator(".chart canvas")).to_have_count(5)
    assert accessibility_violations(page) == []
    assert fits(page)


def test_it_can_be_reached_and_left_by_keyboard(server: Server, page: Page) -> None:
    watch(page, server)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        # The flow has nothing to be pressed: one passes through it without being caught.
        if page.evaluate("document.activeElement === document.body"):
            return
    raise AssertionError("the focus does not leave the view")


def test_who_wants_no_motion_gets_none(server: Server, contexts: Callable[..., BrowserContext]) -> None:
    page = contexts(reduced_motion="reduce").new_page()
    watch(page, server)
    moving = page.evaluate("document.getAnimations().filter((one) => one.playState === 'running').length")
    assert moving == 0


def test_frames_that_make_no_sense_together_never_show_a_negative_number(server: Server, page: Page) -> None:
    """Counts that went back, a clock that was set back, a topic and a breaker that are not known here."""
    with server.client() as client, client.stream("GET", "/v1/flow") as stream:
        frame = next(line[6:] for line in stream.iter_lines() if line.startswith("data: "))
    before = httpx.Response(200, content=frame).json()
    before["requests"] = before["traffic"]["in_time"] = 1_000_000
    before["traffic"]["refused"] = {"rate_limited": 10**9}
    after = httpx.Response(200, content=frame).json()
    after["uptime_s"] = before["uptime_s"] + 1
    after["at"] = "2020-01-01T00:00:00.000Z"
    after["topics"].append({**after["topics"][0], "name": "new.topic", "refused": {"<b>odd</b>": 3}})
    after["breakers"].append({"dependency": "broker", "state": "open", "retry_after_s": 12.0})
    after["ladder"][0] |= {"rung": "one_arm", "level": 3}
    after["memory"] = None
    events = "".join(
        f"event: flow\ndata: {httpx.Request('POST', 'http://x', json=one).content.decode()}\n\n"
        for one in (before, after)
    )
    headers = {"content-type": "text/event-stream"}
    page.route("**/v1/flow", lambda route: route.fulfill(status=200, headers=headers, body=events))
    page.goto(f"{server.url}/flow")
    expect(page.locator(".lane")).to_have_count(7)
    expect(page.locator(".end.open")).to_contain_text("broker")
    expect(page.locator(".ladder li").first).to_contain_text("One arm: the dense arm is left out")
    expect(page.locator(".end.open")).to_contain_text("left alone, tried in 12 s")
    assert not re.search(r"[-−]\d|NaN|undefined|Infinity", page.locator(".river").inner_text())
    assert accessibility_violations(page) == []
