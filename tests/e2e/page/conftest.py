"""A real browser on a real server. A page that writes an error to its console fails its test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.e2e.conftest import Server, penstock, start

#: Loads of a page on a machine that has other work.
PATIENCE_MS: Final = 20_000

#: WCAG 2.2 AA, and what the rules call good practice.
AXE_OPTIONS: Final = {"resultTypes": ["violations"]}

#: Console messages that say what the test has done: a refused or broken request.
EXPECTED_MESSAGE: Final = "Failed to load resource"

FILES: Final = {
    "src/retry.py": (
        '"""Retries."""\n\n\ndef delay_s(attempt):\n    """Return the seconds before the next attempt."""\n'
        "    return 2 ** attempt\n"
    ),
    "src/gate.py": (
        '"""Gate."""\n\n\nclass Gate:\n    def admit(self, request):\n'
        '        """Refuse a request when too many wait."""\n        return self.delay_s(request)\n'
    ),
    "docs/gate.md": "# The gate\n\nIt refuses early, and says when to come back: the delay before the next attempt.\n",
    "src/script.html": (
        "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> an attempt at the gate\n"
    ),
    "src/bidi.py": "# access \u202e}attempt if\u2066 admin\u2069 \u2066 the gate\nx = '\x07'\n",
    "src/long.txt": "gate " + "attempt" * 14_000 + "\n",
    "src/\"quoted\" & 'odd' <b>.txt": "The name of this file has quotes, at the gate.\n",
}


def find_chromium() -> str | None:
    """Return the path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Server]:
    """Return a server with a small index: code, prose, and files made to hurt a page."""
    data_dir = tmp_path_factory.mktemp("page") / "data"
    shutil.copytree(models, data_dir / "models")
    server = start(data_dir)
    try:
        index(server, tmp_path_factory.mktemp("tree") / "odd", FILES)
        yield server
    finally:
        if server.process.poll() is None:
            server.terminate()


def index(server: Server, tree: Path, files: dict[str, str], *options: str) -> None:
    """Write files, and index them as a source."""
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    done = penstock("index", tree, "--data-dir", server.data_dir, *options)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser. It ends with the module: as long as it runs, no other event loop does in this thread."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def contexts(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Return what opens a window of its own, with options of Playwright; errors on its console fail the test."""
    opened: list[BrowserContext] = []
    errors: list[str] = []

    def begin(**options: Any) -> BrowserContext:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        context.set_default_timeout(PATIENCE_MS)
        context.on("weberror", lambda error: errors.append(str(error.error)))
        context.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        opened.append(context)
        return context

    expect.set_options(timeout=PATIENCE_MS)
    yield begin
    for context in opened:
        context.close()
    assert [text for text in errors if EXPECTED_MESSAGE not in text] == []


@pytest.fixture
def page(contexts: Callable[..., BrowserContext]) -> Page:
    """Return a window of usual size."""
    return contexts().new_page()


def accessibility_violations(page: Page) -> list[str]:
    """Return what the rules of axe-core find on the page as it is now."""
    found = Axe().run(page, options=AXE_OPTIONS).response["violations"]
    return [f"{one['id']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found]


def fits(page: Page) -> bool:
    """Return whether nothing has to be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))
