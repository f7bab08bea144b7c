"""A source's row, what is asked before it is forgotten, and the name that a tree gets."""

import sys

import click
import pytest

from penstock.cli.sources import confirm, source_row
from penstock.client import RootDirectory, RunSummary, Source, Watch
from penstock.indexing.sources.index_sources import default_name
from penstock.kernel.errors import Invalid
from penstock.stores.sources import NAME_CHARACTERS_MAX, ROOTS_MAX, SourceRecord, SourceRoot, allowed_name


def test_a_row_tells_the_root_of_this_host_or_of_the_latest():
    roots = [RootDirectory("far", "/far/p"), RootDirectory("near", "/near/p")]
    one = Source("p", "default", 1234, roots, "c0ffee" * 6, "2026-01-01", RunSummary(indexed=2, failed=1))
    assert source_row(one, "near") == [
        "p",
        "default",
        "1,234",
        "2026-01-01",
        "c0ffeec0ff",
        "2 indexed, 1 failed",
        "",
        "/near/p",
    ]
    assert source_row(one, "nowhere")[-1] == "far:/far/p"
    assert source_row(Source("p"), "near")[3:] == ["never", "", "", "", ""]


def test_a_row_tells_who_watches():
    roots = [RootDirectory("far", "/far/p", watch=True)]
    assert source_row(Source("p", roots=roots), "near")[6] == "elsewhere"
    assert source_row(Source("p", roots=roots), "far")[6] == "off"
    assert source_row(Source("p", roots=roots, watch=Watch("waiting", "gone")), "near")[6] == "waiting"


def test_without_a_terminal_nothing_is_deleted_unless_said(monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    confirm("Sure?", yes=True)
    with pytest.raises(Invalid, match="--yes"):
        confirm("Sure?", yes=False)


@pytest.mark.parametrize(("given", "deletes"), [("docs", True), ("", False), ("doc", False)])
def test_a_name_has_to_be_typed_as_it_is(monkeypatch, given, deletes):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "prompt", lambda *_, **__: given)
    if deletes:
        confirm("Sure?", yes=False, answer="docs")
        return
    with pytest.raises(Invalid, match="nothing was deleted"):
        confirm("Sure?", yes=False, answer="docs")


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("plain", "plain"),
        ("with space", "with space"),
        (".config", "config"),
        ("a:b", "a-b"),
        ("a ", "a"),
        ("a\u202eb", "a-b"),
        ("a\nb", "a-b"),
        ("日本", "日本"),
        ("x" * 200, "x" * NAME_CHARACTERS_MAX),
        (b"\xff\xfe".decode(errors="surrogateescape"), "??"),
        ("...", "root"),
    ],
)
def test_a_tree_without_a_repository_is_named_after_its_directory(tmp_path, directory, name):
    (tmp_path / directory).mkdir()
    assert default_name(tmp_path / directory) == name
    assert allowed_name(name) == name


def test_the_latest_hosts_are_remembered():
    record = SourceRecord("s")
    for number in range(ROOTS_MAX + 2):
        record = record.with_root(SourceRoot(f"h{number}", f"/{number}"))
    assert [one.host for one in record.roots] == [f"h{number}" for number in range(ROOTS_MAX + 1, 1, -1)]
    assert record.with_root(SourceRoot("h3", "/new")).root_on("h3") == "/new"
    assert record.root_on("h0") == ""
