"""The page's files: as they were vendored, small, open to all, and under a policy that runs nothing inline."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Final

import pytest

from penstock.http import page_files
from penstock.http.page_files import PAGE_FILES, VIEWS
from tests.clock import virtual
from tests.fakes.api import Api

FOLDER: Final = Path(page_files.__file__).parent / "page"
VENDOR: Final = FOLDER / "vendor"
BYTES_MAX: Final = 150_000

INLINE: Final = re.compile(rb"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=|javascript:", re.IGNORECASE)
ELSEWHERE: Final = re.compile(rb"(?:src|href)=\"(?!/(?!/))|url\((?!['\"]?#)|https?://(?!www\.w3\.org/2000/svg)")


def test_vendored_files_are_those_that_were_checked() -> None:
    listed = json.loads((VENDOR / "vendored.json").read_text())["packages"]
    hashes = {name: digest for package in listed for name, digest in package["sha256"].items()}
    there = {p.relative_to(VENDOR).as_posix(): p.read_bytes() for p in VENDOR.rglob("*") if p.is_file()}
    del there["vendored.json"]
    assert {name: hashlib.sha256(data).hexdigest() for name, data in there.items()} == hashes
    assert all(package["licence"] and package["integrity"].startswith("sha512-") for package in listed)


def test_the_whole_page_is_small() -> None:
    sent = {path: len(file.gzipped) for path, file in PAGE_FILES.items() if path not in VIEWS[1:]}
    assert sum(sent.values()) < BYTES_MAX, sent


def test_nothing_runs_inline_and_nothing_is_loaded_from_elsewhere() -> None:
    for path in FOLDER.rglob("*"):
        if path.suffix in {".html", ".css", ".svg"}:
            assert INLINE.findall(path.read_bytes()) == [], path
            assert ELSEWHERE.findall(path.read_bytes()) == [], path
        if path.suffix == ".js" and VENDOR not in path.parents:
            assert b"innerHTML" not in path.read_bytes(), path
            assert b"dangerously" not in path.read_bytes(), path


@pytest.mark.parametrize("path", VIEWS)
@virtual
async def test_each_view_is_the_page(path: str) -> None:
    answer = await Api().ask("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff"


@virtual
async def test_a_file_is_sent_compressed_where_it_may_be_and_not_again_while_it_is_the_same() -> None:
    api = Api()
    plain = await api.ask("GET", "/assets/api.js")
    packed = await api.ask("GET", "/assets/api.js", headers={"accept-encoding": "br, gzip"})
    again = await api.ask("GET", "/assets/api.js", headers={"if-none-match": plain.headers["etag"]})
    assert plain.body == (FOLDER / "api.js").read_bytes()
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["content-encoding"] == "gzip"
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/assets/",
        "/assets/none.js",
        "/assets/index.html",
        "/assets/vendor/vendored.json",
        "/assets/../api.js",
        "/flow/",
    ],
)
@virtual
async def test_what_is_no_file_of_the_page_is_not_found(path: str) -> None:
    answer = await Api().ask("GET", path)
    assert (answer.status, answer.json["code"]) == (404, "not_found")
